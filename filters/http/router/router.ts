// Hot path: lookups for each request.
import {
  type Cluster,
  type Counter,
  HeaderLine,
  type HttpStream,
  openUpstreamFilters,
  type SetupContext,
  type UpstreamFilter,
  type VirtualCluster,
} from "@tsproxy/sdk";
import type { Config } from "./config.ts";
import { FailureLog } from "./failure-log.ts";
import type { Mirror } from "./mirror.ts";
import { RoutedRequest } from "./routed-request.ts";
import { ClusterCharges, RouterStats, VirtualCharges } from "./stats.ts";
import { UpstreamLog } from "./upstream-log.ts";

/** Limit of RoutedRequest objects that are kept to be reused. */
const REQUESTS_KEPT = 1024;
/** Header lines for service times below this many ms are kept, each made when first needed. */
const TIMES_KEPT = 1000;
/** Limit of `x-envoy-expected-rq-timeout-ms` lines that are kept: routes have few timeouts, but clients may send any. */
const TIMEOUTS_KEPT = 256;

/** One router of the config: what all of its requests share. */
export class Router {
  readonly config: Config;
  readonly cx: SetupContext;
  readonly stats: RouterStats;
  /** Mirrored requests in progress. */
  readonly mirrors = new Set<Mirror>();
  /** `http.async-client.rq_total`, where Envoy counts the requests that it makes itself. */
  readonly mirrored: Counter;
  #mirrorsDropped: Counter | undefined = undefined;
  readonly failures: FailureLog;
  /** Undefined: attempts are not logged. */
  readonly upstreamLog: UpstreamLog | undefined;
  /** Upstream filters for clusters without their own; undefined: none. */
  readonly upstreamFilters: readonly UpstreamFilter[] | undefined;
  readonly #virtual = new WeakMap<VirtualCluster, VirtualCharges>();
  readonly #free: RoutedRequest[] = [];
  /** By the cluster itself: one that is made again under a name has other stats. */
  readonly #charges = new WeakMap<Cluster, ClusterCharges>();
  readonly #serviceTimes: (HeaderLine | undefined)[] = new Array(TIMES_KEPT).fill(undefined);
  readonly #timeouts = new Map<number, HeaderLine>();

  constructor(config: Config, cx: SetupContext) {
    this.config = config;
    this.cx = cx;
    this.upstreamLog =
      (config.upstream_log ?? []).length > 0 ? new UpstreamLog(config, cx) : undefined;
    const chain = config.upstream_http_filters;
    const prefix = cx.statPrefix ?? "http.";
    this.upstreamFilters = openUpstreamFilters(chain, "upstream_http_filters", cx, prefix);
    this.failures = new FailureLog(cx);
    this.mirrored = new RouterStats(cx.stats.scope("http.async-client.")).rqTotal;
    cx.onDispose(() => {
      for (const mirror of this.mirrors) mirror.giveUp();
    });
    this.stats = new RouterStats(cx.stats.scope(cx.statPrefix ?? "http."));
  }

  /** Called for a mirrored request that is not sent, as `most` are in progress. Logged once. */
  onMirrorDropped(cluster: string, most: number): void {
    if (this.#mirrorsDropped === undefined) {
      const { cx } = this;
      this.#mirrorsDropped = cx.stats.scope(cx.statPrefix ?? "http.").counter("rq_mirror_overflow");
      cx.log.warn("mirrored requests are dropped: too many wait for an answer", { cluster, most });
    }
    this.#mirrorsDropped.inc();
  }

  onFilterError(error: unknown, filter: string): void {
    const { message, stack } = error instanceof Error ? error : new Error(String(error));
    this.cx.log.error(`an upstream filter threw: ${message}`, { filter, stack });
  }

  /** Takes or makes the object for a new request. */
  route(stream: HttpStream): RoutedRequest {
    const request = this.#free.pop() ?? new RoutedRequest(this);
    request.begin(stream);
    return request;
  }

  /** Keeps the object of a finished request for another one. */
  giveBack(request: RoutedRequest): void {
    if (this.#free.length < REQUESTS_KEPT) this.#free.push(request);
  }

  charges(cluster: Cluster): ClusterCharges {
    let charges = this.#charges.get(cluster);
    if (charges === undefined) {
      charges = new ClusterCharges(cluster, this.cx.runtime, this.cx.node.locality?.zone ?? "");
      this.#charges.set(cluster, charges);
    }
    return charges;
  }

  /** Stats of those clusters that are not undefined. */
  virtualCharges(...clusters: readonly (VirtualCluster | undefined)[]): readonly VirtualCharges[] {
    return clusters.flatMap((cluster) => (cluster === undefined ? [] : this.#chargesOf(cluster)));
  }

  #chargesOf(cluster: VirtualCluster): VirtualCharges {
    let charges = this.#virtual.get(cluster);
    if (charges === undefined) {
      charges = new VirtualCharges(cluster.stats);
      this.#virtual.set(cluster, charges);
    }
    return charges;
  }

  /** The line `x-envoy-upstream-service-time`. */
  serviceTimeLine(ms: number): HeaderLine {
    const whole = Math.max(0, Math.floor(ms));
    if (whole >= TIMES_KEPT) return serviceTime(whole);
    this.#serviceTimes[whole] ??= serviceTime(whole);
    return this.#serviceTimes[whole];
  }

  expectedTimeoutLine(ms: number): HeaderLine {
    let line = this.#timeouts.get(ms);
    if (line === undefined) {
      line = new HeaderLine("x-envoy-expected-rq-timeout-ms", String(ms));
      if (this.#timeouts.size < TIMEOUTS_KEPT) this.#timeouts.set(ms, line);
    }
    return line;
  }
}

function serviceTime(ms: number): HeaderLine {
  return new HeaderLine("x-envoy-upstream-service-time", String(ms));
}
