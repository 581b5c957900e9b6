// Hot path: every response is counted by its code.
import type { Cluster, ClusterStats, Counter, Histogram, Stats } from "@tsproxy/sdk";

/** Envoy's names for what cannot happen here (`rq_redirect` does not count redirects there either): people look for them. */
const ALWAYS_ZERO = [
  "passthrough_internal_redirect_bad_location",
  "passthrough_internal_redirect_no_route",
  "passthrough_internal_redirect_predicate",
  "passthrough_internal_redirect_too_many_redirects",
  "passthrough_internal_redirect_unsafe_scheme",
  "rq_overload_local_reply",
  "rq_redirect",
];

/** `http.<stat_prefix>.`: the router's own. */
export class RouterStats {
  readonly noCluster: Counter;
  readonly noRoute: Counter;
  readonly rqDirectResponse: Counter;
  readonly rqResetAfterDownstreamResponseStarted: Counter;
  readonly rqTotal: Counter;

  constructor(stats: Stats) {
    this.noCluster = stats.counter("no_cluster");
    this.noRoute = stats.counter("no_route");
    this.rqDirectResponse = stats.counter("rq_direct_response");
    this.rqResetAfterDownstreamResponseStarted = stats.counter(
      "rq_reset_after_downstream_response_started",
    );
    this.rqTotal = stats.counter("rq_total");
    for (const name of ALWAYS_ZERO) stats.counter(name);
  }
}

/** The counters of one code, of one origin. */
class CodeCells {
  readonly #code: Counter;
  readonly #class: Counter;

  constructor(stats: Stats, status: number) {
    this.#code = stats.counter(`upstream_rq_${status}`);
    this.#class = stats.counter(`upstream_rq_${(status / 100) | 0}xx`);
  }
  inc(): void {
    this.#code.inc();
    this.#class.inc();
  }
}

/** `upstream_rq_<code>`, `_<n>xx`, `_completed` and `_time` of one origin: all clients, or internal or external ones. */
class Origin {
  readonly #stats: Stats;
  readonly #codes: (CodeCells | undefined)[] = new Array(1000).fill(undefined);
  readonly #completed: Counter;
  #time: Histogram | undefined = undefined;

  constructor(stats: Stats) {
    this.#stats = stats;
    this.#completed = stats.counter("upstream_rq_completed");
  }
  count(status: number): void {
    if (status < 100 || status > 999) return;
    let cells = this.#codes[status];
    if (cells === undefined) {
      cells = new CodeCells(this.#stats, status);
      this.#codes[status] = cells;
    }
    cells.inc();
    this.#completed.inc();
  }
  time(ms: number): void {
    this.#time ??= this.#stats.histogram("upstream_rq_time", "ms");
    this.#time.record(Math.floor(ms));
  }
}

/** What the router counts in a cluster. Names appear when they are first used, as in Envoy. */
export class ClusterCharges {
  readonly traffic: ClusterStats;
  readonly #stats: Stats;
  #all: Origin | undefined = undefined;
  #internal: Origin | undefined = undefined;
  #external: Origin | undefined = undefined;

  constructor(cluster: Cluster) {
    this.traffic = cluster.traffic;
    this.#stats = cluster.stats;
  }

  response(status: number, internal: boolean): void {
    this.#all ??= new Origin(this.#stats);
    this.#all.count(status);
    this.#of(internal).count(status);
  }

  time(ms: number, internal: boolean): void {
    this.#all ??= new Origin(this.#stats);
    this.#all.time(ms);
    this.#of(internal).time(ms);
  }

  #of(internal: boolean): Origin {
    if (internal) {
      this.#internal ??= new Origin(this.#stats.scope("internal."));
      return this.#internal;
    }
    this.#external ??= new Origin(this.#stats.scope("external."));
    return this.#external;
  }
}
