import { base64Decode, type HeaderMap, HeaderName, latin1Decode } from "@tsproxy/sdk";

/** A host's load report (xds.data.orca.v3.OrcaLoadReport): values by metric, e.g. `eps` or `named_metrics.queue`. */
export type LoadReport = ReadonlyMap<string, number>;

const REPORT = new HeaderName("endpoint-load-metrics");
const BINARY_REPORT = new HeaderName("endpoint-load-metrics-bin");

const SINGLE = [
  "cpu_utilization",
  "mem_utilization",
  "application_utilization",
  "eps",
  "rps_fractional",
];
const MAPS = ["named_metrics", "utilization", "request_cost"];

/** In characters; longer reports are ignored. */
const MAX_LENGTH = 8192;

/** Reads the load report in a response's headers; undefined if there is none or it is malformed. */
export function loadReportOf(headers: HeaderMap): LoadReport | undefined {
  const binary = headers.get(BINARY_REPORT);
  if (binary !== undefined) return fromBinary(binary);
  const text = headers.get(REPORT);
  if (text === undefined || text.length > MAX_LENGTH) return undefined;
  if (text.startsWith("TEXT ")) return fromText(text.slice(5));
  if (text.startsWith("JSON ")) return fromJson(text.slice(5));
  return text.startsWith("BIN ") ? fromBinary(text.slice(4)) : undefined;
}

/** Parses `cpu_utilization:0.3,named_metrics.queue=4`; undefined if any metric is invalid or appears twice. */
function fromText(text: string): LoadReport | undefined {
  const report = new Map<string, number>();
  for (const part of text.split(",")) {
    const [, name, digits] = /^\s*([^:=\s]+)\s*[:=]\s*(\S+)\s*$/.exec(part) ?? [];
    if (name === undefined || report.has(name)) return undefined;
    if (!SINGLE.includes(name) && !/^named_metrics\../.test(name)) return undefined;
    const value = Number(digits);
    if (!Number.isFinite(value)) return undefined;
    report.set(name, value);
  }
  return report;
}

/** Parses the message as JSON, with field names in snake_case or camelCase; undefined if any field is invalid. */
function fromJson(text: string): LoadReport | undefined {
  let message: unknown;
  try {
    message = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof message !== "object" || message === null) return undefined;
  const report = new Map<string, number>();
  const put = (name: string, value: unknown): boolean => {
    // Number() overflows the stack on an array nested thousands deep, which a host could send.
    const number =
      typeof value === "number" || typeof value === "string" ? Number(value) : Number.NaN;
    if (Number.isFinite(number)) report.set(name, number);
    return Number.isFinite(number);
  };
  for (const [key, value] of Object.entries(message)) {
    const name = key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    if (SINGLE.includes(name)) {
      if (!put(name, value)) return undefined;
    } else if (MAPS.includes(name) && typeof value === "object" && value !== null) {
      for (const [entry, of] of Object.entries(value)) {
        if (!put(`${name}.${entry}`, of)) return undefined;
      }
    } else if (name !== "rps") return undefined;
  }
  return report;
}

/** Names of the message's fields by number. */
const FIELDS = new Map([
  [1, "cpu_utilization"],
  [2, "mem_utilization"],
  [4, "request_cost"],
  [5, "utilization"],
  [6, "rps_fractional"],
  [7, "eps"],
  [8, "named_metrics"],
  [9, "application_utilization"],
]);

function fromBinary(text: string): LoadReport | undefined {
  if (text.length > MAX_LENGTH) return undefined;
  const bytes = base64Decode(text);
  const report = new Map<string, number>();
  const complete =
    bytes !== undefined &&
    readFields(bytes, (field, value) => {
      const name = FIELDS.get(field);
      if (typeof value === "number" && name !== undefined) report.set(name, value);
      if (typeof value === "number" || name === undefined) return true;
      let key = "";
      let of = 0;
      const whole = readFields(value, (part, inner) => {
        if (part === 1 && typeof inner !== "number") key = latin1Decode(inner, 0, inner.length);
        if (part === 2 && typeof inner === "number") of = inner;
        return true;
      });
      report.set(`${name}.${key}`, of);
      return whole;
    });
  return complete ? report : undefined;
}

/**
 * Reads protobuf fields: `take` gets doubles as numbers and length-delimited fields as bytes; others are skipped. Returns false
 * if the message is malformed, a double is not finite, or `take` returns false.
 */
function readFields(
  bytes: Uint8Array,
  take: (field: number, value: number | Uint8Array) => boolean,
): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (at >= bytes.length) break;
      const byte = bytes[at++]!;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    return -1;
  };
  while (at < bytes.length) {
    const tag = varint();
    if (tag < 8) return false;
    const field = Math.floor(tag / 8);
    switch (tag % 8) {
      case 0:
        if (varint() < 0) return false;
        break;
      case 1: {
        if (at + 8 > bytes.length) return false;
        const number = view.getFloat64(at, true);
        if (!Number.isFinite(number) || !take(field, number)) return false;
        at += 8;
        break;
      }
      case 2: {
        const length = varint();
        if (length < 0 || at + length > bytes.length) return false;
        if (!take(field, bytes.subarray(at, at + length))) return false;
        at += length;
        break;
      }
      case 5:
        at += 4;
        break;
      default:
        return false;
    }
  }
  return at === bytes.length;
}
