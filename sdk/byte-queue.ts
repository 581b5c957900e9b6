const LARGEST_BLOCK = 16 * 1024;
const SMALLEST_BLOCK = 256;
/** Pieces from this size on stand alone: copying them together would save nothing. */
const ALONE_FROM = 4096;
const NOTHING = new Uint8Array(0);

/**
 * Copies of bytes that wait, in the order in which they came. Small ones are put together: a peer that sends its body byte by
 * byte would otherwise cost some 200 bytes of memory for each.
 */
export class ByteQueue {
  /** Bytes of all pieces. */
  size = 0;
  readonly #pieces: Uint8Array[] = [];
  /** The block that the last piece lies in, and how much of it is used; empty if that piece stands alone. */
  #block: Uint8Array = NOTHING;
  #used = 0;

  /** None is empty. The last one may be replaced by a longer one that begins alike when bytes are added. */
  get pieces(): readonly Uint8Array[] {
    return this.#pieces;
  }

  push(memory: Uint8Array, at: number, end: number): void {
    const size = end - at;
    if (size <= 0) return;
    this.size += size;
    const pieces = this.#pieces;
    if (size <= this.#block.length - this.#used) {
      this.#block.set(memory.subarray(at, end), this.#used);
      this.#used += size;
      pieces[pieces.length - 1] = this.#block.subarray(0, this.#used);
      return;
    }
    if (size >= ALONE_FROM || pieces.length === 0) {
      pieces.push(memory.slice(at, end));
      this.#block = NOTHING;
      this.#used = 0;
      return;
    }
    const room = Math.min(LARGEST_BLOCK, Math.max(SMALLEST_BLOCK, this.#block.length, size) * 2);
    this.#block = new Uint8Array(room);
    this.#block.set(memory.subarray(at, end));
    this.#used = size;
    pieces.push(this.#block.subarray(0, size));
  }

  /** Takes the first piece out; undefined: there is none. */
  shift(): Uint8Array | undefined {
    const first = this.#pieces.shift();
    if (first === undefined) return undefined;
    this.size -= first.length;
    if (this.#pieces.length === 0) this.#block = NOTHING;
    if (this.#block.length === 0) this.#used = 0;
    return first;
  }

  /** All bytes in one piece. */
  join(): Uint8Array {
    const all = new Uint8Array(this.size);
    let at = 0;
    for (const piece of this.#pieces) {
      all.set(piece, at);
      at += piece.length;
    }
    return all;
  }
}
