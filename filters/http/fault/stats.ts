import type { Counter, Gauge, SetupContext, Stats } from "@tsproxy/sdk";

/** Clients choose the name of their cluster: past this many names, and for longer ones, there are no counters. */
const CLUSTERS_MAX = 256;
const NAME_MAX = 128;

/** `http.<stat_prefix>.fault.<cluster>.`: a counter appears with its first count. */
class ClusterCounters {
  readonly #stats: Stats;
  readonly #cluster: string;
  #aborts: Counter | undefined = undefined;
  #delays: Counter | undefined = undefined;

  constructor(stats: Stats, cluster: string) {
    this.#stats = stats;
    this.#cluster = cluster;
  }

  get aborts(): Counter {
    return (this.#aborts ??= this.#stats.counter(`${this.#cluster}.aborts_injected`));
  }
  get delays(): Counter {
    return (this.#delays ??= this.#stats.counter(`${this.#cluster}.delays_injected`));
  }
}

/** `http.<stat_prefix>.fault.` */
export class FaultStats {
  readonly aborts: Counter;
  readonly delays: Counter;
  readonly rateLimits: Counter;
  readonly overflow: Counter;
  readonly active: Gauge;
  readonly #stats: Stats;
  readonly #clusters = new Map<string, ClusterCounters>();

  constructor(cx: SetupContext) {
    this.#stats = cx.stats.scope(`${cx.statPrefix ?? ""}fault.`);
    this.aborts = this.#stats.counter("aborts_injected");
    this.delays = this.#stats.counter("delays_injected");
    this.rateLimits = this.#stats.counter("response_rl_injected");
    this.overflow = this.#stats.counter("faults_overflow");
    this.active = this.#stats.gauge("active_faults");
  }

  /** Undefined: that name gets no counters. */
  of(cluster: string): ClusterCounters | undefined {
    let counters = this.#clusters.get(cluster);
    if (counters === undefined) {
      if (this.#clusters.size >= CLUSTERS_MAX || cluster.length > NAME_MAX) return undefined;
      counters = new ClusterCounters(this.#stats, cluster);
      this.#clusters.set(cluster, counters);
    }
    return counters;
  }
}
