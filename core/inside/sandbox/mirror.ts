/** Chars of JSON that go over at once: they share a record with a head, an answer with its edits. */
const CHANGES_MAX = 8 * 1024;

/** `[key, value]` is set, `[key]` is deleted. */
export type Change = readonly [key: string, value?: unknown];

/**
 * One of two maps, on either side of the wall, that are to hold the same: what has changed here since the other side was told, and
 * what has changed there. Only what JSON can carry goes over; other values stay on their side.
 */
export class Mirror {
  /** JSON of what the other side has. */
  readonly #told = new Map<string, string>();

  /** JSON of Change[]; "" if there is none. What does not fit waits for the next time, what can never fit stays. */
  changes(map: ReadonlyMap<string, unknown>): string {
    const told = this.#told;
    if (map.size === 0 && told.size === 0) return "";
    let text = "";
    for (const [key, value] of map) {
      const json = jsonOf(value);
      if (json === undefined || json === told.get(key)) continue;
      const change = `[${JSON.stringify(key)},${json}]`;
      if (text.length + change.length > CHANGES_MAX) continue;
      told.set(key, json);
      text += text === "" ? change : `,${change}`;
    }
    for (const key of told.keys()) {
      if (map.has(key)) continue;
      told.delete(key);
      text += `${text === "" ? "" : ","}[${JSON.stringify(key)}]`;
    }
    return text === "" ? "" : `[${text}]`;
  }

  /** Carries the other side's changes out. */
  apply(map: Map<string, unknown>, changes: readonly Change[]): void {
    for (const change of changes) {
      const [key, value] = change;
      if (change.length === 1) {
        this.#told.delete(key);
        map.delete(key);
      } else {
        this.#told.set(key, JSON.stringify(value));
        map.set(key, value);
      }
    }
  }
}

/** Undefined: JSON would lose what it is, or it is too long. */
function jsonOf(value: unknown): string | undefined {
  if (typeof value === "object" && value !== null) {
    const prototype: unknown = Object.getPrototypeOf(value);
    if (!Array.isArray(value) && prototype !== Object.prototype && prototype !== null) return;
  } else if (typeof value !== "string" && typeof value !== "number" && typeof value !== "boolean")
    return undefined;
  try {
    const json = JSON.stringify(value);
    return json.length > CHANGES_MAX ? undefined : json;
  } catch {
    return undefined;
  }
}
