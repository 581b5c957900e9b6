/** The flag of an envelope that ends a Connect stream and holds its trailers. */
const END_OF_STREAM = 2;

/** Counts the messages of a gRPC body. Each is a flag byte, four bytes of length, and the message itself. */
export class MessageCounter {
  /** As in Envoy, what has this flag set is no message, and nothing that follows is looked at. */
  readonly #lastFlag: number;
  #ended = false;
  #headLeft = 5;
  #size = 0;
  #bodyLeft = 0;

  constructor(side: "request" | "response") {
    this.#lastFlag = side === "response" ? END_OF_STREAM : 0;
  }

  /** Messages that begin in the range. */
  count(memory: Uint8Array, at: number, end: number): number {
    let messages = 0;
    let q = at;
    while (q < end && !this.#ended) {
      if (this.#bodyLeft > 0) {
        const size = Math.min(end - q, this.#bodyLeft);
        this.#bodyLeft -= size;
        q += size;
        continue;
      }
      if (this.#headLeft === 5) {
        this.#ended = (memory[q]! & this.#lastFlag) !== 0;
        if (this.#ended) break;
        messages++;
      } else this.#size = this.#size * 256 + memory[q]!;
      q++;
      if (--this.#headLeft > 0) continue;
      this.#bodyLeft = this.#size;
      this.#size = 0;
      this.#headLeft = 5;
    }
    return messages;
  }
}
