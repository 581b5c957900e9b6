/** Counts the messages of a gRPC body. Each is a flag byte, four bytes of length, and the message itself. */
export class MessageCounter {
  #headLeft = 5;
  #size = 0;
  #bodyLeft = 0;

  /** Messages that begin in the range. */
  count(memory: Uint8Array, at: number, end: number): number {
    let messages = 0;
    let q = at;
    while (q < end) {
      if (this.#bodyLeft > 0) {
        const size = Math.min(end - q, this.#bodyLeft);
        this.#bodyLeft -= size;
        q += size;
        continue;
      }
      if (this.#headLeft === 5) messages++;
      else this.#size = this.#size * 256 + memory[q]!;
      q++;
      if (--this.#headLeft > 0) continue;
      this.#bodyLeft = this.#size;
      this.#size = 0;
      this.#headLeft = 5;
    }
    return messages;
  }
}
