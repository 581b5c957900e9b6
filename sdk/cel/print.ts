import { latin1Decode } from "../bytes.ts";
import {
  CelError,
  CelMap,
  CelType,
  type CelValue,
  Span,
  Timestamp,
  textOf,
  Uint,
} from "./values.ts";

/** Prints a value as Envoy does in texts (header bytes, one char each); undefined: the value is an error. */
export function celText(value: CelValue): string | undefined {
  if (value instanceof CelError) return undefined;
  if (typeof value === "string") return value;
  if (value === null) return "NULL";
  if (typeof value === "number") return doubleText(value);
  if (value instanceof Uint) return String(value.value);
  if (value instanceof Uint8Array) return latin1Decode(value, 0, value.length);
  if (value instanceof Timestamp) return timestampText(value.ms).replace(/Z$/, "+00:00");
  if (value instanceof Span) return spanText(value.ms);
  if (value instanceof CelType) return "CelType value";
  if (value instanceof CelMap) return value.text();
  return Array.isArray(value) ? "CelList value" : String(value);
}

/** Converts a value for JSON, with its type as far as protobuf's Value has it; undefined: null, an error or a type. */
export function celJson(value: CelValue): string | number | boolean | object | undefined {
  if (value === null || value instanceof CelError) return undefined;
  if (typeof value === "string") return textOf(value);
  if (typeof value === "bigint") return Number(value);
  if (value instanceof Uint) return Number(value.value);
  if (value instanceof Uint8Array) return btoa(latin1Decode(value, 0, value.length));
  if (value instanceof Timestamp) return timestampText(value.ms);
  if (value instanceof Span) return `${value.ms / 1000}s`;
  if (value instanceof CelType) return undefined;
  if (Array.isArray(value)) return value.map((item) => celJson(item as CelValue) ?? null);
  if (!(value instanceof CelMap)) return value as number | boolean;
  const entries = [...value.keys()].map((key) => [celText(key) ?? "", value.get(key)!] as const);
  return Object.fromEntries(
    entries.sort().map(([key, each]) => [textOf(key), celJson(each) ?? null]),
  );
}

/** Prints six significant digits, as C's `%g`. */
function doubleText(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  const [mantissa = "", exponent = "0"] = value.toExponential(5).split("e");
  const power = Number(exponent);
  const digits = (text: string) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  if (power >= -4 && power < 6) return digits(value.toFixed(Math.max(0, 5 - power)));
  const sign = power < 0 ? "-" : "+";
  return `${digits(mantissa)}e${sign}${String(Math.abs(power)).padStart(2, "0")}`;
}

function timestampText(ms: number): string {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return "infinite-future";
  return date.toISOString().replace(/\.?0*Z$/, "Z");
}

/** Prints a duration as `1h2m3.5s`, `1.5ms` or `0`. */
function spanText(ms: number): string {
  if (ms === 0) return "0";
  if (ms < 0) return `-${spanText(-ms)}`;
  const figure = (value: number, digits: number) => String(Number(value.toFixed(digits)));
  if (ms < 1e-3) return `${figure(ms * 1e6, 0)}ns`;
  if (ms < 1) return `${figure(ms * 1e3, 3)}us`;
  if (ms < 1000) return `${figure(ms, 6)}ms`;
  const hours = Math.floor(ms / 3_600_000);
  const minutes = Math.floor((ms % 3_600_000) / 60_000);
  const seconds = (ms % 60_000) / 1000;
  return `${hours > 0 ? `${hours}h` : ""}${minutes > 0 ? `${minutes}m` : ""}${seconds > 0 ? `${figure(seconds, 9)}s` : ""}`;
}
