import type { Drain } from "@tsproxy/sdk";

/** Within this share of the drain time each response comes to be its connection's last. */
const RAMP = 1 / 2;
/** After this share of the drain time connections leave without a response. */
const LEAVING_BEGINS = 2 / 3;

/**
 * Envoy's two drain strategies. Gradual: the probability that a connection is closed after a response rises from 0 to 1, second by
 * second, over the first half of the drain time `ms`, so that clients do not all reconnect at the same moment. Immediate: every
 * response closes its connection. With both, connections that have no response leave in the last third.
 */
export class DrainWindow implements Drain {
  /** True if the drain time is 0: connections begin to close at once, not after their next response. */
  readonly immediate: boolean;
  /** Every response closes its connection. */
  readonly #always: boolean;
  readonly #ms: number;
  readonly #since: number;
  readonly #now: () => number;

  constructor(options: { readonly ms: number; readonly immediate: boolean }, now: () => number) {
    this.immediate = options.ms <= 0;
    this.#always = options.immediate || this.immediate;
    this.#ms = options.ms;
    this.#since = now();
    this.#now = now;
  }

  closes(): boolean {
    if (this.#always) return true;
    const seconds = Math.floor((this.#now() - this.#since) / 1000);
    return Math.random() * Math.ceil((this.#ms * RAMP) / 1000) < seconds;
  }

  leavesIn(graceMs: number): number | undefined {
    const begin = this.#ms * LEAVING_BEGINS;
    const span = this.#ms - graceMs - begin;
    const passed = this.#now() - this.#since;
    return span <= 0 || passed >= begin ? undefined : begin + Math.random() * span - passed;
  }
}
