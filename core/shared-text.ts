import type { SharedText } from "./protocol.ts";

/** Shorter text is sent as a string. */
const SHARED_CHARS = 64 * 1024;

/** Text to be sent to several threads. A long one goes into memory that they share, so that it is kept once. */
export function sharedText(text: string): SharedText {
  if (text.length < SHARED_CHARS) return text;
  const bytes = Buffer.from(text);
  const shared = new SharedArrayBuffer(bytes.length);
  new Uint8Array(shared).set(bytes);
  return shared;
}

export function readText(text: SharedText): string {
  return typeof text === "string" ? text : Buffer.from(text).toString();
}
