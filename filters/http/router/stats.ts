// Hot path: every response is counted by its code.
import {
  type Cluster,
  type ClusterStats,
  type Counter,
  type Histogram,
  type Runtime,
  RuntimeInteger,
  type Stats,
} from "@tsproxy/sdk";

/** Envoy's stats that stay 0 here, for dashboards that expect them. (Envoy's `rq_redirect` does not count redirects either.) */
const ALWAYS_ZERO = ["rq_overload_local_reply", "rq_redirect"];

/** `http.<stat_prefix>.`: stats of the router itself. */
export class RouterStats {
  readonly noCluster: Counter;
  readonly noRoute: Counter;
  readonly rqDirectResponse: Counter;
  readonly rqResetAfterDownstreamResponseStarted: Counter;
  readonly rqTotal: Counter;
  readonly redirectBadLocation: Counter;
  readonly redirectNoRoute: Counter;
  readonly redirectPredicate: Counter;
  readonly redirectTooMany: Counter;
  readonly redirectUnsafeScheme: Counter;

  constructor(stats: Stats) {
    const redirect = (why: string) => stats.counter(`passthrough_internal_redirect_${why}`);
    this.redirectBadLocation = redirect("bad_location");
    this.redirectNoRoute = redirect("no_route");
    this.redirectPredicate = redirect("predicate");
    this.redirectTooMany = redirect("too_many_redirects");
    this.redirectUnsafeScheme = redirect("unsafe_scheme");
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

/** Counters of one response code and of its class, for one Origin. */
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

/** `upstream_rq_<code>`, `_<n>xx`, `_unknown`, `_completed` and `_time` of one group of requests (all, of internal clients, of a zone …). */
class Origin {
  readonly #stats: Stats;
  readonly #codes: (CodeCells | undefined)[] = new Array(600).fill(undefined);
  readonly #completed: Counter;
  #time: Histogram | undefined = undefined;

  constructor(stats: Stats) {
    this.#stats = stats;
    this.#completed = stats.counter("upstream_rq_completed");
  }
  count(status: number, withoutCode: boolean): void {
    this.#completed.inc();
    if (withoutCode) return;
    // Envoy has five classes, and counts all codes beyond them as one.
    if (status < 100 || status > 599) {
      this.#stats.counter("upstream_rq_unknown").inc();
      return;
    }
    let cells = this.#codes[status];
    if (cells === undefined) {
      cells = new CodeCells(this.#stats, status);
      this.#codes[status] = cells;
    }
    cells.inc();
  }
  time(ms: number): void {
    this.#time ??= this.#stats.histogram("upstream_rq_time", "ms");
    this.#time.record(Math.floor(ms));
  }
}

/** `cluster.<name>.`: stats of retries, per-try timeouts and internal redirects. Made when first needed. */
export class RetryStats {
  readonly retry: Counter;
  readonly success: Counter;
  readonly limitExceeded: Counter;
  readonly overflow: Counter;
  readonly backOffExponential: Counter;
  readonly backOffRateLimited: Counter;
  readonly perTryTimeout: Counter;
  readonly perTryIdleTimeout: Counter;
  readonly maxDurationReached: Counter;
  readonly abandoned: Counter;
  readonly redirectSucceeded: Counter;
  readonly redirectFailed: Counter;
  readonly #stats: Stats;
  /** Responses that were dropped for a retry. */
  #responses: Origin | undefined = undefined;

  constructor(stats: Stats) {
    this.#stats = stats;
    this.retry = stats.counter("upstream_rq_retry");
    this.success = stats.counter("upstream_rq_retry_success");
    this.limitExceeded = stats.counter("upstream_rq_retry_limit_exceeded");
    this.overflow = stats.counter("upstream_rq_retry_overflow");
    this.backOffExponential = stats.counter("upstream_rq_retry_backoff_exponential");
    this.backOffRateLimited = stats.counter("upstream_rq_retry_backoff_ratelimited");
    this.perTryTimeout = stats.counter("upstream_rq_per_try_timeout");
    this.perTryIdleTimeout = stats.counter("upstream_rq_per_try_idle_timeout");
    this.maxDurationReached = stats.counter("upstream_rq_max_duration_reached");
    this.abandoned = stats.counter("retry_or_shadow_abandoned");
    this.redirectSucceeded = stats.counter("upstream_internal_redirect_succeeded_total");
    this.redirectFailed = stats.counter("upstream_internal_redirect_failed_total");
  }

  retried(status: number, withoutCode: boolean): void {
    this.#responses ??= new Origin(this.#stats.scope("retry."));
    this.#responses.count(status, withoutCode);
  }
}

/** Limit of names that clients introduce with `x-envoy-upstream-alt-stat-name`: stats are never freed. */
const ALT_NAMES = 64;

/** By what the stats of a response are split. */
export interface Answered {
  readonly internal: boolean;
  readonly canary: boolean;
  /** Zone of the host; "": unknown. */
  readonly zone: string;
  /** `suppress_grpc_request_failure_code_stats`: the code itself is not counted. */
  readonly withoutCode: boolean;
}

/** What the router counts for one cluster. As in Envoy, a stat appears when it is first used. */
export class ClusterCharges {
  readonly traffic: ClusterStats;
  readonly #stats: Stats;
  readonly #alt = new Map<string, Origins>();
  readonly #ownZone: string;
  readonly #main: Origins;
  #retries: RetryStats | undefined = undefined;

  /** Percentage of requests that are turned away: runtime `upstream.maintenance_mode.<cluster>`. */
  readonly #maintenance: RuntimeInteger;
  #turnedAway: Counter | undefined = undefined;

  /** `ownZone`: zone of this proxy; "": unknown. */
  constructor(cluster: Cluster, runtime: Runtime, ownZone: string) {
    const runtime_key = `upstream.maintenance_mode.${cluster.name}`;
    this.#maintenance = new RuntimeInteger({ default_value: 0, runtime_key }, runtime);
    this.traffic = cluster.traffic;
    this.#stats = cluster.stats;
    this.#ownZone = ownZone;
    this.#main = new Origins(cluster.stats, ownZone);
  }

  get retries(): RetryStats {
    this.#retries ??= new RetryStats(this.#stats);
    return this.#retries;
  }

  /** Decides, and counts, whether the maintenance mode turns this request away. */
  turnsAway(): boolean {
    const percent = this.#maintenance.value;
    if (percent === 0 || Math.random() * 100 >= percent) return false;
    this.#turnedAway ??= this.#stats.counter("upstream_rq_maintenance_mode");
    this.#turnedAway.inc();
    return true;
  }

  /** Counts that reading from the upstream stops because the client is too slow (true), or goes on (false). */
  responseBlocked(blocked: boolean): void {
    const what = blocked ? "paused" : "resumed";
    this.#stats.counter(`upstream_flow_control_${what}_reading_total`).inc();
  }

  /** Counts a response. `altName`: name from `x-envoy-upstream-alt-stat-name`; as in Envoy an empty one is a name too. */
  response(status: number, answered: Answered, altName: string | undefined): void {
    this.#main.response(status, answered);
    if (altName !== undefined) this.#altOf(altName)?.response(status, answered);
  }

  time(ms: number, answered: Answered, altName: string | undefined): void {
    this.#main.time(ms, answered);
    if (altName !== undefined) this.#altOf(altName)?.time(ms, answered);
  }

  /** Undefined: clients have introduced too many names. */
  #altOf(name: string): Origins | undefined {
    let origins = this.#alt.get(name);
    if (origins === undefined && this.#alt.size < ALT_NAMES) {
      origins = new Origins(this.#stats.scope(`${name}.`), this.#ownZone);
      this.#alt.set(name, origins);
    }
    return origins;
  }
}

/** Stats of one virtual cluster, or of one route with a `stat_prefix`; not split further. */
export class VirtualCharges {
  readonly total: Counter;
  readonly timeout: Counter;
  readonly retry: Counter;
  readonly retryLimitExceeded: Counter;
  readonly retryOverflow: Counter;
  readonly retrySuccess: Counter;
  readonly #all: Origin;

  constructor(stats: Stats) {
    this.total = stats.counter("upstream_rq_total");
    this.timeout = stats.counter("upstream_rq_timeout");
    this.retry = stats.counter("upstream_rq_retry");
    this.retryLimitExceeded = stats.counter("upstream_rq_retry_limit_exceeded");
    this.retryOverflow = stats.counter("upstream_rq_retry_overflow");
    this.retrySuccess = stats.counter("upstream_rq_retry_success");
    this.#all = new Origin(stats);
  }
  response(status: number, withoutCode: boolean): void {
    this.#all.count(status, withoutCode);
  }
  time(ms: number): void {
    this.#all.time(ms);
  }
}

/** Stats of responses, split by internal or external client, canary host and zone. */
class Origins {
  readonly #stats: Stats;
  #all: Origin | undefined = undefined;
  #internal: Origin | undefined = undefined;
  #external: Origin | undefined = undefined;
  #canary: Origin | undefined = undefined;
  readonly #ownZone: string;
  /** By the host's zone. */
  readonly #zones = new Map<string, Origin>();

  constructor(stats: Stats, ownZone: string) {
    this.#stats = stats;
    this.#ownZone = ownZone;
  }

  response(status: number, answered: Answered): void {
    const { internal, canary, withoutCode } = answered;
    this.#all ??= new Origin(this.#stats);
    this.#all.count(status, withoutCode);
    if (canary) this.#ofCanary().count(status, withoutCode);
    this.#of(internal).count(status, withoutCode);
    if (this.#ownZone !== "") this.#toZone(answered.zone)?.count(status, withoutCode);
  }

  time(ms: number, answered: Answered): void {
    const { internal, canary } = answered;
    this.#all ??= new Origin(this.#stats);
    this.#all.time(ms);
    if (canary) this.#ofCanary().time(ms);
    this.#of(internal).time(ms);
    if (this.#ownZone !== "") this.#toZone(answered.zone)?.time(ms);
  }

  /** `zone.<own zone>.<host's zone>.`; undefined: the host's zone is unknown. */
  #toZone(zone: string): Origin | undefined {
    if (zone === "") return undefined;
    let origin = this.#zones.get(zone);
    if (origin === undefined) {
      origin = new Origin(this.#stats.scope(`zone.${this.#ownZone}.${zone}.`));
      this.#zones.set(zone, origin);
    }
    return origin;
  }

  #ofCanary(): Origin {
    this.#canary ??= new Origin(this.#stats.scope("canary."));
    return this.#canary;
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
