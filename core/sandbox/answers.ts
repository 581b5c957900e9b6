// Hot path: every answer of a sandbox passes here (test/bench/sandbox.ts).
import { ANSWER, ANSWER_HEAD, ANSWER_HEAD_SIZE, BOX, STATUS } from "../inside/sandbox/layout.ts";
import type { Tokens } from "./tokens.ts";

/**
 * Notes (log lines, errors, definitions of stats, lines for files) taken from one batch of answers; further ones are dropped.
 * More than the log lines and errors that a sandbox sends in a second (inside/sandbox/surroundings.ts), and than the definitions of
 * stats that fit in a block: the shortest takes 72 bytes.
 */
const NOTES_A_CROSSING = 1400;

export interface AnswersOwner {
  readonly memory: Buffer;
  place(size: number): number;
  onVerdict(token: number, at: number, size: number): void;
}

/**
 * Takes the answers of one sandbox out of its block and delivers them as events. They are not trusted: sizes are checked, and an
 * answer is delivered only for a token that waits for this sandbox.
 */
export class Answers {
  readonly #owner: AnswersOwner;
  readonly #tokens: Tokens;
  readonly #onNote: (kind: number, text: string) => void;
  readonly #onCall: (kind: number, head: string, bytes: Buffer) => void;
  /** Copies of answers that found no room in the worker's memory. */
  #kept: Buffer[] = [];
  /** Number of answers so far. */
  bytes = 0;

  constructor(
    owner: AnswersOwner,
    tokens: Tokens,
    onNote: (kind: number, text: string) => void,
    onCall: (kind: number, head: string, bytes: Buffer) => void,
  ) {
    this.#onCall = onCall;
    this.#owner = owner;
    this.#tokens = tokens;
    this.#onNote = onNote;
  }

  /** True if answers wait for room. */
  get waits(): boolean {
    return this.#kept.length > 0;
  }

  clear(): void {
    this.#kept = [];
  }

  /** Takes all answers that lie in the sandbox's block. */
  collect(words: Int32Array, bytes: Buffer): void {
    const used = words[BOX.OUT_USED]!;
    words[BOX.OUT_USED] = 0;
    if (used <= 0 || used > BOX.OUT_SIZE || (used & 7) !== 0) return;
    this.bytes += used;
    if (this.#kept.length === 0 && this.#deliver(bytes, words, BOX.OUT, used)) return;
    const copy = Buffer.allocUnsafeSlow(used);
    bytes.copy(copy, 0, BOX.OUT, BOX.OUT + used);
    this.#kept.push(copy);
  }

  /** Tries to deliver waiting answers. False: there is still no room. */
  deliverKept(): boolean {
    while (this.#kept.length > 0) {
      const kept = this.#kept[0]!;
      const words = new Int32Array(kept.buffer, kept.byteOffset, kept.length >> 2);
      if (!this.#deliver(kept, words, 0, kept.length)) return false;
      this.#kept.shift();
    }
    return true;
  }

  /** Copies one answer into the worker's memory and pushes its event. False: there is no room now. */
  #deliver(bytes: Buffer, words: Int32Array, from: number, used: number): boolean {
    const { memory } = this.#owner;
    let to = 0;
    if (isForChain(words, from, used)) {
      to = this.#owner.place(used);
      if (to < 0) return false;
      bytes.copy(memory, to, from, from + used);
    }
    const tokens = this.#tokens;
    let notes = 0;
    for (let at = 0; at + ANSWER_HEAD_SIZE <= used; ) {
      const w = (from + at) >> 2;
      const kind = words[w + ANSWER_HEAD.KIND]!;
      const token = words[w + ANSWER_HEAD.TOKEN]!;
      const size = words[w + ANSWER_HEAD.SIZE]!;
      if (size < 0 || size > used - at - ANSWER_HEAD_SIZE) break;
      const whole = ANSWER_HEAD_SIZE + size;
      switch (kind) {
        case ANSWER.TAKEN:
          break;
        case ANSWER.VERDICT:
          if (!tokens.isWaiting(token)) break;
          tokens.answered(token);
          this.#owner.onVerdict(token, to + at, whole);
          break;
        case ANSWER.PART:
          if (tokens.isWaiting(token)) this.#owner.onVerdict(token, to + at, whole);
          break;
        case ANSWER.ACTION:
          if (tokens.isLive(token)) this.#owner.onVerdict(token, to + at, whole);
          break;
        case ANSWER.ACK:
          if (!tokens.isWaiting(token)) break;
          tokens.answered(token);
          this.#owner.onVerdict(token, 0, -STATUS.ACK);
          break;
        case ANSWER.FETCH:
        case ANSWER.CRYPTO: {
          const textAt = from + at + ANSWER_HEAD_SIZE;
          const end = from + at + whole;
          const textEnd = textAt + words[w + ANSWER_HEAD.ARGUMENT]!;
          if (textEnd < textAt || textEnd > end) break;
          // A copy, because the sandbox may write its block again as soon as this has returned.
          const copy = Buffer.from(bytes.subarray(textEnd, end));
          this.#onCall(kind, bytes.toString("latin1", textAt, textEnd), copy);
          break;
        }
        default:
          if (notes++ >= NOTES_A_CROSSING) break;
          this.#onNote(
            kind,
            bytes.toString("latin1", from + at + ANSWER_HEAD_SIZE, from + at + whole),
          );
      }
      at += (whole + 7) & ~7;
    }
    return true;
  }
}

/** True if any answer needs room in the worker's memory; nearly always the first one does. */
function isForChain(words: Int32Array, from: number, used: number): boolean {
  for (let at = 0; at + ANSWER_HEAD_SIZE <= used; ) {
    const w = (from + at) >> 2;
    const kind = words[w + ANSWER_HEAD.KIND]!;
    if (kind !== ANSWER.TAKEN && kind <= ANSWER.ACTION) return true;
    const size = words[w + ANSWER_HEAD.SIZE]!;
    if (size < 0 || size > used) return false;
    at += (ANSWER_HEAD_SIZE + size + 7) & ~7;
  }
  return false;
}
