// Hot path: one object a request, reused with its RoutedRequest.
import type { Host, HttpStream, ResponseHeaders } from "@tsproxy/sdk";
import type { Attempt } from "./attempt.ts";
import type { Attempts } from "./attempts.ts";
import { RetryState, type RetryStateParts, type RetryVerdict } from "./retry-state.ts";
import type { UpstreamFailure } from "./upstream-failure.ts";

/**
 * The retries of one request: what its policy says about each outcome of an attempt, and whether another attempt is on its way.
 *
 *   outcome ──► no: it is the answer
 *      ├──────► yes: the back-off runs, then `onDue` (RetryStateParts)
 *      └──────► others: it is dropped, for another attempt may still answer (hedging)
 */
export class Retries {
  /** The number of the present attempt; 0: there was none. */
  attempt = 0;
  /** The attempt that is due follows one that has taken too long. */
  afterTimeout = false;
  readonly #attempts: Attempts;
  #stream!: HttpStream;
  #state: RetryState | undefined = undefined;
  /** A retry waits for the end of its back-off. */
  #backingOff = false;

  constructor(attempts: Attempts) {
    this.#attempts = attempts;
  }

  begin(stream: HttpStream): void {
    this.#stream = stream;
    this.#state = undefined;
    this.#backingOff = this.afterTimeout = false;
    this.attempt = 0;
  }

  /** Called if the route or the client asks for retries. False: no outcome can cause one. */
  allow(parts: RetryStateParts): boolean {
    this.#state = new RetryState(parts);
    return this.#state.enabled;
  }

  /** Where a retry may go. Undefined: no retry is possible (any more), or the first attempt, which may go anywhere, is on its way. */
  get choice(): RetryState | undefined {
    return this.attempt > 1 ? this.#state : undefined;
  }

  get possible(): boolean {
    return this.#state !== undefined;
  }

  /** The next attempt begins. */
  next(): void {
    this.#backingOff = false;
    this.#stream.info.attempts = ++this.attempt;
  }

  onHostAttempted(host: Host): void {
    this.#state?.onHostAttempted(host);
  }

  onHead(attempt: Attempt, headers: ResponseHeaders): "no" | "yes" | "others" {
    const state = this.#state!;
    let tooLate: boolean;
    if (attempt.hedged) tooLate = state.wouldRetry(headers);
    else {
      const verdict = state.onHead(headers);
      if (verdict === "yes") {
        this.#await(attempt, false);
        return "yes";
      }
      tooLate = this.#noteVerdict(verdict);
    }
    if (tooLate && this.othersMayAnswer(attempt)) return "others";
    state.end();
    return "no";
  }

  /** True: another attempt follows. `sent`: some attempt has been sent to an upstream. */
  onFailure(attempt: Attempt, failure: UpstreamFailure, sent: boolean, timedOut: boolean): boolean {
    const state = this.#state;
    if (state === undefined || attempt.hedged) return false;
    const verdict = state.onFailure(failure, sent);
    if (verdict === "yes") this.#await(attempt, timedOut);
    else this.#noteVerdict(verdict);
    return verdict === "yes";
  }

  /** Schedules another attempt beside a slow one, which goes on. False: none. */
  hedge(attempt: Attempt): boolean {
    const verdict = this.#state?.onHedge() ?? "no";
    this.#noteVerdict(verdict);
    if (verdict !== "yes") return false;
    attempt.hedged = true;
    this.#backingOff = this.afterTimeout = true;
    return true;
  }

  #await(attempt: Attempt, timedOut: boolean): void {
    this.#attempts.forget(attempt);
    this.#backingOff = true;
    this.afterTimeout = timedOut;
  }

  /** Sets the flag of a retry that a limit prevents. True: there was such a limit. */
  #noteVerdict(verdict: RetryVerdict): boolean {
    if (verdict !== "limit" && verdict !== "overflow") return false;
    const { flags } = this.#stream.info;
    const flag = verdict === "limit" ? "URX" : "UO";
    if (!flags.includes(flag)) flags.push(flag);
    return true;
  }

  /** Whether a response may still come from another attempt, or from a retry. */
  othersMayAnswer(attempt: Attempt): boolean {
    return this.#backingOff || this.#attempts.othersThan(attempt);
  }

  /** No more retries follow. */
  end(): void {
    this.#state?.end();
    this.#state = undefined;
    this.#backingOff = false;
  }
}
