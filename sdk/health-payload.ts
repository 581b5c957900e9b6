import { base64Decode } from "./bytes.ts";
import { ConfigError } from "./extension.ts";
import { type Static, Type } from "./schema.ts";

/** Envoy's HealthCheck.Payload: bytes as hexadecimal text, or as base64. */
export const HealthPayload = Type.Object({
  text: Type.Optional(Type.String({ minLength: 1 })),
  binary: Type.Optional(Type.String()),
});
export type HealthPayload = Static<typeof HealthPayload>;

/** The bytes that a payload stands for. Throws a ConfigError at `path` if it is neither hexadecimal nor base64. */
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
  const bytes = base64Decode(payload.binary);
  if (bytes === undefined)
    throw new ConfigError(`${path}.binary`, `"${payload.binary}" is not base64`);
  return bytes;
}

/** Whether all blocks are found in the bytes, in this order; anything may stand between them. */
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
