// Hot path: every answer of a sandboxed filter is written here.
import { ANSWER_HEAD, ANSWER_HEAD_SIZE, BOX } from "./layout.ts";

const UNSENT_MAX = 16 * 1024 * 1024; // bytes of answers that found no room in the block
const REQUESTS_MAX = (UNSENT_MAX * 3) / 4;
const LINES_MAX = UNSENT_MAX / 4;

/**
 * Writes answers into the block's OUT part. An answer that finds no room waits in private memory and goes first in the next
 * entry. OUT_USED and MORE are kept current with each answer, since promises also settle after `run` has returned. Core sets OUT_USED
 * to 0 when it has taken the answers, after calls other than `run` too.
 */
export class Outbox {
  readonly #boxWords: Int32Array;
  readonly #boxBytes: Uint8Array;
  #unsent: Uint8Array[] = [];
  #unsentSize = 0;
  #openSize = 0;
  /** The memory of the answer being written: the block, or private. */
  words: Int32Array;
  bytes: Uint8Array;

  constructor(words: Int32Array, bytes: Uint8Array) {
    this.#boxWords = this.words = words;
    this.#boxBytes = this.bytes = bytes;
  }

  /** An entry begins: all earlier answers in the block have been taken. */
  begin(): void {
    let used = 0;
    while (this.#unsent.length > 0) {
      const answer = this.#unsent[0]!;
      if (used + answer.length > BOX.OUT_SIZE) break;
      this.#boxBytes.set(answer, BOX.OUT + used);
      used += answer.length;
      this.#unsentSize -= answer.length;
      this.#unsent.shift();
    }
    this.#boxWords[BOX.OUT_USED] = used;
    this.#boxWords[BOX.MORE] = this.#unsent.length > 0 ? 1 : 0;
  }

  /** Bytes of fetch bodies that may still be sent; the last quarter of UNSENT_MAX is kept for the answers of hooks. */
  get room(): number {
    return REQUESTS_MAX - this.#unsentSize;
  }

  /** False: so much waits that log lines are left out before they crowd out answers. */
  get takesLines(): boolean {
    return this.#unsentSize < LINES_MAX;
  }

  /**
   * Begins an answer with `size` bytes of payload; answers the payload's offset in `bytes`. It must be closed before another one
   * begins. Throws RangeError if too many answers wait, or if `size` is NaN because a filter gave a value that has no `length`.
   */
  open(kind: number, token: number, argument: number, size: number): number {
    if (!(size >= 0)) throw new RangeError("an answer has parts without a length");
    const whole = (ANSWER_HEAD_SIZE + size + 7) & ~7;
    const used = this.#boxWords[BOX.OUT_USED]!;
    let at = BOX.OUT + used;
    if (this.#unsent.length > 0 || used + whole > BOX.OUT_SIZE) {
      if (this.#unsentSize + whole > UNSENT_MAX) throw new RangeError("too much to answer at once");
      const buffer = new ArrayBuffer(whole);
      this.words = new Int32Array(buffer);
      this.bytes = new Uint8Array(buffer);
      at = 0;
    }
    const w = at >> 2;
    const words = this.words;
    words[w + ANSWER_HEAD.KIND] = kind;
    words[w + ANSWER_HEAD.TOKEN] = token;
    words[w + ANSWER_HEAD.SIZE] = size;
    words[w + ANSWER_HEAD.ARGUMENT] = argument;
    this.#openSize = whole;
    return at + ANSWER_HEAD_SIZE;
  }

  /** Ends the answer that `open` began. */
  close(): void {
    if (this.words === this.#boxWords) {
      this.#boxWords[BOX.OUT_USED]! += this.#openSize;
      return;
    }
    this.#unsent.push(this.bytes);
    this.#unsentSize += this.#openSize;
    this.words = this.#boxWords;
    this.bytes = this.#boxBytes;
    this.#boxWords[BOX.MORE] = 1;
  }

  /** Writes a string of chars 0-255 at `at`; answers the offset behind it. */
  latin1(text: string, at: number): number {
    const bytes = this.bytes;
    for (let k = 0; k < text.length; k++) bytes[at + k] = text.charCodeAt(k);
    return at + text.length;
  }

  /** Writes one answer whose payload is [from, end) of `memory`. */
  send(
    kind: number,
    token: number,
    argument: number,
    memory: Uint8Array,
    from: number,
    end: number,
  ): void {
    const at = this.open(kind, token, argument, end - from);
    if (end > from) this.bytes.set(memory.subarray(from, end), at);
    this.close();
  }
}
