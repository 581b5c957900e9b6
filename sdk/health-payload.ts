import { utf8Encode } from "./bytes.ts";
import { ConfigError } from "./extension.ts";
import { type Static, Type } from "./schema.ts";

/** Envoy's HealthCheck.Payload: bytes as hexadecimal text, or as base64. */
export const HealthPayload = Type.Object({
  text: Type.Optional(Type.String({ minLength: 1 })),
  binary: Type.Optional(Type.String()),
});
export type HealthPayload = Static<typeof HealthPayload>;

const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

export function payloadBytes(payload: HealthPayload, path: string): Uint8Array {
  if (payload.text !== undefined) {
    if (!/^(?:[0-9a-fA-F]{2})+$/.test(payload.text))
      throw new ConfigError(
        `${path}.text`,
        `invalid hex string '${payload.text}'; write two digits a byte`,
      );
    return Uint8Array.from(payload.text.match(/../g)!, (digits) => Number.parseInt(digits, 16));
  }
  if (payload.binary === undefined)
    throw new ConfigError(path, "is empty; write text (hexadecimal) or binary (base64)");
  return base64Bytes(payload.binary, `${path}.binary`);
}

function base64Bytes(text: string, path: string): Uint8Array {
  const digits = utf8Encode(text.replace(/=+$/, "").replaceAll("-", "+").replaceAll("_", "/"));
  const bytes: number[] = [];
  let bits = 0;
  let value = 0;
  for (const digit of digits) {
    const six = BASE64.indexOf(String.fromCharCode(digit));
    if (six < 0) throw new ConfigError(path, `"${text}" is not base64`);
    value = ((value << 6) | six) & 0xffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes.push((value >> bits) & 0xff);
    }
  }
  return Uint8Array.from(bytes);
}

/** Whether the blocks stand in the bytes, in that order; anything may be between them. */
export function containsInOrder(bytes: Uint8Array, blocks: readonly Uint8Array[]): boolean {
  let at = 0;
  for (const block of blocks) {
    const found = find(bytes, block, at);
    if (found < 0) return false;
    at = found + block.length;
  }
  return true;
}

function find(bytes: Uint8Array, block: Uint8Array, from: number): number {
  for (let at = from; at + block.length <= bytes.length; at++) {
    let k = 0;
    while (k < block.length && bytes[at + k] === block[k]) k++;
    if (k === block.length) return at;
  }
  return -1;
}
