import { latin1Decode } from "@tsproxy/sdk";
import { type Parked, type ParkedUse, type ParkTable, recordSize } from "./parked.ts";
import {
  ANSWER,
  ANSWER_HEAD,
  ANSWER_HEAD_SIZE,
  KIND,
  RECORD,
  RECORD_FLAG,
  STATUS,
  VERDICT,
  VERDICT_TYPE,
} from "./sandbox/layout.ts";

/** Isolates that a question may see end before they have begun with it. */
const TIMES_MAX = 16;
/** Longest text of a question. */
export const ASK_TEXT_MAX = 60 * 1024;

/**
 * Asks a sandboxed package one question at a time: JSON in ASCII and bytes go in, JSON comes back. For kinds that are not called for
 * every stream or read (listener filters, access logs).
 */
export class ParkedAsk implements Parked {
  readonly #parked: ParkedUse;
  readonly #table: ParkTable;
  readonly #onAnswer: (text: string | undefined, skip: boolean) => void;
  #token = 0;
  #question: { readonly text: string; readonly bytes: Uint8Array } | undefined = undefined;
  /** Number of times that the question had to be sent again. */
  #times = 0;
  #isWaiting = false;
  #isOver = false;

  /** `onAnswer` gets undefined if there is no answer; `skip`: the failure policy says to go on without the filter. */
  constructor(
    parked: ParkedUse,
    table: ParkTable,
    onAnswer: (text: string | undefined, skip: boolean) => void,
  ) {
    this.#parked = parked;
    this.#table = table;
    this.#onAnswer = onAnswer;
  }

  /** Only after the last question was answered. `text`: ASCII, at most ASK_TEXT_MAX chars; `bytes`: at most RANGE_MAX. */
  ask(text: string, bytes: Uint8Array): void {
    if (this.#token === 0) this.#token = this.#table.acquire(this);
    this.#question = { text, bytes };
    this.#times = 0;
    if (this.#token === 0) this.#answered(undefined, false);
    else if (!this.#send()) this.#table.wait(this);
  }

  retry(): boolean {
    return this.#isOver || this.#send();
  }

  #send(): boolean {
    const { text, bytes } = this.#question!;
    const { ports } = this.#table;
    const whole = recordSize(text.length, bytes.length);
    // CREATE every time: the isolate may have been replaced since the last question.
    const flags = RECORD_FLAG.CREATE | RECORD_FLAG.ANSWER;
    const w = this.#table.begin(whole, KIND.ASK, flags, this.#token, this.#parked.use);
    if (w < 0) return false;
    ports.words[w + RECORD.ARGUMENT] = text.length;
    ports.words[w + RECORD.RANGE_SIZE] = bytes.length;
    const at = (w + RECORD.PAYLOAD) * 4;
    for (let k = 0; k < text.length; k++) ports.memory[at + k] = text.charCodeAt(k);
    ports.memory.set(bytes, w * 4 + recordSize(text.length, 0));
    this.#isWaiting = true;
    this.#table.send(this.#parked.box, this.#token, whole);
    return true;
  }

  onVerdict(_lane: number, at: number, size: number, status: number): void {
    if (this.#isOver || !this.#isWaiting) return;
    if (status === STATUS.AGAIN && ++this.#times <= TIMES_MAX) {
      if (!this.#send()) this.#table.wait(this);
      return;
    }
    if (status !== 0) {
      const isUnanswered = status === STATUS.AGAIN || status === STATUS.LATE;
      const skips = isUnanswered && this.#parked.failsOpen === true;
      this.#answered(undefined, skips || status === STATUS.SKIP);
      return;
    }
    const { words, memory } = this.#table.ports;
    const w = at >> 2;
    const v = w + (ANSWER_HEAD_SIZE >> 2);
    const from = at + ANSWER_HEAD_SIZE + VERDICT.REST * 4;
    const isWhole =
      words[w + ANSWER_HEAD.KIND] === ANSWER.VERDICT &&
      from <= at + size &&
      words[v + VERDICT.BODY] === at + size - from;
    if (!isWhole) this.malformed("an answer that is none");
    else if ((words[v + VERDICT.TYPE]! & 0xff) === VERDICT_TYPE.GO_ON)
      this.#answered(latin1Decode(memory, from, at + size), false);
    else this.#answered(undefined, this.#parked.failsOpen === true);
  }

  /** Reports a malformed answer, and ends the wait if one is open. */
  malformed(reason: string): void {
    this.#table.ports.malformed(this.#parked.box, reason);
    if (this.#isWaiting) this.#answered(undefined, false);
  }

  #answered(text: string | undefined, skip: boolean): void {
    this.#isWaiting = false;
    this.#question = undefined;
    this.#onAnswer(text, skip);
  }

  /** No further questions come. */
  release(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    if (this.#token !== 0) this.#table.release(this.#parked.box, this.#token, undefined);
  }
}
