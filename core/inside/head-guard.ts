import { HeaderMap, RequestHeaders, ResponseHeaders } from "@tsproxy/sdk";

/** Enforces the header names that a package's manifest lets it read and write. Packages without such limits have no guard. */
export class HeadGuard {
  readonly #read: ReadonlySet<string> | undefined;
  readonly #write: ReadonlySet<string> | undefined;

  constructor({
    read,
    write,
  }: { readonly read?: readonly string[]; readonly write?: readonly string[] }) {
    this.#read = read && new Set(read);
    this.#write = write && new Set(write);
  }

  /** A copy of `map` with only the lines that the package may read. */
  shown(map: HeaderMap): HeaderMap {
    let shown: HeaderMap;
    if (map instanceof RequestHeaders) {
      const request = new RequestHeaders();
      request.method = map.method;
      request.path = map.path;
      request.scheme = map.scheme;
      shown = request;
    } else if (map instanceof ResponseHeaders) {
      const response = new ResponseHeaders();
      response.status = map.status;
      shown = response;
    } else shown = new HeaderMap();
    for (const [name, value] of map)
      if (this.#read?.has(name.toLowerCase()) !== false) shown.append(name, value);
    return shown;
  }

  /** Lets `edit` change `shown`, then makes the same changes in `map`. False: `edit` failed or was not allowed; `map` is unchanged. */
  carry(shown: HeaderMap, map: HeaderMap, edit: () => boolean): boolean {
    const before = this.#lines(shown);
    if (!edit()) return false;
    const after = this.#lines(shown);
    const changed = new Set<string>();
    for (const name of new Set([...before.keys(), ...after.keys()]))
      if (before.get(name)?.join("\0") !== after.get(name)?.join("\0")) changed.add(name);
    for (const name of changed) if (this.#write?.has(name) === false) return false;
    for (const name of changed) {
      if (name === ":method") (map as RequestHeaders).method = (shown as RequestHeaders).method;
      else if (name === ":path") (map as RequestHeaders).path = (shown as RequestHeaders).path;
      else if (name === ":status")
        (map as ResponseHeaders).status = (shown as ResponseHeaders).status;
      else {
        map.remove(name);
        for (const value of after.get(name) ?? []) map.append(name, value);
      }
    }
    return true;
  }

  #lines(map: HeaderMap): Map<string, string[]> {
    const lines = new Map<string, string[]>();
    if (map instanceof RequestHeaders) lines.set(":method", [map.method]).set(":path", [map.path]);
    else if (map instanceof ResponseHeaders) lines.set(":status", [String(map.status)]);
    for (const [name, value] of map) {
      const known = lines.get(name.toLowerCase());
      if (known === undefined) lines.set(name.toLowerCase(), [value]);
      else known.push(value);
    }
    return lines;
  }
}

/** The heads of one stream as a guarded package sees them. */
export class ShownHeads {
  readonly #guard: HeadGuard;
  readonly #shown = new Map<HeaderMap, HeaderMap>();

  constructor(guard: HeadGuard) {
    this.#guard = guard;
  }

  /** The copy that the package gets. */
  show(map: HeaderMap): HeaderMap {
    const shown = this.#guard.shown(map);
    this.#shown.set(map, shown);
    return shown;
  }

  /** Edits `map` by way of what the package was shown of it. Answers what `edit` answers; -1, which `edit` may answer too: not allowed. */
  edit(map: HeaderMap, edit: (shown: HeaderMap) => number): number {
    const shown = this.#shown.get(map) ?? this.#guard.shown(map);
    let answer = -1;
    const run = (): boolean => {
      answer = edit(shown);
      return answer >= 0;
    };
    return this.#guard.carry(shown, map, run) ? answer : -1;
  }
}
