import type { Drain } from "@tsproxy/sdk";

/**
 * Envoy's two strategies. Gradual: that a response is its connection's last is the likelier the more of the drain time has passed, so
 * that clients do not all come back in the same moment. Immediate: every response is.
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
