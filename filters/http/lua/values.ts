import { type Log, latin1Decode, latin1Encode, utf8Decode, utf8Encode } from "@tsproxy/sdk";
import {
  hostFunction,
  kind,
  LuaError,
  type LuaFunction,
  LuaTable,
  libraryError,
  NONE,
  type Scope,
  textArgument,
  typeOf,
  Userdata,
} from "@tsproxy/sdk/lua";

/** Converts a JavaScript text to a Lua text: its UTF-8 bytes, one char per byte. `fromUtf8` converts it back. */
export const toUtf8 = (text: string): string => {
  const bytes = utf8Encode(text);
  return latin1Decode(bytes, 0, bytes.length);
};
export const fromUtf8 = (text: string): string => {
  const bytes = latin1Encode(text);
  return utf8Decode(bytes, 0, bytes.length);
};

const DEPTH_MAX = 32;

/** Converts a JSON value to a Lua value; null becomes nil. */
export function toLua(value: unknown): unknown {
  if (typeof value === "string") return toUtf8(value);
  if (typeof value === "number" || typeof value === "boolean") return value;
  if (typeof value !== "object" || value === null) return undefined;
  const table = new LuaTable();
  if (Array.isArray(value)) {
    table.array = value.map(toLua);
    while (table.array.length > 0 && table.array.at(-1) === undefined) table.array.pop();
    return table;
  }
  for (const [key, item] of Object.entries(value)) table.set(toUtf8(key), toLua(item));
  return table;
}

/** Longest list that a table with gaps may become. */
const LIST_MAX = 10_000;

/** The length of the list that Envoy makes of a table whose keys are all positive whole numbers; 0: the table becomes no list. */
function listLength(table: LuaTable): number {
  let most = 0;
  for (let at = table.entryFrom(0); at >= 0; at = table.entryFrom(at + 1)) {
    const key = table.keyAt(at);
    if (typeof key !== "number" || !Number.isInteger(key) || key < 1) return 0;
    most = Math.max(most, key);
  }
  return most <= Math.max(LIST_MAX, table.length) ? most : 0;
}

/** Converts a Lua value to JSON. A table with only numbers as keys becomes a list. Throws LuaError for what Envoy refuses too. */
export function fromLua(value: unknown, depth = 0): unknown {
  if (depth > DEPTH_MAX) throw libraryError("the value in dynamicMetadata is nested too deep");
  if (typeof value === "string") return fromUtf8(value);
  if (typeof value === "number" || typeof value === "boolean") return value;
  if (value === undefined) return null;
  if (!(value instanceof LuaTable))
    throw libraryError(`unexpected type '${typeOf(value)}' in dynamicMetadata`);
  const length = listLength(value);
  if (length > 0) return Array.from({ length }, (_item, k) => fromLua(value.get(k + 1), depth + 1));
  const made: Record<string, unknown> = {};
  for (let at = value.entryFrom(0); at >= 0; at = value.entryFrom(at + 1)) {
    const key = value.keyAt(at);
    if (typeof key !== "string")
      throw libraryError(
        `unexpected type ${typeOf(key)} in table key (only string keys are supported)`,
      );
    Object.defineProperty(made, fromUtf8(key), {
      value: fromLua(value.valueAt(at), depth + 1),
      enumerable: true,
      configurable: true,
      writable: true,
    });
  }
  return made;
}

/** The iterator of `pairs` over the entries of `owner`; as in Envoy, one traversal at a time and no edits before its end. */
export function iterate(
  owner: { iterating: boolean; readonly scope: Scope | undefined },
  entries: Iterable<readonly [string, unknown]>,
): LuaFunction {
  if (owner.iterating)
    throw libraryError("cannot create a second iterator before completing the first");
  owner.iterating = true;
  const iterator = entries[Symbol.iterator]();
  let isOver = false;
  return hostFunction("next_entry", () => {
    if (isOver || owner.scope?.isOver === true)
      throw libraryError("object used outside of proper scope");
    const step = iterator.next();
    if (step.done !== true) return [step.value[0], step.value[1]];
    isOver = true;
    owner.iterating = false;
    return undefined;
  });
}

/** Metadata or a filter context of the config, with `get(key)` and `pairs`. */
export class StructData extends Userdata {
  iterating = false;
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(metatable: LuaTable, values: unknown, scope: Scope) {
    super(metatable, scope);
    this.#values = typeof values === "object" && values !== null ? { ...values } : {};
  }

  get(key: string): unknown {
    const name = fromUtf8(key);
    return Object.hasOwn(this.#values, name) ? toLua(this.#values[name]) : undefined;
  }

  *entries(): Generator<readonly [string, unknown]> {
    for (const [key, value] of Object.entries(this.#values)) yield [toUtf8(key), toLua(value)];
  }
}

export function structKind(log: Log): LuaTable {
  return kind(log, "Filters.Common.Lua.MetadataMapWrapper", StructData, {
    get: (self, args) => self.get(textArgument(args, 1, "get")) ?? NONE,
    __pairs: (self) => iterate(self, self.entries()),
  });
}

export { LuaError, NONE };
