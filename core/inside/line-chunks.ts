/** A file's lines gather in so many bytes before core takes them. */
const CHUNK_BYTES = 32 * 1024;
/** The last of these tell when lines were written: pairs of Float64. */
const MARKS_BYTES = 4 * 1024;
/** Files whose lines core takes as bytes; those of further ones pass as text. */
const CHUNKS = 32;

/** Memory that an isolate shares with its core for lines of files; untouched pages cost nothing. */
export function chunkMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer(CHUNKS * CHUNK_BYTES);
}

/** Where lines of one file gather. */
export interface Chunk {
  readonly lines: Uint8Array;
  /** When they were written: pairs of monotonic ms and the index of the first byte written then. */
  readonly marks: Float64Array;
}

/** For the nth file: a part of the memory, or, where there is none for it, memory of the isolate's own. */
export function chunkOf(memory: SharedArrayBuffer, nth: number): Chunk {
  const at = nth * CHUNK_BYTES;
  return at + CHUNK_BYTES > memory.byteLength
    ? chunkAt(new ArrayBuffer(CHUNK_BYTES), 0)
    : chunkAt(memory, at);
}

/** The one that begins at byte `at`. */
export function chunkAt(memory: ArrayBufferLike, at: number): Chunk {
  const size = CHUNK_BYTES - MARKS_BYTES;
  return {
    lines: new Uint8Array(memory, at, size),
    marks: new Float64Array(memory, at + size, MARKS_BYTES / 8),
  };
}
