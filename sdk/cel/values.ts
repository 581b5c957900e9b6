import { latin1Decode, latin1Encode, utf8Decode, utf8Encode } from "../bytes.ts";

/** A value of CEL. Strings are kept as header values are: their UTF-8 bytes, one char each. `int` is a bigint, `double` a number. */
export type CelValue =
  | string
  | bigint
  | number
  | boolean
  | null
  | Uint8Array
  | Uint
  | Timestamp
  | Span
  | CelType
  | CelMap
  | CelError
  | readonly CelValue[];

/** The error of a failed evaluation. It is a value and not thrown, since `true || error` is true. */
export class CelError {
  readonly message: string;
  constructor(message: string) {
    this.message = message;
  }
}
export const NO_KEY = new CelError("no such key");
export const NO_OVERLOAD = new CelError("no matching overload");

/** A `uint`, which arithmetic combines only with another `uint`. */
export class Uint {
  readonly value: bigint;
  constructor(value: bigint) {
    this.value = value;
  }
}

/** A moment, in milliseconds since 1970. */
export class Timestamp {
  readonly ms: number;
  constructor(ms: number) {
    this.ms = ms;
  }
}

/** A duration, in milliseconds. */
export class Span {
  readonly ms: number;
  constructor(ms: number) {
    this.ms = ms;
  }
}

/** A type as a value, such as `int`. */
export class CelType {
  readonly name: string;
  constructor(name: string) {
    this.name = name;
  }
}

/** Anything with values by key: maps, messages, and roots such as `request`. */
export abstract class CelMap {
  /** Undefined: there is no such key. */
  abstract get(key: CelValue): CelValue | undefined;
  abstract keys(): Iterable<CelValue>;
  /** For `has()`. Messages whose unset fields have default values override this. */
  has(key: CelValue): boolean {
    return this.get(key) !== undefined;
  }
  /** How logs print it: messages override this with protobuf's text format. */
  text(): string {
    return "CelMap value";
  }
}

/** A map literal, `{…}`. Its keys are told apart by type and value, but numbers by value alone. */
export class LiteralMap extends CelMap {
  readonly #entries: ReadonlyMap<string, readonly [CelValue, CelValue]>;

  constructor(entries: readonly (readonly [CelValue, CelValue])[]) {
    super();
    this.#entries = new Map(entries.map((entry) => [nameOf(entry[0]), entry]));
  }
  get(key: CelValue): CelValue | undefined {
    return this.#entries.get(nameOf(key))?.[1];
  }
  *keys(): Iterable<CelValue> {
    for (const [key] of this.#entries.values()) yield key;
  }
}

/** A text that is the same for equal keys; the numbers 1, 1u and 1.0 are equal. */
function nameOf(key: CelValue): string {
  if (key instanceof Uint) return `n${key.value}`;
  return typeof key === "bigint" || typeof key === "number" ? `n${key}` : `${typeof key}:${key}`;
}

/** A protobuf Struct, as metadata is. */
export class StructMap extends CelMap {
  readonly fields: Readonly<Record<string, unknown>>;

  constructor(fields: Readonly<Record<string, unknown>>) {
    super();
    this.fields = fields;
  }
  get(key: CelValue): CelValue | undefined {
    if (typeof key !== "string") return undefined;
    const name = textOf(key);
    return Object.hasOwn(this.fields, name) ? fromJson(this.fields[name]) : undefined;
  }
  keys(): Iterable<CelValue> {
    return Object.keys(this.fields).map(wireOf);
  }
}

export function fromJson(value: unknown): CelValue {
  if (typeof value === "string") return wireOf(value);
  if (typeof value === "number" || typeof value === "boolean") return value;
  if (Array.isArray(value)) return value.map(fromJson);
  if (typeof value === "object" && value !== null)
    return new StructMap(value as Record<string, unknown>);
  return null;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: all of ASCII.
const ASCII = /^[\x00-\x7f]*$/;

/** Converts a text to the form of CelValue: its UTF-8 bytes, one char each. */
export function wireOf(text: string): string {
  if (ASCII.test(text)) return text;
  const bytes = utf8Encode(text);
  return latin1Decode(bytes, 0, bytes.length);
}

/** Converts it back to a text; bytes that are not UTF-8 become U+FFFD. */
export function textOf(wire: string): string {
  if (ASCII.test(wire)) return wire;
  const bytes = latin1Encode(wire);
  return utf8Decode(bytes, 0, bytes.length);
}
