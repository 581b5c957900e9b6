import { latin1Decode } from "./bytes.ts";

/** Tags of X.690 that X.509 uses. `CONTEXT + n` is a field tagged [n] that holds other values. */
export const DER = {
  BOOLEAN: 0x01,
  INTEGER: 0x02,
  BIT_STRING: 0x03,
  OCTET_STRING: 0x04,
  OID: 0x06,
  ENUMERATED: 0x0a,
  UTC_TIME: 0x17,
  GENERALIZED_TIME: 0x18,
  SEQUENCE: 0x30,
  CONTEXT: 0xa0,
} as const;

/**
 * One value in DER (X.690), and the values inside it, read one after the other. What is cut short, or has not the wanted tag, reads
 * as undefined, and reading does not move past it.
 */
export class Der {
  readonly bytes: Uint8Array;
  /** Where this value begins, its own tag and length included. */
  readonly from: number;
  #at: number;
  readonly end: number;

  constructor(bytes: Uint8Array, at = 0, end = bytes.length, from = at) {
    this.bytes = bytes;
    this.from = from;
    this.#at = at;
    this.end = end;
  }

  /** The tag of the value that comes next; -1: there is none. */
  get tag(): number {
    return this.#at < this.end ? this.bytes[this.#at]! : -1;
  }

  /** What has not been read yet. */
  get content(): Uint8Array {
    return this.bytes.subarray(this.#at, this.end);
  }

  /** Tag, length and content: what signatures are made of. */
  get whole(): Uint8Array {
    return this.bytes.subarray(this.from, this.end);
  }

  /** The next value, of this tag if one is given. */
  next(tag?: number): Der | undefined {
    const { bytes, end } = this;
    const from = this.#at;
    if (from + 2 > end || (tag !== undefined && bytes[from] !== tag)) return undefined;
    let at = from + 2;
    let length = bytes[from + 1]!;
    if (length >= 0x80) {
      const digits = length & 0x7f;
      if (digits === 0 || digits > 4 || at + digits > end) return undefined;
      length = 0;
      for (let k = 0; k < digits; k++) length = length * 256 + bytes[at++]!;
    }
    if (at + length > end) return undefined;
    this.#at = at + length;
    return new Der(bytes, at, at + length, from);
  }

  /** The next value if it has this tag; others are left. */
  optional(tag: number): Der | undefined {
    return this.tag === tag ? this.next(tag) : undefined;
  }

  /** An INTEGER as lower-case hex, without the leading zero byte that keeps it positive. */
  hex(): string {
    let text = "";
    for (const byte of this.content) text += byte.toString(16).padStart(2, "0");
    return text.replace(/^(00)+(?=..)/, "");
  }

  /** An OBJECT IDENTIFIER with dots. */
  oid(): string {
    const parts: number[] = [];
    let part = 0;
    for (const byte of this.content) {
      part = part * 128 + (byte & 0x7f);
      if (byte < 0x80) {
        parts.push(part);
        part = 0;
      }
    }
    const [first = 0, ...rest] = parts;
    const root = Math.min(2, Math.floor(first / 40));
    return [root, first - 40 * root, ...rest].join(".");
  }

  text(): string {
    return latin1Decode(this.bytes, this.#at, this.end);
  }
}

/** Epoch milliseconds of a UTCTime or GeneralizedTime in the form that RFC 5280 §4.1.2.5 asks for; undefined for others. */
export function derTime(value: Der | undefined): number | undefined {
  const found = /^(\d\d(?:\d\d)?)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:\.\d+)?Z$/.exec(
    value?.text() ?? "",
  );
  if (found === null) return undefined;
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = found
    .slice(1)
    .map(Number);
  const full = found[1]!.length === 4 ? year : year + (year < 50 ? 2000 : 1900);
  return Date.UTC(full, month - 1, day, hour, minute, second);
}
