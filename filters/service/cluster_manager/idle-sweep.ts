import type { SetupContext, Timer } from "@tsproxy/sdk";
import type { UpstreamHost } from "./host.ts";

/** Closes the connections of a cluster that have been idle for `idle_timeout`. */
export class IdleSweep {
  readonly #cx: SetupContext;
  /** 0: connections may be idle for ever. */
  readonly #timeoutMs: number;
  readonly #hosts: () => readonly UpstreamHost[];
  readonly #timer: Timer;
  #running = false;

  constructor(cx: SetupContext, timeoutMs: number, hosts: () => readonly UpstreamHost[]) {
    this.#cx = cx;
    this.#timeoutMs = timeoutMs;
    this.#hosts = hosts;
    this.#timer = cx.timer(() => this.#onTimer());
  }

  /** Starts the timer unless it is running; called when a connection becomes idle. */
  begin(): void {
    if (this.#running || this.#timeoutMs === 0) return;
    this.#running = true;
    this.#timer.arm(this.#timeoutMs);
  }

  cancel(): void {
    this.#timer.cancel();
  }

  #onTimer(): void {
    const now = this.#cx.now();
    let next = -1;
    for (const host of this.#hosts()) {
      for (const pool of host.pools) {
        const since = pool.sweep(now - this.#timeoutMs);
        if (since >= 0 && (next < 0 || since < next)) next = since;
      }
    }
    this.#running = next >= 0;
    if (next >= 0) this.#timer.arm(Math.max(1, next + this.#timeoutMs - now));
  }
}
