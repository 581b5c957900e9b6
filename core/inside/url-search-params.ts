import { utf8Decode, utf8Encode } from "@tsproxy/sdk";

/** Reads a query into parameters that there are already; for `Url`, whose query may be set as a whole. */
export let refill: (parameters: UrlSearchParams, query: string) => void;

/** The global `URLSearchParams`: application/x-www-form-urlencoded (WHATWG URL §5 and §6.2). */
export class UrlSearchParams {
  #pairs: [string, string][] = [];
  readonly #onChange: (() => void) | undefined;

  static {
    refill = (parameters, query) => {
      parameters.#pairs = parsed(query);
    };
  }

  constructor(
    init: string | Readonly<Record<string, string>> | Iterable<readonly [string, string]> = "",
    onChange?: () => void,
  ) {
    this.#onChange = onChange;
    if (typeof init !== "object" || init === null) {
      const text = wellFormed(init);
      this.#pairs = parsed(text.startsWith("?") ? text.slice(1) : text);
      return;
    }
    const pairs = Symbol.iterator in init ? [...init] : Object.entries(init);
    for (const pair of pairs) {
      if (pair.length !== 2) throw new TypeError("each parameter is a pair of a name and a value");
      this.#pairs.push([wellFormed(pair[0]), wellFormed(pair[1])]);
    }
  }

  get size(): number {
    return this.#pairs.length;
  }
  get(name: string): string | null {
    const wanted = wellFormed(name);
    return this.#pairs.find(([n]) => n === wanted)?.[1] ?? null;
  }
  getAll(name: string): string[] {
    const wanted = wellFormed(name);
    return this.#pairs.filter(([n]) => n === wanted).map(([, value]) => value);
  }
  has(name: string, value?: string): boolean {
    const is = matcher(name, value);
    return this.#pairs.some(is);
  }
  append(name: string, value: string): void {
    this.#pairs.push([wellFormed(name), wellFormed(value)]);
    this.#onChange?.();
  }
  set(name: string, value: string): void {
    const is = matcher(name, undefined);
    const at = this.#pairs.findIndex(is);
    const pair: [string, string] = [wellFormed(name), wellFormed(value)];
    if (at < 0) this.#pairs.push(pair);
    else {
      this.#pairs[at] = pair;
      this.#pairs = this.#pairs.filter((p, k) => k <= at || !is(p));
    }
    this.#onChange?.();
  }
  delete(name: string, value?: string): void {
    const is = matcher(name, value);
    this.#pairs = this.#pairs.filter((pair) => !is(pair));
    this.#onChange?.();
  }
  sort(): void {
    this.#pairs.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    this.#onChange?.();
  }
  forEach(call: (value: string, name: string) => void): void {
    for (const [name, value] of this.#pairs) call(value, name);
  }
  *entries(): IterableIterator<[string, string]> {
    for (const [name, value] of this.#pairs) yield [name, value];
  }
  *keys(): IterableIterator<string> {
    for (const [name] of this.#pairs) yield name;
  }
  *values(): IterableIterator<string> {
    for (const [, value] of this.#pairs) yield value;
  }
  [Symbol.iterator](): IterableIterator<[string, string]> {
    return this.entries();
  }
  toString(): string {
    return this.#pairs.map(([name, value]) => `${encodeForm(name)}=${encodeForm(value)}`).join("&");
  }
}

/** Text in which half a surrogate pair is U+FFFD, as browsers take the texts of URLs. */
function wellFormed(text: unknown): string {
  return String(text).replace(/\p{Surrogate}/gu, "\ufffd");
}

/** Whether a pair has that name, and that value if one is given. */
function matcher(name: string, value: string | undefined): (pair: [string, string]) => boolean {
  const wanted = wellFormed(name);
  const given = value === undefined ? undefined : wellFormed(value);
  return ([n, v]) => n === wanted && (given === undefined || v === given);
}

function parsed(query: string): [string, string][] {
  const pairs: [string, string][] = [];
  for (const part of query.split("&")) {
    if (part === "") continue;
    const at = part.indexOf("=");
    const name = at < 0 ? part : part.slice(0, at);
    pairs.push([decodeForm(name), at < 0 ? "" : decodeForm(part.slice(at + 1))]);
  }
  return pairs;
}

function decodeForm(text: string): string {
  const bytes = percentDecode(text.replaceAll("+", " "));
  return utf8Decode(bytes, 0, bytes.length);
}

/** The UTF-8 bytes of a text in which `%41` stands for a byte. */
export function percentDecode(text: string): Uint8Array {
  const bytes: number[] = [];
  const plain = utf8Encode(text);
  for (let k = 0; k < plain.length; k++) {
    const hex = plain[k] === 37 ? String.fromCharCode(plain[k + 1] ?? 0, plain[k + 2] ?? 0) : "";
    if (/^[0-9A-Fa-f]{2}$/.test(hex)) {
      bytes.push(Number.parseInt(hex, 16));
      k += 2;
    } else bytes.push(plain[k]!);
  }
  return Uint8Array.from(bytes);
}

const encodeForm = (text: string): string =>
  percentEncode(text, /[^A-Za-z0-9*\-._]/).replaceAll("%20", "+");

/** Percent-encodes the UTF-8 bytes of every character that `encoded` matches. */
export function percentEncode(text: string, encoded: RegExp): string {
  let out = "";
  for (const char of text) {
    if (!encoded.test(char)) out += char;
    else
      for (const byte of utf8Encode(char))
        out += `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return out;
}
