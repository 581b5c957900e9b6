import type { Counter, Gauge, SetupContext, Stats } from "@tsproxy/sdk";

/** Clients choose the name of their cluster; past so many, or longer, it gets no counters of its own. */
const CLUSTERS_MAX = 256;
const NAME_MAX = 128;

/** `http.<stat_prefix>.fault.` */
export class FaultStats {
  readonly aborts: Counter;
  readonly delays: Counter;
  readonly rateLimits: Counter;
  readonly overflow: Counter;
  readonly active: Gauge;
  readonly #stats: Stats;
  readonly #clusters = new Map<string, { readonly aborts: Counter; readonly delays: Counter }>();

  constructor(cx: SetupContext) {
    this.#stats = cx.stats.scope(`${cx.statPrefix ?? ""}fault.`);
    this.aborts = this.#stats.counter("aborts_injected");
    this.delays = this.#stats.counter("delays_injected");
    this.rateLimits = this.#stats.counter("response_rl_injected");
    this.overflow = this.#stats.counter("faults_overflow");
    this.active = this.#stats.gauge("active_faults");
  }

  /** Undefined: none are kept for that name. */
  of(cluster: string): { readonly aborts: Counter; readonly delays: Counter } | undefined {
    let counters = this.#clusters.get(cluster);
    if (counters === undefined) {
      if (this.#clusters.size >= CLUSTERS_MAX || cluster.length > NAME_MAX) return undefined;
      counters = {
        aborts: this.#stats.counter(`${cluster}.aborts_injected`),
        delays: this.#stats.counter(`${cluster}.delays_injected`),
      };
      this.#clusters.set(cluster, counters);
    }
    return counters;
  }
}
