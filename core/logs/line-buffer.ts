import { FILE_FLUSH, type FileFlush, type LentBytes } from "../protocol.ts";

/** Buffers of a thread: those of 100 ms (LineOrder) at 20 MB a second. */
const BUFFERS = 32;
/** Room in a buffer beyond what files gather before they are written. */
const MORE_BYTES = 32 * 1024;
/** Before each buffer lies a word that is 1 from the moment at which the thread takes it until main has written what is in it. */
const HEAD_BYTES = 4;

/** How large the buffers are. */
function bufferBytes(flush: FileFlush = FILE_FLUSH): number {
  return (flush.bytes + MORE_BYTES + 3) & ~3;
}

/** Memory for lines that a thread fills and main writes; untouched pages cost nothing. */
export function lineMemory(flush: FileFlush | undefined): SharedArrayBuffer {
  return new SharedArrayBuffer(BUFFERS * (HEAD_BYTES + bufferBytes(flush)));
}

/** The buffers in that memory, as the thread sees them. */
export class LineBuffers {
  readonly #memory: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #size: number;

  constructor(memory: SharedArrayBuffer) {
    this.#memory = memory;
    this.#words = new Int32Array(memory);
    this.#size = memory.byteLength / BUFFERS - HEAD_BYTES;
  }

  /** A buffer with room for `size` bytes; one outside of the memory if none is free, or large enough. */
  take(size: number): Buffer {
    for (
      let at = 0;
      size <= this.#size && at < this.#memory.byteLength;
      at += HEAD_BYTES + this.#size
    )
      if (Atomics.compareExchange(this.#words, at >> 2, 0, 1) === 0)
        return Buffer.from(this.#memory, at + HEAD_BYTES, this.#size);
    return Buffer.allocUnsafeSlow(Math.max(size, this.#size));
  }
}

/** What a thread tells main of such a buffer: the place of its first `used` bytes, or, outside of the memory, a copy of them. */
export function lent(buffer: Buffer, used: number): Uint8Array | LentBytes {
  return buffer.buffer instanceof SharedArrayBuffer
    ? { at: buffer.byteOffset, size: used }
    : new Uint8Array(buffer.buffer, 0, used).slice();
}

/** The bytes that main was told of. */
export function borrowed(bytes: Uint8Array | LentBytes, memory: SharedArrayBuffer): Uint8Array {
  return bytes instanceof Uint8Array ? bytes : new Uint8Array(memory, bytes.at, bytes.size);
}

/** The thread that has lent these bytes may use their memory again. Bytes that nobody has lent are let alone. */
export function giveBack({ buffer, byteOffset }: Uint8Array): void {
  if (buffer instanceof SharedArrayBuffer)
    Atomics.store(new Int32Array(buffer, byteOffset - HEAD_BYTES, 1), 0, 0);
}
