import { closeSync, openSync, readSync } from "node:fs";

/** Random bytes for seeds, from the system. "node:crypto" has them too, but takes 8 ms of each thread's start. */
export function randomBytes(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  const file = openSync("/dev/urandom", "r");
  readSync(file, bytes);
  closeSync(file);
  return bytes;
}
