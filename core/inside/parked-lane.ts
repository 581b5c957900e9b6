// Hot path: two of these a stream and sandboxed filter.
import type { Chunk, HeaderMap, LastChunk, PromptAnswer, Verdict } from "@tsproxy/sdk";
import type { Gate } from "./gate.ts";
import { KIND } from "./sandbox/layout.ts";

type Answer = Verdict | LastChunk;

/** One direction of a stream: the promise that a hook has answered with. It settles in the call that brings the verdict. */
export class Lane implements PromptAnswer {
  kind = 0;
  busy = false;
  /** Where its record is. Undefined: on its way through core, or answered. */
  gate: Gate | undefined = undefined;
  entry = 0;
  endStream = false;
  map: HeaderMap | undefined = undefined;
  chunk: Chunk | undefined = undefined;
  /** The head has not gone on: our last answer to it was Hold. */
  held = false;
  /** All of the body is held with it, and the body waits for the trailers as well. */
  holdsBody = false;
  holdsTrailers = false;
  /** Bytes of a body that is held, once its hook has answered. */
  bodySize = -1;
  /** Of a long chunk: private bytes, how many are sent, what has come back. */
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

  /** Nobody waits any more. */
  drop(): void {
    this.busy = false;
    this.gate = undefined;
    this.#onLate = this.#onSettled = undefined;
  }

  onLate(call: () => void): void {
    if (this.gate === undefined) call();
    else this.#onLate = call;
  }

  /** The gate has been entered, and the answer is not there. */
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
