/** Cuts a gRPC body where its messages end: a flag byte, four bytes of length, the message. */
export class FrameSplitter {
  #head = 0;
  #size = 0;
  #left = 0;

  /** Calls `piece` for each part of a message in [at, end), saying whether the message ends with it. */
  split(
    memory: Uint8Array,
    at: number,
    end: number,
    piece: (bytes: Uint8Array, last: boolean) => void,
  ): void {
    let from = at;
    let q = at;
    while (q < end) {
      if (this.#head < 5) {
        if (this.#head > 0) this.#size = this.#size * 256 + memory[q]!;
        q++;
        if (++this.#head < 5) continue;
        this.#left = this.#size;
      } else {
        const size = Math.min(end - q, this.#left);
        this.#left -= size;
        q += size;
      }
      if (this.#left > 0) continue;
      piece(memory.subarray(from, q), true);
      from = q;
      this.#head = this.#size = 0;
    }
    if (from < end) piece(memory.subarray(from, end), false);
  }
}
