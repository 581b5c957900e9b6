import type { SetupContext, Timer } from "@tsproxy/sdk";

/** A timeout is measured in this many parts. */
const PARTS = 5;
/** Delay of a timer that does not count as a blocked thread. */
const SLACK_MS = 30;

/**
 * Timeout of a health check that excludes time in which this thread was blocked (at startup, or while a filter is built):
 * answers are not read then, which must not make a host unhealthy.
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
