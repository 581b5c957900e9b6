import type { SharedCode } from "./protocol.ts";

/** Code in memory that threads share: each of them is told of all packages, and most need few. */
export function sharedCode(text: string): SharedArrayBuffer {
  return sharedBytes(Buffer.from(text));
}

export function sharedBytes(bytes: Uint8Array): SharedArrayBuffer {
  const shared = new SharedArrayBuffer(bytes.length);
  new Uint8Array(shared).set(bytes);
  return shared;
}

export function textOf({ code }: { readonly code: SharedCode }): string {
  return typeof code === "string" ? code : Buffer.from(code).toString();
}
