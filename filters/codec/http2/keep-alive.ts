import type { Timer } from "@tsproxy/sdk";
import { TYPE } from "./frame.ts";
import type { Session } from "./session.ts";

/**
 * `connection_keepalive`: sends PINGs at an interval, and before a new stream on a connection that received nothing for
 * `connection_idle_interval`; closes the connection if the answer is late.
 */
export class KeepAlive {
  readonly #session: Session;
  #interval: Timer | undefined = undefined;
  #pongDue: Timer | undefined = undefined;
  #lastRead: number;

  constructor(session: Session) {
    this.#session = session;
    this.#lastRead = session.cx.now();
    const { keepAlive } = session.options;
    if (keepAlive === undefined || keepAlive.intervalMs === 0) return;
    this.#interval = session.cx.timer(() => this.#onInterval());
    this.#armInterval();
  }

  onRead(): void {
    this.#lastRead = this.#session.cx.now();
  }

  /** Sends a PING if the connection was idle for long; called before a new stream. */
  probeIfIdle(): void {
    const { cx, options } = this.#session;
    const { keepAlive } = options;
    if (keepAlive === undefined || keepAlive.idleMs === 0) return;
    if (cx.now() - this.#lastRead >= keepAlive.idleMs) this.#probe();
  }

  onPong(): void {
    this.#pongDue?.cancel();
    if (this.#interval !== undefined) this.#armInterval();
  }

  stop(): void {
    this.#interval?.cancel();
    this.#pongDue?.cancel();
  }

  #onInterval(): void {
    if (this.#session.dead) return;
    this.#probe();
    this.#session.flush();
  }

  #armInterval(): void {
    const { intervalMs, jitterPercent } = this.#session.options.keepAlive!;
    this.#interval?.arm(intervalMs * (1 + (Math.random() * jitterPercent) / 100));
  }

  #probe(): void {
    if (this.#pongDue?.armed === true) return;
    const { cx, options, out } = this.#session;
    out.head(TYPE.PING, 0, 0, 8);
    out.uint32(0);
    out.uint32(Math.floor(cx.now()) >>> 0);
    this.#pongDue ??= cx.timer(() => this.#onPongMissed());
    this.#pongDue.arm(options.keepAlive!.timeoutMs);
  }

  #onPongMissed(): void {
    const session = this.#session;
    if (session.dead) return;
    session.stats.keepaliveTimeout.inc();
    session.connection.close("abort");
  }
}
