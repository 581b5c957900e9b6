// Hot path: every stream makes up to two lanes for each sandboxed filter.
import type { Chunk, HeaderMap, LastChunk, PromptAnswer, Verdict } from "@tsproxy/sdk";
import type { Gate } from "./gate.ts";
import { KIND } from "./sandbox/layout.ts";

type Answer = Verdict | LastChunk;

/**
 * One direction of a stream in one sandboxed filter, and the promise that its hook returned. Reused for hook after hook: `begin`,
 * then `settle` with the verdict. Unlike a Promise it calls back at once in `settle`, not in a microtask.
 */
export class Lane implements PromptAnswer {
  kind = 0;
  busy = false;
  /** The gate that has its record, and the number of the entry that will answer it. Undefined: core has it, or no record is under way. */
  gate: Gate | undefined = undefined;
  entry = 0;
  endStream = false;
  map: HeaderMap | undefined = undefined;
  chunk: Chunk | undefined = undefined;
  /** The head has not gone on: the filter's last verdict on it was `hold`. */
  held = false;
  /** The hold buffers the whole body, and (`holdsTrailers`) waits for the trailers too. */
  holdsBody = false;
  holdsTrailers = false;
  /** Size of the held body once the body hook has answered; -1 before. */
  bodySize = -1;
  /** For a chunk sent in PARTs: a copy of it, bytes of it already sent, and PARTs of the answer that have come. */
  sending: Uint8Array | undefined = undefined;
  sent = 0;
  received: Uint8Array[] | undefined = undefined;
  receivedSize = 0;
  #onSettled: ((verdict: Answer) => void) | undefined = undefined;
  #onLate: (() => void) | undefined = undefined;
  #settled = false;
  #verdict: Answer = undefined;

  begin(
    kind: number,
    map: HeaderMap | undefined,
    chunk: Chunk | undefined,
    endStream: boolean,
  ): void {
    this.kind = kind;
    this.busy = true;
    this.map = map;
    this.chunk = chunk;
    this.endStream = endStream;
    this.gate = undefined;
    this.sending = this.received = undefined;
    this.sent = this.receivedSize = 0;
    this.#onSettled = this.#onLate = undefined;
    this.#settled = false;
    this.#verdict = undefined;
  }

  /** The isolate has ended: the record is sent anew, from its beginning. */
  again(): void {
    this.gate = this.sending = this.received = undefined;
    this.sent = this.receivedSize = 0;
  }

  waitAt(gate: Gate): void {
    this.gate = gate;
    this.entry = gate.next;
  }

  get isTrailers(): boolean {
    return this.kind === KIND.REQUEST_TRAILERS || this.kind === KIND.RESPONSE_TRAILERS;
  }

  settle(verdict: Answer): void {
    this.busy = false;
    this.gate = undefined;
    this.#onLate = undefined;
    this.map = undefined;
    this.chunk = undefined;
    this.sending = this.received = undefined;
    const call = this.#onSettled;
    if (call === undefined) {
      this.#settled = true;
      this.#verdict = verdict;
      return;
    }
    this.#onSettled = undefined;
    call(verdict);
  }

  /** The stream has ended: nobody is called back. */
  drop(): void {
    this.busy = false;
    this.gate = undefined;
    this.#onLate = this.#onSettled = undefined;
  }

  /** `call` runs once it is known that the gate has no answer in this crossing; at once if no gate has the record. */
  onLate(call: () => void): void {
    if (this.gate === undefined) call();
    else this.#onLate = call;
  }

  /** The gate was entered, or the crossing has ended, without an answer; core will bring it. */
  leaveGate(): void {
    const call = this.#onLate;
    this.gate = undefined;
    this.#onLate = undefined;
    call?.();
  }

  // biome-ignore lint/suspicious/noThenProperty: the chain walks on in the very call that brings the verdict.
  then<A = Answer, B = never>(
    onFulfilled?: ((value: Answer) => A | PromiseLike<A>) | null,
    _onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): PromiseLike<A | B> {
    if (onFulfilled !== undefined && onFulfilled !== null) {
      if (this.#settled) onFulfilled(this.#verdict);
      else this.#onSettled = onFulfilled as (verdict: Answer) => void;
    }
    return this as unknown as PromiseLike<A | B>;
  }
}
