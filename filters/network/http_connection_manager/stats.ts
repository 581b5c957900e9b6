import type { Counter, Gauge, Histogram, Stats } from "@tsproxy/sdk";

/** Envoy's stats that stay 0 here, for dashboards that expect them. */
const ALWAYS_ZERO = [
  "downstream_cx_http3_total",
  "downstream_cx_overload_disable_keepalive",
  "downstream_rq_http3_total",
  "downstream_rq_overload_close",
  ...["client_enabled", "not_traceable", "random_sampling", "service_forced"].map(
    (name) => `tracing.${name}`,
  ),
];
const ALWAYS_ZERO_GAUGES = ["downstream_cx_http1_soft_drain", "downstream_cx_http3_active"];

/** `http.<stat_prefix>.`: Envoy's http_conn_man stats. */
export class HcmStats {
  readonly cxTotal: Counter;
  readonly cxHttp1Total: Counter;
  readonly cxHttp2Total: Counter;
  readonly cxSslTotal: Counter;
  readonly cxActive: Gauge;
  readonly cxHttp1Active: Gauge;
  readonly cxHttp2Active: Gauge;
  readonly cxSslActive: Gauge;
  readonly cxDestroy: Counter;
  readonly cxDestroyLocal: Counter;
  readonly cxDestroyRemote: Counter;
  readonly cxDestroyActiveRq: Counter;
  readonly cxDestroyLocalActiveRq: Counter;
  readonly cxDestroyRemoteActiveRq: Counter;
  readonly cxDelayedCloseTimeout: Counter;
  readonly cxDrainClose: Counter;
  readonly cxMaxDurationReached: Counter;
  readonly cxIdleTimeout: Counter;
  readonly cxMaxRequestsReached: Counter;
  readonly cxProtocolError: Counter;
  readonly cxRxBytes: Counter;
  /** As Envoy counts: what each open connection has read last. */
  readonly cxRxBuffered: Gauge;
  readonly cxTxBytes: Counter;
  readonly cxTxBuffered: Gauge;
  readonly cxUpgradesTotal: Counter;
  readonly cxUpgradesActive: Gauge;
  readonly cxLength: Histogram;
  readonly flowControlPaused: Counter;
  readonly flowControlResumed: Counter;
  readonly rqTotal: Counter;
  readonly rqHttp1Total: Counter;
  readonly rqHttp2Total: Counter;
  readonly rqActive: Gauge;
  readonly rqTime: Histogram;
  readonly rqCodes: CodeCounters;
  readonly rqRejectedViaIpDetection: Counter;
  readonly rqFailedPathNormalization: Counter;
  readonly rqRedirectedWithNormalizedPath: Counter;
  readonly rqNonRelativePath: Counter;
  readonly rqIdleTimeout: Counter;
  readonly rqTimeout: Counter;
  readonly rqHeaderTimeout: Counter;
  readonly rqMaxDurationReached: Counter;
  readonly rqResponseBeforeRqComplete: Counter;
  readonly rqRxReset: Counter;
  readonly rqTxReset: Counter;
  readonly rqTooLarge: Counter;
  readonly rqTooManyPrematureResets: Counter;
  readonly rqWsOnNonWsRoute: Counter;
  readonly rsTooLarge: Counter;
  /** Streams that were health checks. Envoy counts them without tracing too. */
  readonly healthChecks: Counter;
  readonly #stats: Stats;

  constructor(stats: Stats) {
    const counter = (name: string) => stats.counter(name);
    const gauge = (name: string) => stats.gauge(name);
    this.cxTotal = counter("downstream_cx_total");
    this.cxHttp1Total = counter("downstream_cx_http1_total");
    this.cxHttp2Total = counter("downstream_cx_http2_total");
    this.cxSslTotal = counter("downstream_cx_ssl_total");
    this.cxActive = gauge("downstream_cx_active");
    this.cxHttp1Active = gauge("downstream_cx_http1_active");
    this.cxHttp2Active = gauge("downstream_cx_http2_active");
    this.cxSslActive = gauge("downstream_cx_ssl_active");
    this.cxDestroy = counter("downstream_cx_destroy");
    this.cxDestroyLocal = counter("downstream_cx_destroy_local");
    this.cxDestroyRemote = counter("downstream_cx_destroy_remote");
    this.cxDestroyActiveRq = counter("downstream_cx_destroy_active_rq");
    this.cxDestroyLocalActiveRq = counter("downstream_cx_destroy_local_active_rq");
    this.cxDestroyRemoteActiveRq = counter("downstream_cx_destroy_remote_active_rq");
    this.cxDelayedCloseTimeout = counter("downstream_cx_delayed_close_timeout");
    this.cxDrainClose = counter("downstream_cx_drain_close");
    this.cxMaxDurationReached = counter("downstream_cx_max_duration_reached");
    this.cxIdleTimeout = counter("downstream_cx_idle_timeout");
    this.cxMaxRequestsReached = counter("downstream_cx_max_requests_reached");
    this.cxProtocolError = counter("downstream_cx_protocol_error");
    this.cxRxBytes = counter("downstream_cx_rx_bytes_total");
    this.cxRxBuffered = gauge("downstream_cx_rx_bytes_buffered");
    this.cxTxBytes = counter("downstream_cx_tx_bytes_total");
    this.cxTxBuffered = gauge("downstream_cx_tx_bytes_buffered");
    this.cxUpgradesTotal = counter("downstream_cx_upgrades_total");
    this.cxUpgradesActive = gauge("downstream_cx_upgrades_active");
    this.cxLength = stats.histogram("downstream_cx_length_ms", "ms");
    this.flowControlPaused = counter("downstream_flow_control_paused_reading_total");
    this.flowControlResumed = counter("downstream_flow_control_resumed_reading_total");
    this.rqTotal = counter("downstream_rq_total");
    this.rqHttp1Total = counter("downstream_rq_http1_total");
    this.rqHttp2Total = counter("downstream_rq_http2_total");
    this.rqActive = gauge("downstream_rq_active");
    this.rqTime = stats.histogram("downstream_rq_time", "ms");
    this.rqCodes = new CodeCounters(stats);
    this.rqRejectedViaIpDetection = counter("downstream_rq_rejected_via_ip_detection");
    this.rqFailedPathNormalization = counter("downstream_rq_failed_path_normalization");
    this.rqRedirectedWithNormalizedPath = counter("downstream_rq_redirected_with_normalized_path");
    this.rqNonRelativePath = counter("downstream_rq_non_relative_path");
    this.rqIdleTimeout = counter("downstream_rq_idle_timeout");
    this.rqTimeout = counter("downstream_rq_timeout");
    this.rqHeaderTimeout = counter("downstream_rq_header_timeout");
    this.rqMaxDurationReached = counter("downstream_rq_max_duration_reached");
    this.rqResponseBeforeRqComplete = counter("downstream_rq_response_before_rq_complete");
    this.rqRxReset = counter("downstream_rq_rx_reset");
    this.rqTxReset = counter("downstream_rq_tx_reset");
    this.rqTooLarge = counter("downstream_rq_too_large");
    this.rqTooManyPrematureResets = counter("downstream_rq_too_many_premature_resets");
    this.rqWsOnNonWsRoute = counter("downstream_rq_ws_on_non_ws_route");
    this.rsTooLarge = counter("rs_too_large");
    this.healthChecks = counter("tracing.health_check");
    this.#stats = stats;
    for (const name of ALWAYS_ZERO) counter(name);
    for (const name of ALWAYS_ZERO_GAUGES) gauge(name);
  }

  /** Counts a hook of a filter that threw or was rejected. Envoy has no such stat, so it appears with the first error. */
  onFilterError(): void {
    this.#stats.counter("filter_errors").inc();
  }
}

/** `downstream_rq_<n>xx` and `_completed`: once below `http.<stat_prefix>.` and once below the listener. */
export class CodeCounters {
  readonly #classes: readonly Counter[];
  readonly #completed: Counter;

  constructor(stats: Stats) {
    this.#classes = [1, 2, 3, 4, 5].map((n) => stats.counter(`downstream_rq_${n}xx`));
    this.#completed = stats.counter("downstream_rq_completed");
  }

  count(status: number): void {
    const at = ((status / 100) | 0) - 1;
    if (at >= 0 && at < 5) this.#classes[at]!.inc();
    // As in Envoy, interim responses count as completed too.
    this.#completed.inc();
  }
}
