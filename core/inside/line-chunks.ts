/** Lines of a file gather in so many bytes of the isolate's memory before core takes them. */
const CHUNK_BYTES = 16 * 1024;
/** Files whose lines core takes as bytes; those of further ones pass as text. */
const CHUNKS = 32;

/** Memory that an isolate shares with its core for lines of files; untouched pages cost nothing. */
export function chunkMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer(CHUNKS * CHUNK_BYTES);
}

/** Memory for the lines of the nth file: a chunk, or, where there is none for it, memory of the isolate's own. */
export function chunkOf(memory: SharedArrayBuffer, nth: number): Uint8Array {
  const at = nth * CHUNK_BYTES;
  if (at + CHUNK_BYTES > memory.byteLength) return new Uint8Array(CHUNK_BYTES);
  return new Uint8Array(memory, at, CHUNK_BYTES);
}
