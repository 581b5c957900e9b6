/** Chars of JSON sent at once: they must fit a record beside a head, and an answer beside its edits. */
const CHANGES_MAX = 8 * 1024;

/** `[key, value]` is set, `[key]` is deleted. */
export type Change = readonly [key: string, value?: unknown];

/**
 * Keeps a map in the chain and its copy in a sandbox equal; each side has a Mirror. `changes` finds what has changed on this side since
 * the other was told, `apply` takes the other side's changes. Values that JSON cannot carry stay on their side.
 */
export class Mirror {
  /** JSON of the values that the other side has, by key. */
  readonly #told = new Map<string, string>();

  /** JSON of Change[]; "" if there is none. What does not fit is sent by a later call; a value longer than CHANGES_MAX never is. */
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

  /** Makes the other side's changes in `map`. */
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

/** Undefined: the value cannot be restored from JSON (a class instance, a function, …), or its JSON is too long. */
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
