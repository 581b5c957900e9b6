import type { ModuleSource } from "./protocol.ts";

/** Code in memory that threads share: each of them is told of all packages, and most need few. */
export function sharedCode(text: string): SharedArrayBuffer {
  const bytes = Buffer.from(text);
  const shared = new SharedArrayBuffer(bytes.length);
  new Uint8Array(shared).set(bytes);
  return shared;
}

export function textOf({ code }: ModuleSource): string {
  return typeof code === "string" ? code : Buffer.from(code).toString();
}
