import { type Static, type TSchema, Type } from "./schema.ts";

/** Defaults of an object or of what is in it; `entries`: of each entry of a list. */
export interface Defaults {
  readonly fields?: Readonly<Record<string, unknown>>;
  readonly inside?: Readonly<Record<string, Defaults>>;
  readonly entries?: Defaults | undefined;
}

/**
 * A list out of the config that may be long. It has been checked as any other; but in the entries stands only what the user has
 * written, and `lateEntry` adds the defaults to the one that somebody looks at.
 */
export interface LateList<T> {
  readonly entries: readonly Partial<T>[];
  /** Absent: the entries have theirs. */
  readonly defaults?: Defaults | undefined;
}

/**
 * Schema of a list of maps that may have ten thousand of them, most of which a thread never needs: `setup` gets a LateList. Not
 * for places within a union.
 */
export function LateList<T extends TSchema>(entry: T) {
  return Type.Unsafe<LateList<Static<T>>>({ ...Type.Array(entry, { default: [] }), late: true });
}

/** The nth entry with its defaults. Made anew each time: keep what is made of it instead. */
export function lateEntry<T>(list: LateList<T>, nth: number): T {
  return withDefaults(list.entries[nth], list.defaults) as T;
}

function withDefaults(value: unknown, defaults: Defaults | undefined): unknown {
  if (defaults === undefined || typeof value !== "object" || value === null) return value;
  const { fields, inside, entries } = defaults;
  if (Array.isArray(value))
    return entries === undefined ? value : value.map((each) => withDefaults(each, entries));
  const filled: Record<string, unknown> = { ...fields, ...value };
  const written = value as Readonly<Record<string, unknown>>;
  for (const name in inside) {
    const own = written[name];
    if (own !== undefined) filled[name] = withDefaults(own, inside[name]);
  }
  return filled;
}
