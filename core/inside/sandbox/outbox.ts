// Hot path: every answer of a sandboxed filter passes here.
import { ANSWER_HEAD, ANSWER_HEAD_SIZE, BOX } from "./layout.ts";

const UNSENT_MAX = 16 * 1024 * 1024; // what filters may have answered and core has not fetched
const REQUESTS_MAX = (UNSENT_MAX * 3) / 4;

/**
 * Where answers are put together. What finds no room waits in private memory and goes first in the next crossing. Counts go
 * to shared memory at once, since promises settle after `run` has returned.
 */
export class Outbox {
  readonly #boxWords: Int32Array;
  readonly #boxBytes: Uint8Array;
  #used = 0;
  #unsent: Uint8Array[] = [];
  #unsentSize = 0;
  #openSize = 0;
  /** The memory of the answer in hand. */
  words: Int32Array;
  bytes: Uint8Array;

  constructor(words: Int32Array, bytes: Uint8Array) {
    this.#boxWords = this.words = words;
    this.#boxBytes = this.bytes = bytes;
  }

  /** A crossing begins: core has taken all that was there. */
  begin(): void {
    this.#used = 0;
    while (this.#unsent.length > 0) {
      const answer = this.#unsent[0]!;
      if (this.#used + answer.length > BOX.OUT_SIZE) break;
      this.#boxBytes.set(answer, BOX.OUT + this.#used);
      this.#used += answer.length;
      this.#unsentSize -= answer.length;
      this.#unsent.shift();
    }
    this.#boxWords[BOX.OUT_USED] = this.#used;
    this.#boxWords[BOX.MORE] = this.#unsent.length > 0 ? 1 : 0;
  }

  /** Bytes of requests that may still wait here; what is left then is for the answers to hooks. */
  get room(): number {
    return REQUESTS_MAX - this.#unsentSize;
  }

  /** Room for one answer with `size` bytes of payload; the payload's offset in `bytes`. Nothing else before `close`. */
  open(kind: number, token: number, argument: number, size: number): number {
    const whole = (ANSWER_HEAD_SIZE + size + 7) & ~7;
    let at = BOX.OUT + this.#used;
    if (this.#unsent.length > 0 || this.#used + whole > BOX.OUT_SIZE) {
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

  close(): void {
    if (this.words === this.#boxWords) {
      this.#used += this.#openSize;
      this.#boxWords[BOX.OUT_USED] = this.#used;
      return;
    }
    this.#unsent.push(this.bytes);
    this.#unsentSize += this.#openSize;
    this.words = this.#boxWords;
    this.bytes = this.#boxBytes;
    this.#boxWords[BOX.MORE] = 1;
  }

  /** Writes a string of chars 0-255; the offset behind it. */
  latin1(text: string, at: number): number {
    const bytes = this.bytes;
    for (let k = 0; k < text.length; k++) bytes[at + k] = text.charCodeAt(k);
    return at + text.length;
  }

  /** One answer of bytes as they are. */
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
