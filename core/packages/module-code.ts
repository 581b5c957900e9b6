import type { SharedCode } from "../protocol.ts";
import { keepFiled, peekFiled } from "./filed-code.ts";

/** Code is gathered in blocks: a message costs 0.1 ms for each SharedArrayBuffer in it, and the first one brings all packages. */
const BLOCK_BYTES = 1024 * 1024;
let block = new SharedArrayBuffer(0);
let used = 0;

/** Puts code into memory that all threads share: each gets all packages, and most use few of them. */
export function sharedCode(text: string): Uint8Array {
  return sharedBytes(Buffer.from(text));
}

export function sharedBytes(bytes: Uint8Array): Uint8Array {
  if (used + bytes.length > block.byteLength) {
    block = new SharedArrayBuffer(Math.max(BLOCK_BYTES, bytes.length));
    used = 0;
  }
  const shared = new Uint8Array(block, used, bytes.length);
  shared.set(bytes);
  used += bytes.length;
  return shared;
}

/** The code as a string, to be run: it stays in memory. It is ASCII (bundle.ts). */
export function textOf({ code }: { readonly code: SharedCode }): string {
  if (typeof code === "string") return code;
  const { buffer, byteOffset, byteLength } = code instanceof Uint8Array ? code : keepFiled(code);
  return Buffer.from(buffer, byteOffset, byteLength).toString("latin1");
}

/** For a comparison, or another process. */
export function bytesOf(code: SharedCode): Uint8Array {
  if (typeof code === "string") return Buffer.from(code);
  return code instanceof Uint8Array ? code : peekFiled(code);
}
