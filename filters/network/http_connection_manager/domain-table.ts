// Hot path: one lookup a stream; its cost does not grow with the number of hosts.
import { ConfigError } from "@tsproxy/sdk";

/** Host name -> virtual host: exact, then `*.suffix`, then `prefix.*`, the longest first; then `*`. */
export class DomainTable<T> {
  readonly #exact = new Map<string, T>();
  readonly #suffixes = new Wildcards<T>();
  readonly #prefixes = new Wildcards<T>();
  #any: T | undefined = undefined;

  add(domain: string, host: T, path: string, table: string): void {
    const lower = domain.toLowerCase();
    const key = lower.startsWith("*") ? lower.slice(1) : lower.slice(0, -1);
    const known =
      lower === "*"
        ? this.#any !== undefined
        : lower.startsWith("*")
          ? this.#suffixes.has(key)
          : lower.endsWith("*")
            ? this.#prefixes.has(key)
            : this.#exact.has(lower);
    if (known) {
      throw new ConfigError(
        path,
        lower === "*"
          ? `only one virtual host of route table "${table}" may have the domain "*"`
          : `domain "${domain}" is in route table "${table}" already; each may stand there once`,
      );
    }
    if (lower === "*") this.#any = host;
    else if (lower.startsWith("*")) this.#suffixes.add(key, host);
    else if (lower.endsWith("*")) this.#prefixes.add(key, host);
    else this.#exact.set(lower, host);
  }

  /** The virtual host of every request, if there is nothing to choose. */
  get only(): T | undefined {
    const choice = this.#exact.size + this.#suffixes.size + this.#prefixes.size;
    return choice === 0 ? this.#any : undefined;
  }

  find(name: string): T | undefined {
    return (
      this.#exact.get(name) ??
      this.#suffixes.find(name, (length) => name.slice(-length)) ??
      this.#prefixes.find(name, (length) => name.slice(0, length)) ??
      this.#any
    );
  }
}

class Wildcards<T> {
  readonly #hosts = new Map<string, T>();
  /** Lengths of the texts beside the star, longest first; few, whatever the number of hosts. */
  #lengths: number[] = [];

  get size(): number {
    return this.#hosts.size;
  }
  has(text: string): boolean {
    return this.#hosts.has(text);
  }
  add(text: string, host: T): void {
    this.#hosts.set(text, host);
    if (this.#lengths.includes(text.length)) return;
    this.#lengths.push(text.length);
    this.#lengths.sort((a, b) => b - a);
  }
  find(name: string, part: (length: number) => string): T | undefined {
    for (const length of this.#lengths) {
      // The star stands for one character at least.
      const host = name.length > length ? this.#hosts.get(part(length)) : undefined;
      if (host !== undefined) return host;
    }
    return undefined;
  }
}
