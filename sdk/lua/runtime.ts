// Hot path: the functions that compiled Lua programs call for their operations (test/bench/lua.ts).
import { LuaError, placeIn, runtimeError } from "./error.ts";
import { meter, Stopped, spend } from "./meter.ts";
import { numberOf, numberText } from "./number.ts";
import { LuaTable } from "./table.ts";

/**
 * How Lua's values are represented: nil is undefined, a text is a string of one char per byte, tables are LuaTable, functions
 * are functions, coroutines are Coroutine, everything else is Userdata.
 *
 * A function returns a single value as it is, and none or several as an array. A function that has to wait returns a generator (a
 * pending result), which its caller drives: by `yield*` in functions that may suspend, else at once to its end.
 */
export type LuaFunction = (...args: unknown[]) => unknown;

/** The result of a function that returns no values. */
export const NONE: readonly never[] = Object.freeze([]);

/** How long host objects may be used: until the run that got them ends or waits. */
export class Scope {
  isOver = false;
}

/** A host object in the hands of a program. All of one kind share a metatable. */
export class Userdata {
  readonly metatable: LuaTable | undefined;
  /** Undefined: it may be used at any time. */
  scope: Scope | undefined;

  constructor(metatable: LuaTable | undefined, scope?: Scope) {
    this.metatable = metatable;
    this.scope = scope;
  }
}

/** A coroutine, from `coroutine.create`. */
export class Coroutine {
  status: "suspended" | "running" | "normal" | "dead" = "suspended";
  body: LuaFunction | undefined;
  generator: Generator<unknown, unknown, unknown> | undefined = undefined;

  constructor(body: LuaFunction) {
    this.body = body;
  }
}

/** Every generator is an instance of this function. (With a class or an arrow, `instanceof` would call into the engine.) */
function PendingFunction(): void {}
PendingFunction.prototype = Object.getPrototypeOf(Object.getPrototypeOf((function* () {})()));
export const Pending = PendingFunction as unknown as new () => Generator<unknown, unknown, unknown>;

/** Cost of a stack overflow, in turns of a loop. */
const OVERFLOW_COST = 8000;
/** About how many bytes an empty table takes. */
const TABLE_BYTES = 200;

// ---- types

let textMetatable: LuaTable | undefined;

/** Sets the metatable of all texts; called at the start of each run, since programs do not share it. */
export function setTextMetatable(table: LuaTable): void {
  textMetatable = table;
}

export function typeOf(value: unknown): string {
  switch (typeof value) {
    case "undefined":
      return "nil";
    case "boolean":
    case "number":
    case "string":
    case "function":
      return typeof value;
  }
  if (value instanceof LuaTable) return "table";
  return value instanceof Coroutine ? "thread" : "userdata";
}

export function metatableOf(value: unknown): LuaTable | undefined {
  if (value instanceof LuaTable) return value.metatable;
  if (typeof value === "string") return textMetatable;
  return value instanceof Userdata ? value.metatable : undefined;
}

export function metamethod(value: unknown, event: string): unknown {
  return metatableOf(value)?.getText(event);
}

// ---- calls

/** The value itself if it can be called, else something that calls its `__call` or fails. `what` names it in the message. */
export function callable(value: unknown, what = ""): LuaFunction {
  return typeof value === "function" ? (value as LuaFunction) : notFunction(value, what);
}

function notFunction(value: unknown, what: string): LuaFunction {
  const handler = metamethod(value, "__call");
  if (handler === undefined)
    return () => {
      throw runtimeError(`attempt to call ${named(value, what)}`);
    };
  return (...args) => callable(handler)(value, ...args);
}

/** The first value of a call's result. */
export function one(result: unknown): unknown {
  return typeof result === "object" ? firstOf(result) : result;
}

function firstOf(result: unknown): unknown {
  if (Array.isArray(result)) return result[0];
  if (result instanceof Pending) return one(drive(result));
  return result;
}

/** All values of a call's result. */
export function all(result: unknown): readonly unknown[] {
  if (typeof result !== "object") return [result];
  if (Array.isArray(result)) return result;
  if (result instanceof Pending) return all(drive(result));
  return [result];
}

/** For a call as a statement: drives its result to the end if it is pending. */
export function run(result: unknown): void {
  if (typeof result === "object" && result instanceof Pending) drive(result);
}

/** Drives a pending result to its end, for callers that cannot suspend. Throws LuaError if it has to wait. */
export function drive(pending: unknown): unknown {
  let result: unknown = pending;
  while (result instanceof Pending) {
    const step = result.next();
    if (step.done !== true) {
      result.return(undefined);
      throw runtimeError("attempt to yield across C-call boundary");
    }
    result = step.value;
  }
  return result;
}

/** Whether a call's result is a generator that the caller has to drive. */
export function isPending(result: unknown): boolean {
  return typeof result === "object" && result instanceof Pending;
}

/** Waits for a pending result, in functions that may suspend. */
export function* wait(pending: unknown): Generator<unknown, unknown, unknown> {
  let result: unknown = pending;
  while (result instanceof Pending) result = yield* result;
  return result;
}

/** Calls a value from outside of compiled code and returns its first value; it must not suspend. */
export function call(value: unknown, ...args: unknown[]): unknown {
  return one(callable(value)(...args));
}

// ---- tables

export function index(object: unknown, key: unknown, what = ""): unknown {
  if (object instanceof LuaTable) {
    const value = object.get(key);
    if (value !== undefined || object.metatable === undefined) return value;
  }
  return indexMeta(object, key, what);
}

/** Makes a chunk's hints: for each place that looks up a constant key, where it found that key last. */
export const hints = (places: number): number[] => new Array<number>(places).fill(0);

/** `object.key` with a constant key; `found[at]` is the hint of this place in the source. */
export function field(
  object: unknown,
  key: string,
  found: number[],
  at: number,
  what = "",
): unknown {
  if (object instanceof LuaTable) {
    const value = object.getHinted(key, found, at);
    if (value !== undefined || object.metatable === undefined) return value;
  }
  return indexMeta(object, key, what);
}

/** The method of `object:key(…)`, likewise with a hint. */
export function method(
  object: unknown,
  key: string,
  found: number[],
  at: number,
  what = "",
): unknown {
  if (object instanceof Userdata) {
    const value = object.metatable?.getHinted(key, found, at);
    if (value !== undefined) return value;
  } else if (typeof object === "string") {
    const library = textMetatable?.getText("__index");
    if (library instanceof LuaTable) {
      const value = library.getHinted(key, found, at);
      if (value !== undefined) return value;
    }
  }
  return field(object, key, found, at, what);
}

const CHAIN_MAX = 100;

function indexMeta(object: unknown, key: unknown, what: string): unknown {
  let at = object;
  for (let k = 0; k < CHAIN_MAX; k++) {
    let handler: unknown;
    if (at instanceof LuaTable) {
      const value = at.get(key);
      if (value !== undefined) return value;
      handler = at.metatable?.getText("__index");
      if (handler === undefined) return undefined;
    } else {
      handler = metamethod(at, "__index");
      if (handler === undefined)
        throw runtimeError(`attempt to index ${named(at, at === object ? what : "")}`);
    }
    if (typeof handler === "function") return one((handler as LuaFunction)(at, key));
    at = handler;
  }
  throw runtimeError("'__index' chain too long; possible loop");
}

export function setIndex(object: unknown, key: unknown, value: unknown, what = ""): void {
  if (object instanceof LuaTable && object.metatable === undefined) rawSet(object, key, value);
  else setIndexMeta(object, key, value, what);
}

/** Sets without metamethods. Counts more ticks than a turn, so that a loop which fills tables ends before memory does. */
export function rawSet(table: LuaTable, key: unknown, value: unknown): void {
  if (key === undefined) throw runtimeError("table index is nil");
  if (typeof key === "number" && Number.isNaN(key)) throw runtimeError("table index is NaN");
  meter.ticks += 4;
  table.set(key, value);
}

function setIndexMeta(object: unknown, key: unknown, value: unknown, what: string): void {
  let at = object;
  for (let k = 0; k < CHAIN_MAX; k++) {
    let handler: unknown;
    if (at instanceof LuaTable) {
      handler = at.metatable?.getText("__newindex");
      if (handler === undefined || at.get(key) !== undefined) {
        rawSet(at, key, value);
        return;
      }
    } else {
      handler = metamethod(at, "__newindex");
      if (handler === undefined)
        throw runtimeError(`attempt to index ${named(at, at === object ? what : "")}`);
    }
    if (typeof handler === "function") {
      run((handler as LuaFunction)(at, key, value));
      return;
    }
    at = handler;
  }
  throw runtimeError("'__newindex' chain too long; possible loop");
}

/** Appends all values of a constructor's last item to the others. */
export function append(table: LuaTable, values: readonly unknown[]): LuaTable {
  const from = table.array.length;
  for (let k = 0; k < values.length; k++) rawSet(table, from + k + 1, values[k]);
  return table;
}

/** Makes a table from a constructor: values 1…n, and `pairs`, keys and values in turn. */
export function makeTable(values: unknown[], pairs: readonly unknown[]): LuaTable {
  const table = new LuaTable();
  meter.ticks += 4;
  meter.space += TABLE_BYTES + values.length * 16;
  while (values.length > 0 && values[values.length - 1] === undefined) values.pop();
  table.array = values;
  for (let k = 0; k < pairs.length; k += 2) rawSet(table, pairs[k], pairs[k + 1]);
  return table;
}

// ---- operators

/** How messages describe a value: `local 'x' (a nil value)`. */
function named(value: unknown, what: string): string {
  return what === "" ? `a ${typeOf(value)} value` : `${what} (a ${typeOf(value)} value)`;
}

export function toNumber(value: unknown): number | undefined {
  if (typeof value === "number") return value;
  return typeof value === "string" ? numberOf(value) : undefined;
}

function binaryMeta(event: string, left: unknown, right: unknown): LuaFunction | undefined {
  const handler = metamethod(left, event) ?? metamethod(right, event);
  return handler === undefined ? undefined : callable(handler);
}

function arithmetic(
  event: string,
  left: unknown,
  right: unknown,
  what: string,
  compute: (a: number, b: number) => number,
): unknown {
  const a = toNumber(left);
  const b = toNumber(right);
  if (a !== undefined && b !== undefined) return compute(a, b);
  const handler = binaryMeta(event, left, right);
  if (handler !== undefined) return one(handler(left, right));
  const [leftName, rightName] = what.split("|");
  const bad = a === undefined ? named(left, leftName ?? "") : named(right, rightName ?? "");
  throw runtimeError(`attempt to perform arithmetic on ${bad}`);
}

const modulo = (a: number, b: number): number => a - Math.floor(a / b) * b;
/** C's pow: 1 to any power, and -1 to an infinite one, is 1. */
const power = (a: number, b: number): number => {
  if (a === 1 || (a === -1 && (b === Infinity || b === -Infinity))) return 1;
  return a ** b;
};

export const add = (a: unknown, b: unknown, what = ""): unknown =>
  typeof a === "number" && typeof b === "number"
    ? a + b
    : arithmetic("__add", a, b, what, (x, y) => x + y);
export const sub = (a: unknown, b: unknown, what = ""): unknown =>
  typeof a === "number" && typeof b === "number"
    ? a - b
    : arithmetic("__sub", a, b, what, (x, y) => x - y);
export const mul = (a: unknown, b: unknown, what = ""): unknown =>
  typeof a === "number" && typeof b === "number"
    ? a * b
    : arithmetic("__mul", a, b, what, (x, y) => x * y);
export const div = (a: unknown, b: unknown, what = ""): unknown =>
  typeof a === "number" && typeof b === "number"
    ? a / b
    : arithmetic("__div", a, b, what, (x, y) => x / y);
export const mod = (a: unknown, b: unknown, what = ""): unknown =>
  typeof a === "number" && typeof b === "number"
    ? modulo(a, b)
    : arithmetic("__mod", a, b, what, modulo);
export const pow = (a: unknown, b: unknown, what = ""): unknown =>
  typeof a === "number" && typeof b === "number"
    ? power(a, b)
    : arithmetic("__pow", a, b, what, power);
export const unm = (a: unknown, what = ""): unknown =>
  typeof a === "number" ? -a : arithmetic("__unm", a, a, what, (x) => -x);

/** Most bytes of a text: longer ones are an error. */
export const TEXT_MAX = 1 << 24;

export function concat(left: unknown, right: unknown, what = ""): unknown {
  if (typeof left === "string" && typeof right === "string") return joined(left, right);
  const isText = (value: unknown): value is string | number =>
    typeof value === "string" || typeof value === "number";
  if (isText(left) && isText(right)) return joined(textOf(left), textOf(right));
  const handler = binaryMeta("__concat", left, right);
  if (handler !== undefined) return one(handler(left, right));
  const [leftName, rightName] = what.split("|");
  const bad = isText(left) ? named(right, rightName ?? "") : named(left, leftName ?? "");
  throw runtimeError(`attempt to concatenate ${bad}`);
}

function joined(left: string, right: string): string {
  const size = left.length + right.length;
  if (size > TEXT_MAX) throw runtimeError("not enough memory");
  meter.ticks += size >> 6;
  meter.text += size;
  return left + right;
}

const textOf = (value: string | number): string =>
  typeof value === "string" ? value : numberText(value);

export function length(value: unknown, what = ""): unknown {
  if (typeof value === "string") return value.length;
  const handler = metamethod(value, "__len");
  if (handler !== undefined) return call(handler, value);
  if (value instanceof LuaTable) return value.length;
  throw runtimeError(`attempt to get length of ${named(value, what)}`);
}

export function eq(left: unknown, right: unknown): boolean {
  return left === right || (typeof left === "object" && eqMeta(left, right));
}

function eqMeta(left: unknown, right: unknown): boolean {
  if (typeof right !== "object" || typeOf(left) !== typeOf(right)) return false;
  const handler = metamethod(left, "__eq") ?? metamethod(right, "__eq");
  return handler !== undefined && truth(call(handler, left, right));
}

export const truth = (value: unknown): boolean => value !== undefined && value !== false;

export const lt = (a: unknown, b: unknown): boolean =>
  typeof a === "number" && typeof b === "number" ? a < b : less(a, b);
export const le = (a: unknown, b: unknown): boolean =>
  typeof a === "number" && typeof b === "number" ? a <= b : lessOrEqual(a, b);

function less(a: unknown, b: unknown): boolean {
  if (typeof a === "string" && typeof b === "string") return a < b;
  const handler = ordering("__lt", a, b);
  if (handler === undefined) throw notComparable(a, b);
  return truth(call(handler, a, b));
}

function lessOrEqual(a: unknown, b: unknown): boolean {
  if (typeof a === "string" && typeof b === "string") return a <= b;
  const handler = ordering("__le", a, b);
  if (handler !== undefined) return truth(call(handler, a, b));
  const reverse = ordering("__lt", b, a);
  if (reverse === undefined) throw notComparable(a, b);
  return !truth(call(reverse, b, a));
}

function ordering(event: string, a: unknown, b: unknown): unknown {
  return metamethod(a, event) ?? metamethod(b, event);
}

function notComparable(a: unknown, b: unknown): LuaError {
  const [left, right] = [typeOf(a), typeOf(b)];
  return runtimeError(
    left === right
      ? `attempt to compare two ${left} values`
      : `attempt to compare ${left} with ${right}`,
  );
}

/** Checks a bound of a numeric `for`; `what` names it in the message. */
export function bound(value: unknown, what: string): number {
  const number = toNumber(value);
  if (number === undefined) throw runtimeError(`'for' ${what} must be a number`);
  return number;
}

// ---- text

const ids = new WeakMap<object, string>();
let nextId = 0x7f00_0000_1000;

/** A made-up address as C prints a pointer; always the same for one object. */
export function addressOf(value: object): string {
  let id = ids.get(value);
  if (id === undefined) {
    nextId += 0x28;
    id = `0x${nextId.toString(16)}`;
    ids.set(value, id);
  }
  return id;
}

/** `tostring`. */
export function toText(value: unknown): string {
  if (typeof value === "string") return value;
  const handler = metamethod(value, "__tostring");
  if (handler !== undefined) {
    const text = call(handler, value);
    if (typeof text !== "string" && typeof text !== "number")
      throw runtimeError("'__tostring' must return a string");
    return textOf(text);
  }
  return rawText(value);
}

/** `tostring` without metamethods. */
export function rawText(value: unknown): string {
  if (typeof value === "number") return numberText(value);
  if (value === undefined) return "nil";
  if (typeof value === "boolean" || typeof value === "string") return String(value);
  return `${typeOf(value)}: ${addressOf(value as object)}`;
}

/** Converts anything that was thrown to the value that `pcall` returns. Rethrows Stopped, which no program may catch. */
export function thrownValue(error: unknown): unknown {
  if (error instanceof LuaError) return error.value;
  if (error instanceof Stopped) throw error;
  // Programs run on the engine's stack. Filling and unwinding it takes longer than the calls in it have counted.
  if (error instanceof RangeError) spend(OVERFLOW_COST);
  if (error instanceof RangeError && /call stack/.test(error.message))
    return `${placeIn(error.stack)}stack overflow`;
  if (error instanceof RangeError) return "not enough memory";
  return error instanceof Error ? error.message : String(error);
}
