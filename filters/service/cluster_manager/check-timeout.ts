import type { SetupContext, Timer } from "@tsproxy/sdk";

/** Looked at that often within one time-out. */
const PARTS = 5;
/** Timers are that late of themselves. */
const SLACK_MS = 30;

/**
 * The time-out of a check, which counts only time in which this thread ran: while it stands still (the proxy starts, a filter is
 * built) answers lie unread, and a host must not be taken for dead for that.
 */
export class CheckTimeout {
  readonly #cx: Pick<SetupContext, "timer" | "now">;
  readonly #timer: Timer;
  readonly #onTimeout: () => void;
  #leftMs = 0;
  #partMs = 0;
  #since = 0;

  constructor(cx: Pick<SetupContext, "timer" | "now">, onTimeout: () => void) {
    this.#cx = cx;
    this.#onTimeout = onTimeout;
    this.#timer = cx.timer(() => this.#onPart());
  }

  arm(ms: number): void {
    this.#leftMs = ms;
    this.#partMs = Math.max(1, ms / PARTS);
    this.#next();
  }

  cancel(): void {
    this.#timer.cancel();
  }

  #next(): void {
    this.#since = this.#cx.now();
    this.#timer.arm(Math.min(this.#partMs, this.#leftMs));
  }

  #onPart(): void {
    const ms = this.#cx.now() - this.#since;
    this.#leftMs -= ms > this.#partMs + SLACK_MS ? this.#partMs : ms;
    if (this.#leftMs <= 0) this.#onTimeout();
    else this.#next();
  }
}
