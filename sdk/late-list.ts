import { type Static, type TSchema, Type } from "./schema.ts";

/** Defaults that a schema gives to an object or a list. */
export interface Defaults {
  /** Values of fields that the user has left out. */
  readonly fields?: Readonly<Record<string, unknown>>;
  /** Defaults within fields that the user has written. */
  readonly inside?: Readonly<Record<string, Defaults>>;
  /** Defaults of each entry of a list. */
  readonly entries?: Defaults | undefined;
}

/**
 * A list of the config that may be long. It has been checked like any other, but its entries hold only what the user has written:
 * `lateEntry` adds the defaults when an entry is looked at.
 */
export interface LateList<T> {
  readonly entries: readonly Partial<T>[];
  /** Absent: the entries have their defaults already. */
  readonly defaults?: Defaults | undefined;
}

/**
 * Schema of a list that may have ten thousand maps, most of which a thread never needs: `setup` gets a LateList. It may not stand
 * within a union.
 */
export function LateList<T extends TSchema>(entry: T) {
  return Type.Unsafe<LateList<Static<T>>>({ ...Type.Array(entry, { default: [] }), late: true });
}

/** The nth entry with its defaults. Each call makes it anew: keep what you make of it. */
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
