import { closeSync, openSync, readSync } from "node:fs";

/**
 * Random bytes for seeds, from the system. Node's crypto has them too, but takes 8 ms of each thread's start: it is only asked where
 * the file cannot be opened, as while connections have taken all file descriptors.
 */
export function randomBytes(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  try {
    const file = openSync("/dev/urandom", "r");
    readSync(file, bytes);
    closeSync(file);
  } catch {
    globalThis.crypto.getRandomValues(bytes);
  }
  return bytes;
}
