import type { Drain } from "@tsproxy/sdk";

/**
 * Envoy's two drain strategies. Gradual: the probability that a connection is closed after a response rises from 0 to 1 over the drain
 * time `ms`, so that clients do not all reconnect at the same moment. Immediate: every response closes its connection.
 */
export class DrainWindow implements Drain {
  readonly immediate: boolean;
  readonly #ms: number;
  readonly #since: number;
  readonly #now: () => number;

  constructor(options: { readonly ms: number; readonly immediate: boolean }, now: () => number) {
    this.immediate = options.immediate || options.ms <= 0;
    this.#ms = options.ms;
    this.#since = now();
    this.#now = now;
  }

  closes(): boolean {
    return this.immediate || Math.random() * this.#ms < this.#now() - this.#since;
  }
}
