import { quote } from "./diagnostic.ts";
import type { ScalarNode, ScalarValue } from "./document.ts";

/** A value that was read by protobuf's JSON rules, or a sentence that says what is wrong with it. */
export type Reading =
  | { readonly value: ScalarValue; readonly json?: string }
  | { readonly problem: string; readonly help?: string };

/** Wrappers of scalars, which are written as the scalars themselves. */
export const WRAPPERS: { readonly [type: string]: string } = {
  "google.protobuf.DoubleValue": "double",
  "google.protobuf.FloatValue": "float",
  "google.protobuf.Int64Value": "int64",
  "google.protobuf.UInt64Value": "uint64",
  "google.protobuf.Int32Value": "int32",
  "google.protobuf.UInt32Value": "uint32",
  "google.protobuf.BoolValue": "bool",
  "google.protobuf.StringValue": "string",
  "google.protobuf.BytesValue": "bytes",
};
export const SCALARS: ReadonlySet<string> = new Set(
  "double float int32 int64 uint32 uint64 sint32 sint64 fixed32 fixed64 sfixed32 sfixed64 bool string bytes".split(
    " ",
  ),
);

const RANGES: { readonly [type: string]: readonly [bigint, bigint] } = {
  int32: [-0x8000_0000n, 0x7fff_ffffn],
  uint32: [0n, 0xffff_ffffn],
  int64: [-0x8000_0000_0000_0000n, 0x7fff_ffff_ffff_ffffn],
  uint64: [0n, 0xffff_ffff_ffff_ffffn],
};
const ALIASES: { readonly [type: string]: string } = {
  sint32: "int32",
  sfixed32: "int32",
  fixed32: "uint32",
  sint64: "int64",
  sfixed64: "int64",
  fixed64: "uint64",
};

/** Reads a value of that protobuf scalar type. */
export function readScalar(type: string, node: ScalarNode): Reading {
  const plainType = ALIASES[type] ?? type;
  const range = RANGES[plainType];
  if (range !== undefined) return readInteger(plainType, range, node);
  if (type === "bool") return readBool(node);
  if (type === "float" || type === "double") return readFloat(node);
  if (type === "bytes") return readBytes(node);
  return readString(node);
}

export function readString(node: ScalarNode): Reading {
  if (typeof node.value === "string") return { value: node.value };
  const what = typeof node.value === "boolean" ? `is read as ${node.value}` : "is a number";
  return {
    problem: `${node.text} ${what}, not a string`,
    help: `write ${JSON.stringify(node.text)}`,
  };
}

export function readBool(node: ScalarNode): Reading {
  const { value } = node;
  if (typeof value === "boolean") return { value };
  if (value === "true" || value === "false") return { value: value === "true" };
  return { problem: `${shown(node)} is not true or false` };
}

function readInteger(
  type: string,
  [least, most]: readonly [bigint, bigint],
  node: ScalarNode,
): Reading {
  const { value } = node;
  const number = typeof value === "string" ? exactNumber(value) : value;
  if (typeof number !== "number" && typeof number !== "bigint") return notANumber(node);
  if (typeof number === "number" && !Number.isInteger(number))
    return { problem: `${shown(node)} is not a whole number` };
  const exact = BigInt(number);
  if (exact < least)
    return {
      problem:
        least === 0n
          ? `${shown(node)} must not be negative`
          : `${shown(node)} is less than ${least}`,
    };
  if (exact > most) return { problem: `${shown(node)} is more than ${most}` };
  return type.endsWith("64")
    ? { value: Number(exact), json: `${exact}` }
    : { value: Number(exact) };
}

function exactNumber(text: string): number | bigint | undefined {
  if (/^-?\d+$/.test(text)) return BigInt(text);
  // Binary and octal of JavaScript's, and of YAML 1.2, are no numbers to Envoy.
  if (/^0[bo]/i.test(text)) return undefined;
  const number = Number(text);
  return text.trim() === text && text !== "" && Number.isFinite(number) ? number : undefined;
}

export function readFloat(node: ScalarNode): Reading {
  const { value } = node;
  if (typeof value === "number") return { value };
  if (value === "NaN") return { value: NaN };
  if (value === "Infinity" || value === "-Infinity") return { value: Number(value) };
  const number = typeof value === "string" ? exactNumber(value) : undefined;
  return number === undefined ? notANumber(node) : { value: Number(number) };
}

const UNITS: { readonly [unit: string]: number } = { k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 };

function notANumber(node: ScalarNode): Reading {
  const problem = `${shown(node)} is not a number`;
  const octal = /^0o([0-7]+)$/i.exec(String(node.value));
  if (octal !== null) return { problem, help: `write 0${octal[1]}` };
  const size = /^(\d+(?:\.\d+)?)\s*([kmg])i?b?$/i.exec(String(node.value));
  if (size === null) return { problem };
  const bytes = Math.round(Number(size[1]) * UNITS[size[2]!.toLowerCase()]!);
  return { problem, help: `write ${bytes}` };
}

function readBytes(node: ScalarNode): Reading {
  if (typeof node.value !== "string") return readString(node);
  // Both base64 alphabets, with or without padding, as in protobuf's own reader.
  const text = node.value.replaceAll("-", "+").replaceAll("_", "/").replace(/=+$/, "");
  if (!/^[A-Za-z0-9+/]*$/.test(text) || text.length % 4 === 1)
    return { problem: `${shown(node)} is not base64` };
  return { value: Buffer.from(text, "base64").toString("base64") };
}

// protobuf's Duration holds 10,000 years.
const MAX_SECONDS = 315_576_000_000;

/** Reads a Duration; answers its canonical form, `"0.250s"`. */
export function readDuration(node: ScalarNode): Reading {
  const { value } = node;
  const match = typeof value === "string" ? /^(-?)(\d+)(?:\.(\d{1,9}))?s$/.exec(value) : null;
  if (match === null)
    return { problem: `${shown(node)} is not a duration`, help: durationHelp(node) };
  const [, sign, seconds, fraction = ""] = match;
  if (Number(seconds) > MAX_SECONDS)
    return { problem: `${shown(node)} is too long for a duration` };
  return { value: canonicalDuration(sign!, BigInt(seconds!), Number(fraction.padEnd(9, "0"))) };
}

/** A Duration in protobuf's canonical JSON, with 0, 3, 6 or 9 digits of fraction. */
export function canonicalDuration(sign: string, seconds: bigint, nanos: number): string {
  const digits = `${nanos}`.padStart(9, "0");
  if (nanos === 0) return `${sign}${seconds}s`;
  const shown = digits.endsWith("000000") ? 3 : digits.endsWith("000") ? 6 : 9;
  return `${sign}${seconds}.${digits.slice(0, shown)}s`;
}

const DURATION_UNITS: { readonly [unit: string]: number } = {
  us: 0.001,
  ms: 1,
  s: 1000,
  sec: 1000,
  m: 60_000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

function durationHelp(node: ScalarNode): string {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(String(node.value));
  const unit = DURATION_UNITS[match?.[2] === "" ? "s" : (match?.[2] ?? "?").toLowerCase()];
  if (match === null || unit === undefined) return 'write seconds: "0.25s"';
  return `write "${formatDuration(Number(match[1]) * unit)}"`;
}

/** Milliseconds of a canonical Duration. */
export function parseDuration(text: string): number {
  return Math.round(Number.parseFloat(text) * 1e9) / 1e6;
}
/** `ms` as a Duration: "0.25s". */
export function formatDuration(ms: number): string {
  return `${Number((ms / 1000).toFixed(9))}s`;
}

/** A value as the user wrote it. */
export function shown(node: ScalarNode): string {
  return typeof node.value === "string" ? quote(node.value) : node.text;
}
