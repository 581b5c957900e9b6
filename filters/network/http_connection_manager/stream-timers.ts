// Hot path: one object a request, reused with its HcmStream.
import type { RouteAction, SetupContext, Timer } from "@tsproxy/sdk";
import type { Config } from "./config.ts";

/** Limit of the wait for a filter's decision where the stream has no idle timeout. */
const LONGEST_PAUSE_MS = 300_000;

/** The stream, which is told when one of its times is over. */
export interface TimersOwner {
  /** Nothing has passed for `stream_idle_timeout`, or a filter has not decided within it. */
  onIdle(): void;
  onHeadersTimeout(): void;
  onRequestTimeout(): void;
  onMaxDuration(): void;
  /** The next line of a periodic access log is due. */
  onLogDue(): void;
}

/** The clock of one stream: its timeouts, and the sleep of its filters. Timers that few configs need are made when needed. */
export class StreamTimers {
  startedAt = 0;
  readonly #owner: TimersOwner;
  readonly #cx: SetupContext;
  readonly #idle: Timer;
  #activeAt = 0;
  #idleMs = 0;
  #headers: Timer | undefined = undefined;
  #request: Timer | undefined = undefined;
  #duration: Timer | undefined = undefined;
  /** The longest duration is over, and the owner hears of it at the end of the turn. */
  #isOver = false;
  #pause: Timer | undefined = undefined;
  #log: Timer | undefined = undefined;
  #logEveryMs = 0;
  #sleeps: Set<Timer> | undefined = undefined;

  constructor(owner: TimersOwner, cx: SetupContext) {
    this.#owner = owner;
    this.#cx = cx;
    this.#idle = cx.timer(() => this.#onIdle());
  }

  /** Starts all timers; called at the first byte of a request head. */
  begin(config: Config): void {
    this.beginPass(config);
    if (config.request_headers_timeout > 0) {
      this.#headers ??= this.#cx.timer(() => this.#owner.onHeadersTimeout());
      this.#headers.arm(config.request_headers_timeout);
    }
    if (config.request_timeout > 0) {
      this.#request ??= this.#cx.timer(() => this.#owner.onRequestTimeout());
      this.#request.arm(config.request_timeout);
    }
  }

  /** Starts the timers of one pass; called alone for an internal redirect, whose request is complete already. */
  beginPass(config: Config): void {
    this.startedAt = this.#activeAt = this.#cx.now();
    this.#idleMs = config.stream_idle_timeout;
    if (this.#idleMs > 0) this.#idle.arm(this.#idleMs);
    const longest = config.common_http_protocol_options.max_stream_duration;
    if (longest > 0) this.#armDuration(longest);
  }

  /** Milliseconds since the stream began. */
  get elapsed(): number {
    return this.#cx.now() - this.startedAt;
  }

  /** Notes activity. The idle timer is not rearmed: when it fires, it looks how long ago this was. */
  touch(): void {
    this.#activeAt = this.#cx.now();
  }

  #onIdle(): void {
    const left = this.#activeAt + this.#idleMs - this.#cx.now();
    if (left > 0) this.#idle.arm(left);
    else this.#owner.onIdle();
  }

  onHeadRead(): void {
    this.#headers?.cancel();
  }

  /** Ends `request_timeout`: the request is complete, or is being answered before (uploads, tunnels). */
  endRequestLimit(): void {
    this.#request?.cancel();
  }

  /** Applies the route's `idle_timeout` instead of the manager's. */
  limitIdle({ idleTimeoutMs }: RouteAction): void {
    if (idleTimeoutMs === undefined) return;
    this.#idleMs = idleTimeoutMs;
    if (idleTimeoutMs > 0) this.#idle.arm(idleTimeoutMs);
    else this.#idle.cancel();
  }

  /** Applies the route's `max_stream_duration` instead of the manager's. 0: no limit; undefined: the manager's stays. */
  limitDuration(ms: number | undefined): void {
    if (ms === undefined) return;
    this.#isOver = false;
    if (ms === 0) this.#duration?.cancel();
    else if (ms > this.elapsed) this.#armDuration(ms - this.elapsed);
    else this.#endSoon();
  }

  /** At the end of this turn, as in Envoy: its answer comes before any of an upstream. The wheel's next tick may come after one. */
  #endSoon(): void {
    this.#duration?.cancel();
    this.#isOver = true;
    void Promise.resolve().then(() => {
      if (!this.#isOver) return;
      this.#isOver = false;
      this.#owner.onMaxDuration();
    });
  }

  #armDuration(ms: number): void {
    this.#duration ??= this.#cx.timer(() => this.#owner.onMaxDuration());
    this.#duration.arm(ms);
  }

  /** Limits the wait for a filter's decision, until `endPause`. */
  beginPause(): void {
    this.#pause ??= this.#cx.timer(() => this.#owner.onIdle());
    this.#pause.arm(this.#idleMs > 0 ? this.#idleMs : LONGEST_PAUSE_MS);
  }

  endPause(): void {
    this.#pause?.cancel();
  }

  logEvery(ms: number): void {
    this.#logEveryMs = ms;
    this.#log ??= this.#cx.timer(() => {
      this.#owner.onLogDue();
      this.#log!.arm(this.#logEveryMs);
    });
    this.#log.arm(ms);
  }

  /** Settles after `ms`, or never if the stream ends before. */
  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const sleeps = (this.#sleeps ??= new Set());
      const timer = this.#cx.timer(() => {
        sleeps.delete(timer);
        resolve();
      });
      sleeps.add(timer);
      timer.arm(ms);
    });
  }

  cancel(): void {
    this.#idle.cancel();
    this.#headers?.cancel();
    this.#request?.cancel();
    this.#duration?.cancel();
    this.#isOver = false;
    this.#pause?.cancel();
    this.#log?.cancel();
    if (this.#sleeps === undefined) return;
    for (const timer of this.#sleeps) timer.cancel();
    this.#sleeps = undefined;
  }
}
