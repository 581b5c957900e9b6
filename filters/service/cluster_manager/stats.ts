import type {
  ClusterStats,
  Counter,
  Gauge,
  Histogram,
  StatSet,
  Stats,
  TrackedStats,
} from "@tsproxy/sdk";

/** The stats of one cluster on this worker. */
export class ClusterCells implements ClusterStats {
  readonly rqTotal: Counter;
  readonly rqActive: Gauge;
  readonly rqTimeout: Counter;
  readonly rqCompleted: Counter;
  readonly rqCancelled: Counter;
  readonly rqPendingTotal: Counter;
  readonly rqPendingActive: Gauge;
  readonly rqPendingOverflow: Counter;
  readonly rqActiveOverflow: Counter;
  readonly rqPendingFailureEject: Counter;
  /** This and the next counter are for HTTP/2 only: resetting an HTTP/1 exchange closes its connection. */
  readonly rqRxReset: Counter;
  readonly rqTxReset: Counter;
  readonly rqPerCx: Histogram;
  readonly cxTotal: Counter;
  readonly cxHttp1Total: Counter;
  readonly cxHttp2Total: Counter;
  readonly cxOverflow: Counter;
  readonly cxPoolOverflow: Counter;
  readonly cxActive: Gauge;
  readonly cxConnectFail: Counter;
  readonly cxConnectTimeout: Counter;
  readonly cxConnectMs: Histogram;
  readonly cxLengthMs: Histogram;
  readonly cxDestroy: Counter;
  readonly cxDestroyLocal: Counter;
  readonly cxDestroyRemote: Counter;
  readonly cxDestroyWithActiveRq: Counter;
  readonly cxDestroyLocalWithActiveRq: Counter;
  readonly cxDestroyRemoteWithActiveRq: Counter;
  readonly cxCloseNotify: Counter;
  readonly cxIdleTimeout: Counter;
  readonly cxMaxDuration: Counter;
  readonly cxMaxRequests: Counter;
  readonly cxNoneHealthy: Counter;
  readonly cxProtocolError: Counter;
  readonly cxRxBytes: Counter;
  /** As Envoy counts: what each open connection has read last. */
  readonly cxRxBuffered: Gauge;
  readonly cxTxBytes: Counter;
  readonly cxTxBuffered: Gauge;
  readonly bindErrors: Counter;
  readonly flowControlBackedUp: Counter;
  readonly flowControlDrained: Counter;
  readonly healthyPanic: Counter;

  constructor(stats: Stats) {
    this.rqTotal = stats.counter("upstream_rq_total");
    this.rqActive = stats.gauge("upstream_rq_active");
    this.rqTimeout = stats.counter("upstream_rq_timeout");
    this.rqCompleted = stats.counter("upstream_rq_completed");
    this.rqCancelled = stats.counter("upstream_rq_cancelled");
    this.rqPendingTotal = stats.counter("upstream_rq_pending_total");
    this.rqPendingActive = stats.gauge("upstream_rq_pending_active");
    this.rqActiveOverflow = stats.counter("upstream_rq_active_overflow");
    this.rqPendingOverflow = stats.counter("upstream_rq_pending_overflow");
    this.rqPendingFailureEject = stats.counter("upstream_rq_pending_failure_eject");
    this.rqRxReset = stats.counter("upstream_rq_rx_reset");
    this.rqTxReset = stats.counter("upstream_rq_tx_reset");
    this.rqPerCx = stats.histogram("upstream_rq_per_cx");
    this.cxTotal = stats.counter("upstream_cx_total");
    this.cxHttp1Total = stats.counter("upstream_cx_http1_total");
    this.cxOverflow = stats.counter("upstream_cx_overflow");
    this.cxPoolOverflow = stats.counter("upstream_cx_pool_overflow");
    this.cxHttp2Total = stats.counter("upstream_cx_http2_total");
    this.cxActive = stats.gauge("upstream_cx_active");
    this.cxConnectFail = stats.counter("upstream_cx_connect_fail");
    this.cxConnectTimeout = stats.counter("upstream_cx_connect_timeout");
    this.cxConnectMs = stats.histogram("upstream_cx_connect_ms", "ms");
    this.cxLengthMs = stats.histogram("upstream_cx_length_ms", "ms");
    this.cxDestroy = stats.counter("upstream_cx_destroy");
    this.cxDestroyLocal = stats.counter("upstream_cx_destroy_local");
    this.cxDestroyRemote = stats.counter("upstream_cx_destroy_remote");
    this.cxDestroyWithActiveRq = stats.counter("upstream_cx_destroy_with_active_rq");
    this.cxDestroyLocalWithActiveRq = stats.counter("upstream_cx_destroy_local_with_active_rq");
    this.cxDestroyRemoteWithActiveRq = stats.counter("upstream_cx_destroy_remote_with_active_rq");
    this.cxCloseNotify = stats.counter("upstream_cx_close_notify");
    this.cxIdleTimeout = stats.counter("upstream_cx_idle_timeout");
    this.cxMaxDuration = stats.counter("upstream_cx_max_duration_reached");
    this.cxMaxRequests = stats.counter("upstream_cx_max_requests");
    this.cxNoneHealthy = stats.counter("upstream_cx_none_healthy");
    this.cxProtocolError = stats.counter("upstream_cx_protocol_error");
    this.cxRxBytes = stats.counter("upstream_cx_rx_bytes_total");
    this.cxRxBuffered = stats.gauge("upstream_cx_rx_bytes_buffered");
    this.cxTxBytes = stats.counter("upstream_cx_tx_bytes_total");
    this.cxTxBuffered = stats.gauge("upstream_cx_tx_bytes_buffered");
    this.bindErrors = stats.counter("bind_errors");
    this.flowControlBackedUp = stats.counter("upstream_flow_control_backed_up_total");
    this.flowControlDrained = stats.counter("upstream_flow_control_drained_total");
    this.healthyPanic = stats.counter("lb_healthy_panic");
  }

  onOpened(): void {
    this.cxTotal.inc();
    this.cxActive.inc();
  }

  /** Counts a read. `last`: the size of that connection's read before it. */
  onRead(size: number, last: number): void {
    this.cxRxBytes.add(size);
    this.cxRxBuffered.add(size - last);
  }

  /** Counts a closed connection. `remote`: closed by the peer; `active`: with a request in progress. */
  onDestroyed(remote: boolean, active: boolean): void {
    this.cxDestroy.inc();
    (remote ? this.cxDestroyRemote : this.cxDestroyLocal).inc();
    if (!active) return;
    this.cxDestroyWithActiveRq.inc();
    (remote ? this.cxDestroyRemoteWithActiveRq : this.cxDestroyLocalWithActiveRq).inc();
  }
}

/**
 * Counters that Envoy lists for every cluster and that this package does not count. Updates are counted by the cluster's
 * package; retries, redirects, pauses and maintenance mode by the router; the others stay at 0, as such events do not happen.
 */
const UNMOVED_COUNTERS = [
  "assignment_stale",
  "assignment_timeout_received",
  "assignment_use_cached",
  "lb_local_cluster_not_ok",
  "lb_recalculate_zone_structures",
  "lb_subsets_created",
  "lb_subsets_fallback",
  "lb_subsets_fallback_panic",
  "lb_subsets_removed",
  "lb_subsets_selected",
  "lb_zone_cluster_too_small",
  "lb_zone_no_capacity_left",
  "lb_zone_routing_all_directly",
  "lb_zone_routing_cross_zone",
  "lb_zone_routing_sampled",
  "original_dst_host_invalid",
  "update_attempt",
  "update_empty",
  "update_failure",
  "update_no_rebuild",
  "update_success",
  "upstream_cx_connect_attempts_exceeded",
  "upstream_cx_connect_with_0_rtt",
  "upstream_cx_http3_total",
  "upstream_cx_preconnect_skipped",
  "upstream_flow_control_paused_reading_total",
  "upstream_flow_control_resumed_reading_total",
  "upstream_http3_broken",
  "retry_or_shadow_abandoned",
  "upstream_internal_redirect_failed_total",
  "upstream_internal_redirect_succeeded_total",
  "upstream_rq_0rtt",
  "upstream_rq_maintenance_mode",
  "upstream_rq_max_duration_reached",
  "upstream_rq_per_try_idle_timeout",
  "upstream_rq_per_try_timeout",
  "upstream_rq_retry",
  "upstream_rq_rx_reset_no_error",
  "upstream_rq_retry_backoff_exponential",
  "upstream_rq_retry_backoff_ratelimited",
  "upstream_rq_retry_limit_exceeded",
  "upstream_rq_retry_overflow",
  "upstream_rq_retry_success",
] as const;
const UNMOVED_GAUGES = [
  "lb_subsets_active",
  "max_host_weight",
  "upstream_queue_overloaded",
  "version",
] as const;

/** The names of all stats that every cluster lists. */
export const CLUSTER_STATS = setOf((stats) => {
  new ClusterCells(stats);
  for (const name of UNMOVED_COUNTERS) stats.counter(name);
  for (const name of UNMOVED_GAUGES) stats.gauge(name);
});

/** Collects the names of the stats that `ask` creates. */
function setOf(ask: (stats: Stats) => void): StatSet {
  const counters: string[] = [];
  const gauges: string[] = [];
  const histograms: [name: string, unit: string][] = [];
  const cell = { inc() {}, dec() {}, add() {}, set() {}, record() {} };
  const note = <T>(list: T[], name: T) => {
    list.push(name);
    return cell;
  };
  const of = (prefix: string): Stats => ({
    counter: (name) => note(counters, prefix + name),
    gauge: (name) => note(gauges, prefix + name),
    histogram: (name, unit = "") => note(histograms, [prefix + name, unit]),
    scope: (more) => of(prefix + more),
  });
  ask(of(""));
  return { counters, gauges, histograms };
}

/** The stats of one host, for admin's /clusters. */
export class HostCells {
  readonly cxActive: Gauge;
  readonly cxTotal: Counter;
  readonly cxConnectFail: Counter;
  readonly rqActive: Gauge;
  readonly rqTotal: Counter;
  readonly rqSuccess: Counter;
  readonly rqError: Counter;
  readonly rqTimeout: Counter;
  readonly rqPendingActive: Gauge;

  constructor(stats: Stats, cluster: string, key: string) {
    const cells = stats.scope(`@host|${cluster}|${key}|`);
    this.cxActive = cells.gauge("cx_active");
    this.cxTotal = cells.counter("cx_total");
    this.cxConnectFail = cells.counter("cx_connect_fail");
    this.rqActive = cells.gauge("rq_active");
    this.rqTotal = cells.counter("rq_total");
    this.rqSuccess = cells.counter("rq_success");
    this.rqError = cells.counter("rq_error");
    this.rqTimeout = cells.counter("rq_timeout");
    this.rqPendingActive = cells.gauge("rq_pending_active");
  }
}

/** The router records these; as in Envoy they are listed before there is a request. */
export function listTracked(stats: Stats, tracks: TrackedStats): void {
  if (tracks.timeoutBudgets) {
    stats.histogram("upstream_rq_timeout_budget_percent_used");
    stats.histogram("upstream_rq_timeout_budget_per_try_percent_used");
  }
  if (!tracks.requestResponseSizes) return;
  for (const of of ["upstream_rq", "upstream_rs"]) {
    stats.histogram(`${of}_headers_size`, "bytes");
    stats.histogram(`${of}_headers_count`);
    stats.histogram(`${of}_body_size`, "bytes");
  }
}
