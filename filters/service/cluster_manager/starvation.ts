import type { SetupContext, Timer } from "@tsproxy/sdk";
import type { Pool } from "./pool.ts";

/** Interval of trying again, as another worker may have closed a connection. */
const LOOK_MS = 16;
/** Interval of asking the other workers again. */
const ASK_MS = 200;

export const starvingTopic = (cluster: string): string => `cluster/${cluster}/starving`;

/**
 * Tracks the pools of a cluster in which requests wait because `max_connections` is reached by connections to other hosts or
 * of other workers. Asks all workers to close an idle connection and opens a new one when there is room.
 * Goes on after the cluster has been replaced, until the requests that wait in its pools have ended.
 */
export class Starvation {
  readonly #topic: string;
  readonly #cx: SetupContext;
  readonly #pools: () => readonly Pool[];
  readonly #starving = new Set<Pool>();
  readonly #timer: Timer;
  #askedAt = 0;
  #subscribed = false;

  /** `pools`: the cluster's pools on this worker. */
  constructor(cluster: string, cx: SetupContext, pools: () => readonly Pool[]) {
    this.#topic = starvingTopic(cluster);
    this.#cx = cx;
    this.#pools = pools;
    this.#timer = cx.timer(() => this.#look());
  }

  /** Subscribes to other workers' requests; only for clusters with `max_connections`, on workers. */
  listen(): void {
    if (this.#subscribed) return;
    this.#subscribed = true;
    this.#cx.subscribe(this.#topic, () => this.#yield());
  }

  /** Called when a pool begins or ceases to starve. */
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

  /** Called when a connection of this worker has closed. */
  onRoom(): void {
    if (this.#starving.size > 0) this.#timer.arm(1);
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

  /** Closes one idle connection, if there is one and a pool of any worker still starves. */
  #yield(): void {
    for (const pool of this.#pools()) {
      if (pool.breaker.exact && pool.breaker.starving.value > 0 && pool.closeIdle()) return;
    }
  }
}
