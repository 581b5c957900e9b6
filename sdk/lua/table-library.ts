/** The library `table`. */
import {
  functionArgument,
  integerArgument,
  library,
  optionalInteger,
  optionalText,
  tableArgument,
} from "./arguments.ts";
import { libraryError } from "./error.ts";
import { madeText, spend } from "./meter.ts";
import { numberText } from "./number.ts";
import {
  call,
  type LuaFunction,
  lt,
  NONE,
  one,
  rawSet,
  TEXT_MAX,
  truth,
  typeOf,
} from "./runtime.ts";
import { LuaTable } from "./table.ts";

/** Most values that `unpack` returns, as LuaJIT's C stack allows. */
export const VALUES_MAX = 7900;

export function tableLibrary(): LuaTable {
  return library({
    concat,
    insert,
    remove,
    sort,
    getn: (...args) => tableArgument(args, 1, "getn").length,
    maxn: (...args) => {
      const table = tableArgument(args, 1, "maxn");
      let most = table.length;
      spend(table.keys.length);
      for (let k = 0; k < table.keys.length; k++) {
        const key = table.keys[k];
        if (typeof key === "number" && key > most && table.values[k] !== undefined) most = key;
      }
      return most;
    },
    move: (...args) => {
      const from = tableArgument(args, 1, "move");
      const first = integerArgument(args, 2, "move");
      const last = integerArgument(args, 3, "move");
      const at = integerArgument(args, 4, "move");
      const to = args[4] === undefined ? from : tableArgument(args, 5, "move");
      const n = last - first + 1;
      if (n > 0) spend(n);
      // Backwards if the target overlaps the end of the source, so that no value is overwritten before it is moved.
      const isForward = to !== from || at <= first || at > last;
      for (let k = 0; k < n; k++) {
        const i = isForward ? k : n - 1 - k;
        rawSet(to, at + i, from.get(first + i));
      }
      return to;
    },
    foreach: (...args) => {
      const table = tableArgument(args, 1, "foreach");
      const visit = functionArgument(args, 2, "foreach");
      for (let at = table.entryFrom(0); at >= 0; ) {
        const key = table.keyAt(at);
        const answer = one(visit(key, table.valueAt(at)));
        if (answer !== undefined) return answer;
        at = table.entryFrom(table.entryAfter(key));
      }
      return NONE;
    },
    foreachi: (...args) => {
      const table = tableArgument(args, 1, "foreachi");
      const visit = functionArgument(args, 2, "foreachi");
      for (let k = 1; k <= table.length; k++) {
        const answer = one(visit(k, table.get(k)));
        if (answer !== undefined) return answer;
      }
      return NONE;
    },
    pack: (...args) => {
      const table = new LuaTable();
      for (let k = 0; k < args.length; k++) rawSet(table, k + 1, args[k]);
      table.set("n", args.length);
      return table;
    },
    unpack,
  });
}

export const unpack: LuaFunction = (...args) => {
  const table = tableArgument(args, 1, "unpack");
  const from = optionalInteger(args, 2, "unpack", 1);
  const to = optionalInteger(args, 3, "unpack", table.length);
  if (to - from >= VALUES_MAX) throw libraryError("too many results to unpack");
  const values: unknown[] = [];
  for (let k = from; k <= to; k++) values.push(table.get(k));
  return values;
};

const concat: LuaFunction = (...args) => {
  const table = tableArgument(args, 1, "concat");
  const between = optionalText(args, 2, "concat", "");
  const from = optionalInteger(args, 3, "concat", 1);
  const to = optionalInteger(args, 4, "concat", table.length);
  let text = "";
  for (let k = from; k <= to; k++) {
    const value = table.get(k);
    if (typeof value === "string") text += value;
    else if (typeof value === "number") text += numberText(value);
    else
      throw libraryError(
        `invalid value (${typeOf(value)}) at index ${numberText(k)} in table for 'concat'`,
      );
    if (k < to) text += between;
    if (text.length > TEXT_MAX) throw libraryError("not enough memory");
  }
  spend(Math.max(0, to - from));
  madeText(text.length);
  return text;
};

const insert: LuaFunction = (...args) => {
  const table = tableArgument(args, 1, "insert");
  const size = table.length;
  if (args.length === 2) {
    rawSet(table, size + 1, args[1]);
    return NONE;
  }
  if (args.length !== 3) throw libraryError("wrong number of arguments to 'insert'");
  const at = integerArgument(args, 2, "insert");
  const value = args[2];
  spend((size - at) >> 6);
  if (at >= 1 && at <= size && value !== undefined) {
    table.array.splice(at - 1, 0, value);
    return NONE;
  }
  for (let k = Math.max(size + 1, at); k > at; k--) rawSet(table, k, table.get(k - 1));
  rawSet(table, at, value);
  return NONE;
};

const remove: LuaFunction = (...args) => {
  const table = tableArgument(args, 1, "remove");
  const size = table.length;
  const at = optionalInteger(args, 2, "remove", size);
  if (size === 0 && args.length < 2) return NONE;
  spend((size - at) >> 6);
  const value = table.get(at);
  if (at >= 1 && at <= size) {
    if (at === size) table.set(at, undefined);
    else {
      table.array.splice(at - 1, 1);
    }
  } else if (args.length < 2) return NONE;
  else return NONE;
  return value;
};

/** Ends even if the comparison contradicts itself. Lua leaves the order of equal elements open. */
const sort: LuaFunction = (...args) => {
  const table = tableArgument(args, 1, "sort");
  const order = args[1];
  if (order !== undefined) functionArgument(args, 2, "sort");
  const size = table.length;
  spend(size);
  const less =
    order === undefined
      ? (a: unknown, b: unknown) => lt(a, b)
      : (a: unknown, b: unknown) => truth(call(order, a, b));
  const values = table.array.slice(0, size);
  if (values.includes(undefined) && order === undefined) lt(undefined, values[0]);
  const sorted = mergeSort(values, less);
  for (let k = 0; k < size; k++) table.array[k] = sorted[k];
  return NONE;
};

function mergeSort(values: unknown[], less: (a: unknown, b: unknown) => boolean): unknown[] {
  let from = values;
  let to = new Array<unknown>(values.length);
  for (let width = 1; width < values.length; width *= 2) {
    spend(values.length);
    for (let low = 0; low < values.length; low += 2 * width) {
      const middle = Math.min(low + width, values.length);
      const high = Math.min(low + 2 * width, values.length);
      let left = low;
      let right = middle;
      for (let k = low; k < high; k++) {
        const takesRight = left >= middle || (right < high && less(from[right], from[left]));
        to[k] = takesRight ? from[right++] : from[left++];
      }
    }
    [from, to] = [to, from];
  }
  return from;
}
