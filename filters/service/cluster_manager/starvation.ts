import type { SetupContext, Timer } from "@tsproxy/sdk";
import type { Pool } from "./pool.ts";

/** How soon a connection that another worker has closed is noticed. */
const LOOK_MS = 16;
/** How often the others are asked again. */
const ASK_MS = 200;

/**
 * Pools of one cluster in which requests wait, because all connections that the config allows are open elsewhere: to another
 * host, or in another worker. Whoever has an idle one is asked to close it, and its place is taken when it is free.
 */
export class Starvation {
  readonly #topic: string;
  readonly #cx: SetupContext;
  readonly #pools: () => readonly Pool[];
  readonly #starving = new Set<Pool>();
  readonly #timer: Timer;
  #askedAt = 0;
  #subscribed = false;

  /** `pools`: all of the cluster, on this worker. */
  constructor(cluster: string, cx: SetupContext, pools: () => readonly Pool[]) {
    this.#topic = `cluster/${cluster}/starving`;
    this.#cx = cx;
    this.#pools = pools;
    this.#timer = cx.timer(() => this.#look());
  }

  /** Only clusters whose config limits connections have anybody to ask. */
  listen(): void {
    if (this.#subscribed) return;
    this.#subscribed = true;
    this.#cx.subscribe(this.#topic, () => this.#yield());
  }

  note(pool: Pool, starving: boolean): void {
    const { starving: count } = pool.breaker;
    if (!starving) {
      if (this.#starving.delete(pool)) count.release();
      return;
    }
    this.#starving.add(pool);
    count.acquire();
    if (!this.#timer.armed) this.#timer.arm(LOOK_MS);
    this.#ask();
  }

  /** A connection of this worker is gone. */
  onRoom(): void {
    if (this.#starving.size > 0) this.#timer.arm(1);
  }

  end(): void {
    this.#timer.cancel();
    for (const pool of [...this.#starving]) this.note(pool, false);
  }

  #look(): void {
    for (const pool of [...this.#starving]) pool.openMore();
    if (this.#starving.size === 0) return;
    this.#timer.arm(LOOK_MS);
    if (this.#cx.now() - this.#askedAt >= ASK_MS) this.#ask();
  }

  #ask(): void {
    this.#askedAt = this.#cx.now();
    this.#yield();
    if (this.#subscribed) this.#cx.publish(this.#topic, this.#askedAt);
  }

  /** Gives an idle connection up, if there is one and somebody still needs it. */
  #yield(): void {
    for (const pool of this.#pools()) {
      if (pool.breaker.exact && pool.breaker.starving.value > 0 && pool.closeIdle()) return;
    }
  }
}
