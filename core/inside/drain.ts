import type { Drain } from "@tsproxy/sdk";

/**
 * Envoy's two drain strategies. Gradual: the probability that a connection is closed after a response rises from 0 to 1 over the
 * drain time `ms`, so that clients do not all reconnect at the same moment. Immediate: every response closes its connection.
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
    return this.#always || Math.random() * this.#ms < this.#now() - this.#since;
  }
}
