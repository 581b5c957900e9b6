import { latin1Encode } from "../bytes.ts";
import { intOf, uintOf } from "./operators.ts";
import {
  CelError,
  CelMap,
  CelType,
  type CelValue,
  NO_OVERLOAD,
  Span,
  Timestamp,
  textOf,
  Uint,
} from "./values.ts";

const NO_CONVERSION = new CelError("the value cannot be converted");

type Apply = (...args: CelValue[]) => CelValue;
interface CelFunction {
  /** Possible numbers of arguments, counting the one before the dot. */
  readonly arities: readonly number[];
  /** Written `a.f(b)`, `f(a, b)`, or either way. */
  readonly style: "method" | "global" | "both";
  readonly apply: Apply;
}

const texts =
  (test: (text: string, part: string) => boolean): Apply =>
  (text, part) =>
    typeof text === "string" && typeof part === "string" ? test(text, part) : NO_OVERLOAD;
const method = (apply: Apply, ...arities: number[]): CelFunction => ({
  arities,
  style: "method",
  apply,
});
const conversion = (apply: Apply): CelFunction => ({ arities: [1], style: "global", apply });

/** The functions that Envoy enables by default: no `string()`, and none that makes longer texts. compile.ts adds `matches`. */
export const FUNCTIONS: Readonly<Record<string, CelFunction>> = {
  size: { arities: [1], style: "both", apply: sizeOf },
  contains: method(
    texts((text, part) => text.includes(part)),
    2,
  ),
  startsWith: method(
    texts((text, part) => text.startsWith(part)),
    2,
  ),
  endsWith: method(
    texts((text, part) => text.endsWith(part)),
    2,
  ),
  int: conversion(toInt),
  uint: conversion(toUint),
  double: conversion(toDouble),
  bool: conversion(toBool),
  bytes: conversion((value) =>
    typeof value === "string"
      ? latin1Encode(value)
      : value instanceof Uint8Array
        ? value
        : NO_OVERLOAD,
  ),
  timestamp: conversion(toTimestamp),
  duration: conversion(toSpan),
  dyn: conversion((value) => value),
  type: conversion((value) => new CelType(typeName(value))),
  ...dateParts(),
};

/** Types that an expression can name. */
export const TYPES = [
  "bool",
  "bytes",
  "double",
  "int",
  "list",
  "map",
  "null_type",
  "string",
  "type",
  "uint",
] as const;

function typeName(value: CelValue): string {
  if (value === null) return "null_type";
  if (value instanceof Uint) return "uint";
  if (value instanceof Uint8Array) return "bytes";
  if (value instanceof Timestamp) return "google.protobuf.Timestamp";
  if (value instanceof Span) return "google.protobuf.Duration";
  if (value instanceof CelType) return "type";
  if (Array.isArray(value)) return "list";
  if (value instanceof CelMap) return "map";
  return { string: "string", bigint: "int", number: "double" }[typeof value as string] ?? "bool";
}

/** `size()`: the number of characters, bytes, items or keys. */
function sizeOf(value: CelValue): CelValue {
  if (typeof value === "string") return BigInt([...textOf(value)].length);
  if (value instanceof Uint8Array || Array.isArray(value)) return BigInt(value.length);
  return value instanceof CelMap ? BigInt([...value.keys()].length) : NO_OVERLOAD;
}

function toInt(value: CelValue): CelValue {
  if (typeof value === "bigint") return value;
  if (value instanceof Uint) return intOf(value.value);
  if (value instanceof Timestamp) return BigInt(Math.floor(value.ms / 1000));
  if (typeof value === "number")
    return Number.isFinite(value) ? intOf(BigInt(Math.trunc(value))) : NO_CONVERSION;
  if (typeof value !== "string") return NO_OVERLOAD;
  return /^[+-]?[0-9]{1,20}$/.test(value) ? intOf(BigInt(value.replace("+", ""))) : NO_CONVERSION;
}

function toUint(value: CelValue): CelValue {
  if (value instanceof Uint) return value;
  if (typeof value === "bigint") return uintOf(value);
  if (typeof value === "number")
    return Number.isFinite(value) ? uintOf(BigInt(Math.trunc(value))) : NO_CONVERSION;
  if (typeof value !== "string") return NO_OVERLOAD;
  return /^[0-9]{1,20}$/.test(value) ? uintOf(BigInt(value)) : NO_CONVERSION;
}

function toDouble(value: CelValue): CelValue {
  if (typeof value === "number") return value;
  if (typeof value === "bigint") return Number(value);
  if (value instanceof Uint) return Number(value.value);
  if (typeof value !== "string") return NO_OVERLOAD;
  return /^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$/.test(value)
    ? Number(value)
    : NO_CONVERSION;
}

const TRUE = ["true", "True", "TRUE", "t", "1"];
const FALSE = ["false", "False", "FALSE", "f", "0"];

function toBool(value: CelValue): CelValue {
  if (typeof value === "boolean") return value;
  if (typeof value !== "string") return NO_OVERLOAD;
  return TRUE.includes(value) ? true : FALSE.includes(value) ? false : NO_CONVERSION;
}

/** A time as in RFC 3339. */
const MOMENT =
  /^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})$/;

function toTimestamp(value: CelValue): CelValue {
  if (value instanceof Timestamp) return value;
  if (typeof value === "bigint") return new Timestamp(Number(value) * 1000);
  if (typeof value !== "string") return NO_OVERLOAD;
  const ms = MOMENT.test(value) ? Date.parse(value) : Number.NaN;
  return Number.isNaN(ms) ? NO_CONVERSION : new Timestamp(ms);
}

const UNIT_MS: Readonly<Record<string, number>> = {
  h: 3_600_000,
  m: 60_000,
  s: 1000,
  ms: 1,
  us: 1e-3,
  ns: 1e-6,
};
const SPAN = /^([+-]?)((?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:h|ms|m|s|us|ns))+|0)$/;

function toSpan(value: CelValue): CelValue {
  if (value instanceof Span) return value;
  if (typeof value !== "string") return NO_OVERLOAD;
  const [, sign, parts] = (value.length > 64 ? null : SPAN.exec(value)) ?? [];
  if (parts === undefined) return NO_CONVERSION;
  let ms = 0;
  for (const [, figure, unit] of parts.matchAll(/([0-9.]+)(h|ms|m|s|us|ns)/g))
    ms += Number(figure) * UNIT_MS[unit!]!;
  return new Span(sign === "-" ? -ms : ms);
}

/** `timestamp.getHours("+02:00")`, `duration.getHours()`. Months and days of the month or year count from 0, `getDate` from 1. */
function dateParts(): Readonly<Record<string, CelFunction>> {
  const ofDate =
    (read: (date: Date) => number) =>
    (time: CelValue, zone: CelValue = "") =>
      time instanceof Timestamp ? inZone(time, zone, read) : NO_OVERLOAD;
  const either = (read: (date: Date) => number, unitMs: number, below: number) => {
    const date = ofDate(read);
    return method(
      (time, zone) => {
        if (!(time instanceof Span)) return date(time, zone);
        const count = Math.trunc(time.ms / unitMs);
        return BigInt(below === 0 ? count : count % below);
      },
      1,
      2,
    );
  };
  return {
    getFullYear: method(
      ofDate((d) => d.getUTCFullYear()),
      1,
      2,
    ),
    getMonth: method(
      ofDate((d) => d.getUTCMonth()),
      1,
      2,
    ),
    getDate: method(
      ofDate((d) => d.getUTCDate()),
      1,
      2,
    ),
    getDayOfMonth: method(
      ofDate((d) => d.getUTCDate() - 1),
      1,
      2,
    ),
    getDayOfWeek: method(
      ofDate((d) => d.getUTCDay()),
      1,
      2,
    ),
    getDayOfYear: method(
      ofDate((d) => Math.floor((d.getTime() - Date.UTC(d.getUTCFullYear(), 0)) / 86_400_000)),
      1,
      2,
    ),
    getHours: either((d) => d.getUTCHours(), 3_600_000, 0),
    getMinutes: either((d) => d.getUTCMinutes(), 60_000, 0),
    getSeconds: either((d) => d.getUTCSeconds(), 1000, 0),
    getMilliseconds: either((d) => d.getUTCMilliseconds(), 1, 1000),
  };
}

const NO_ZONE = new CelError("the time zone is not an offset");

function inZone(time: Timestamp, zone: CelValue, read: (date: Date) => number): CelValue {
  if (typeof zone !== "string") return NO_OVERLOAD;
  const [, sign, hours, minutes] = /^([+-]?)([0-9]{2}):([0-9]{2})$/.exec(zone) ?? [];
  if (hours === undefined && zone !== "" && zone !== "UTC") return NO_ZONE;
  const offset = (Number(hours ?? 0) * 60 + Number(minutes ?? 0)) * 60_000;
  const date = new Date(time.ms + (sign === "-" ? -offset : offset));
  return Number.isNaN(date.getTime()) ? NO_CONVERSION : BigInt(read(date));
}
