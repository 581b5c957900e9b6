import { closeSync, openSync, readSync } from "node:fs";

/**
 * Random bytes for seeds. Read from /dev/urandom, since loading Node's crypto would add 8 ms to the start of each thread. Crypto
 * is used only if the file cannot be read, as when connections have taken all file descriptors.
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
