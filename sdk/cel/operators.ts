import {
  CelError,
  CelMap,
  CelType,
  type CelValue,
  NO_KEY,
  NO_OVERLOAD,
  Span,
  Timestamp,
  Uint,
} from "./values.ts";

const OVERFLOW = new CelError("integer overflow");
const NO_INDEX = new CelError("index out of bounds");
const BY_ZERO = new CelError("divide by zero");
const INT = { least: -(2n ** 63n), most: 2n ** 63n - 1n };
const UINT_MOST = 2n ** 64n - 1n;

/** An `int`, or an error if the value does not fit 64 bits. */
export function intOf(value: bigint): CelValue {
  return value < INT.least || value > INT.most ? OVERFLOW : value;
}
/** A `uint`, or an error if the value does not fit 64 bits. */
export function uintOf(value: bigint): CelValue {
  return value < 0n || value > UINT_MOST ? OVERFLOW : new Uint(value);
}

const isNumber = (value: CelValue): value is bigint | number | Uint =>
  typeof value === "bigint" || typeof value === "number" || value instanceof Uint;
/** A number as JavaScript can compare it: a bigint and a number compare by numeric value, as in CEL. */
const worth = (value: bigint | number | Uint): bigint | number =>
  value instanceof Uint ? value.value : value;

/** Whether two values are equal: numbers by numeric value, whatever their types; others only within one type. */
export function equal(a: CelValue, b: CelValue): boolean {
  if (a === b) return true;
  // biome-ignore lint/suspicious/noDoubleEquals: a bigint and a number of one value are equal.
  if (isNumber(a)) return isNumber(b) && worth(a) == worth(b);
  if (a instanceof Timestamp) return b instanceof Timestamp && a.ms === b.ms;
  if (a instanceof Span) return b instanceof Span && a.ms === b.ms;
  if (a instanceof CelType) return b instanceof CelType && a.name === b.name;
  if (a instanceof Uint8Array)
    return b instanceof Uint8Array && a.length === b.length && a.every((byte, k) => byte === b[k]);
  if (a instanceof CelMap) return b instanceof CelMap && equalMaps(a, b);
  if (!Array.isArray(a) || !Array.isArray(b) || a.length !== b.length) return false;
  return a.every((item, k) => equal(item, b[k] as CelValue));
}

function equalMaps(a: CelMap, b: CelMap): boolean {
  const keys = [...a.keys()];
  if (keys.length !== [...b.keys()].length) return false;
  return keys.every((key) => {
    const other = b.get(key);
    return other !== undefined && equal(a.get(key)!, other);
  });
}

/** Below 0: `a` comes first. NaN: neither does, since one is NaN. Undefined: values of these types have no order. */
function compare(a: CelValue, b: CelValue): number | undefined {
  const order = (x: number | bigint | string | boolean, y: typeof x) =>
    x < y ? -1 : x > y ? 1 : x >= y ? 0 : Number.NaN;
  if (isNumber(a)) return isNumber(b) ? order(worth(a), worth(b)) : undefined;
  if (typeof a === "string") return typeof b === "string" ? order(a, b) : undefined;
  if (typeof a === "boolean") return typeof b === "boolean" ? order(a, b) : undefined;
  if (a instanceof Timestamp && b instanceof Timestamp) return order(a.ms, b.ms);
  if (a instanceof Span && b instanceof Span) return order(a.ms, b.ms);
  if (!(a instanceof Uint8Array) || !(b instanceof Uint8Array)) return undefined;
  const at = a.findIndex((byte, k) => byte !== b[k]);
  return at < 0 || at >= b.length ? a.length - b.length : a[at]! - b[at]!;
}

type Binary = (a: CelValue, b: CelValue) => CelValue;

const ordered =
  (test: (order: number) => boolean): Binary =>
  (a, b) => {
    const order = compare(a, b);
    return order === undefined ? NO_OVERLOAD : test(order);
  };

/** Makes an arithmetic operator, which takes two numbers of one type; other operands go to `other`. */
const arithmetic =
  (
    whole: (a: bigint, b: bigint) => bigint,
    real: ((a: number, b: number) => number) | undefined,
    other: Binary = () => NO_OVERLOAD,
  ): Binary =>
  (a, b) => {
    if (typeof a === "bigint" && typeof b === "bigint") return intOf(whole(a, b));
    if (typeof a === "number" && typeof b === "number" && real !== undefined) return real(a, b);
    if (a instanceof Uint && b instanceof Uint) return uintOf(whole(a.value, b.value));
    return other(a, b);
  };

const unlessZero =
  (divide: Binary): Binary =>
  (a, b) =>
    b === 0n || (b instanceof Uint && b.value === 0n) ? BY_ZERO : divide(a, b);

function plus(a: CelValue, b: CelValue): CelValue {
  if (a instanceof Timestamp && b instanceof Span) return new Timestamp(a.ms + b.ms);
  if (a instanceof Span && b instanceof Timestamp) return new Timestamp(a.ms + b.ms);
  // Texts and lists are not concatenated: Envoy turns that off for the memory it may take.
  return a instanceof Span && b instanceof Span ? new Span(a.ms + b.ms) : NO_OVERLOAD;
}

function minus(a: CelValue, b: CelValue): CelValue {
  if (a instanceof Timestamp && b instanceof Span) return new Timestamp(a.ms - b.ms);
  if (a instanceof Timestamp && b instanceof Timestamp) return new Span(a.ms - b.ms);
  return a instanceof Span && b instanceof Span ? new Span(a.ms - b.ms) : NO_OVERLOAD;
}

function isIn(item: CelValue, among: CelValue): CelValue {
  if (Array.isArray(among)) return among.some((each) => equal(item, each as CelValue));
  return among instanceof CelMap ? among.get(item) !== undefined : NO_OVERLOAD;
}

/** `operand[index]` and `operand.field`. */
export function indexed(operand: CelValue, index: CelValue): CelValue {
  if (operand instanceof CelMap) {
    const value = operand.get(index);
    return value === undefined ? NO_KEY : value;
  }
  if (!Array.isArray(operand) || !isNumber(index)) return NO_OVERLOAD;
  const item = (operand as readonly CelValue[])[Number(worth(index))];
  return item === undefined ? NO_INDEX : item;
}

/** Binary operators by their function names in a parsed expression. */
export const BINARY: Readonly<Record<string, Binary>> = {
  "_==_": (a, b) => equal(a, b),
  "_!=_": (a, b) => !equal(a, b),
  "_<_": ordered((order) => order < 0),
  "_<=_": ordered((order) => order <= 0),
  "_>_": ordered((order) => order > 0),
  "_>=_": ordered((order) => order >= 0),
  "_+_": arithmetic(
    (a, b) => a + b,
    (a, b) => a + b,
    plus,
  ),
  "_-_": arithmetic(
    (a, b) => a - b,
    (a, b) => a - b,
    minus,
  ),
  "_*_": arithmetic(
    (a, b) => a * b,
    (a, b) => a * b,
  ),
  "_/_": unlessZero(
    arithmetic(
      (a, b) => a / b,
      (a, b) => a / b,
    ),
  ),
  "_%_": unlessZero(arithmetic((a, b) => a % b, undefined)),
  "@in": isIn,
  _in_: isIn,
  in: isIn,
  "_[_]": indexed,
};

/** Unary operators, likewise. */
export const UNARY: Readonly<Record<string, (value: CelValue) => CelValue>> = {
  "!_": (value) => (typeof value === "boolean" ? !value : NO_OVERLOAD),
  "-_": (value) => {
    if (typeof value === "bigint") return intOf(-value);
    if (value instanceof Span) return new Span(-value.ms);
    return typeof value === "number" ? -value : NO_OVERLOAD;
  },
};
