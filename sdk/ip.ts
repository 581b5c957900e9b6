import { ConfigError } from "./extension.ts";
import { type Static, Type, UInt32 } from "./schema.ts";

/** Envoy's `core.v3.CidrRange`. */
export const CidrRange = Type.Object({
  address_prefix: Type.String({ minLength: 1 }),
  prefix_len: UInt32({ default: 0, maximum: 128 }),
});
export type CidrRange = Static<typeof CidrRange>;

/** The bytes of an IP address, 4 or 16, or undefined if the text is none. Ports, brackets and zones are not part of one. */
export function parseIp(text: string): Uint8Array | undefined {
  if (text.length > 45) return undefined;
  return text.includes(":") ? parseIpv6(text) : parseIpv4(text);
}

/** Whether the text is an IP address, so that nobody has to resolve it. */
export function isIp(text: string): boolean {
  return parseIp(text) !== undefined;
}

function parseIpv4(text: string): Uint8Array | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  const bytes = new Uint8Array(4);
  for (const [k, part] of parts.entries()) {
    // A leading zero would be octal to some readers and decimal to others.
    if (!/^(?:0|[1-9][0-9]{0,2})$/.test(part) || Number(part) > 255) return undefined;
    bytes[k] = Number(part);
  }
  return bytes;
}

/** RFC 4291 §2.2, with the dotted form of the last 32 bits. */
function parseIpv6(text: string): Uint8Array | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const head = groups(halves[0]!, halves.length === 1);
  const tail = halves.length === 2 ? groups(halves[1]!, true) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = 16 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 2) return undefined;
  const bytes = new Uint8Array(16);
  bytes.set(head);
  bytes.set(tail, 16 - tail.length);
  return bytes;
}

/** Bytes of `a:b:c`; the last group may be an IPv4 address where `dotted` allows it. */
function groups(text: string, dotted: boolean): number[] | undefined {
  if (text === "") return [];
  const bytes: number[] = [];
  const parts = text.split(":");
  for (const [k, part] of parts.entries()) {
    if (dotted && k === parts.length - 1 && part.includes(".")) {
      const ipv4 = parseIpv4(part);
      if (ipv4 === undefined) return undefined;
      bytes.push(...ipv4);
    } else {
      if (!/^[0-9a-fA-F]{1,4}$/.test(part)) return undefined;
      const value = Number.parseInt(part, 16);
      bytes.push(value >> 8, value & 255);
    }
  }
  return bytes.length <= 16 ? bytes : undefined;
}

/** The address as RFC 5952 writes it. */
export function formatIp(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join(".");
  const words: number[] = [];
  for (let k = 0; k < 16; k += 2) words.push((bytes[k]! << 8) | bytes[k + 1]!);
  // RFC 5952 §5: the end of an IPv4-mapped address is written with dots.
  if (words[5] === 0xffff && words.slice(0, 5).every((word) => word === 0))
    return `::ffff:${bytes.slice(12).join(".")}`;
  const { at, length } = longestZeros(words);
  const hex = (part: number[]) => part.map((word) => word.toString(16)).join(":");
  if (length < 2) return hex(words);
  return `${hex(words.slice(0, at))}::${hex(words.slice(at + length))}`;
}

/** The network that an address lies in, by the first so many of its bits: `10.1.0.0/16`. Undefined: it is no address. */
export function maskedIp(ip: string, v4Bits: number, v6Bits: number): string | undefined {
  const bytes = parseIp(ip);
  if (bytes === undefined) return undefined;
  const bits = Math.min(bytes.length === 4 ? v4Bits : v6Bits, bytes.length * 8);
  for (let k = 0; k < bytes.length; k++) {
    const kept = Math.max(0, Math.min(8, bits - k * 8));
    bytes[k] = bytes[k]! & (0xff << (8 - kept));
  }
  return `${formatIp(bytes)}/${bits}`;
}

function longestZeros(words: readonly number[]): { at: number; length: number } {
  let best = { at: 0, length: 0 };
  for (let k = 0; k < words.length; k++) {
    let length = 0;
    while (words[k + length] === 0) length++;
    if (length > best.length) best = { at: k, length };
    k += length;
  }
  return best;
}

/** A set of networks. */
export class CidrRanges {
  readonly #ranges: readonly { readonly bytes: Uint8Array; readonly bits: number }[];

  constructor(config: readonly CidrRange[], path: string) {
    this.#ranges = config.map((range, k) => {
      const bytes = parseIp(range.address_prefix);
      if (bytes === undefined) {
        throw new ConfigError(
          `${path}[${k}].address_prefix`,
          `"${range.address_prefix}" is not an IP address`,
        );
      }
      if (range.prefix_len > bytes.length * 8) {
        throw new ConfigError(
          `${path}[${k}].prefix_len`,
          `${range.prefix_len} is more than the ${bytes.length * 8} bits of the address`,
        );
      }
      return { bytes, bits: range.prefix_len };
    });
  }

  get empty(): boolean {
    return this.#ranges.length === 0;
  }

  contains(ip: Uint8Array): boolean {
    return this.#ranges.some(
      (range) => range.bytes.length === ip.length && sameBits(range.bytes, ip, range.bits),
    );
  }
}

function sameBits(a: Uint8Array, b: Uint8Array, bits: number): boolean {
  const whole = bits >> 3;
  for (let k = 0; k < whole; k++) if (a[k] !== b[k]) return false;
  const rest = bits & 7;
  return rest === 0 || (a[whole]! ^ b[whole]!) >> (8 - rest) === 0;
}

/** Whether an address, as `parseIp` gives it, is one of this machine to itself. */
export function isLoopback(ip: Uint8Array): boolean {
  if (ip.length === 4) return ip[0] === 127;
  return ip[15] === 1 && ip.every((byte, k) => k === 15 || byte === 0);
}
