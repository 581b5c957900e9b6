import type { SetupContext } from "@tsproxy/sdk";

/** Registers the stats of the router that Envoy uses for tunnels; they stay at 0, as in Envoy. */
export function listTunnelStats(cx: SetupContext, prefix: string): void {
  const scope = cx.stats.scope(`tcp.${prefix}.tcpproxy_tunneling.`);
  for (const why of [
    "bad_location",
    "no_route",
    "predicate",
    "too_many_redirects",
    "unsafe_scheme",
  ])
    scope.counter(`passthrough_internal_redirect_${why}`);
  for (const name of ["no_cluster", "no_route"]) scope.counter(name);
  for (const name of [
    "direct_response",
    "overload_local_reply",
    "redirect",
    "reset_after_downstream_response_started",
    "total",
  ])
    scope.counter(`rq_${name}`);
}

export type Stats = ReturnType<typeof statsOf>;

export function statsOf(cx: SetupContext, prefix: string) {
  const scope = cx.stats.scope(`tcp.${prefix}.`);
  // These stay at 0: overload does not close connections here, and clusters are not discovered on demand.
  for (const name of ["downstream_cx_overload_close", "route_delayed_total"]) scope.counter(name);
  return {
    cxTotal: scope.counter("downstream_cx_total"),
    noRoute: scope.counter("downstream_cx_no_route"),
    drainClose: scope.counter("downstream_cx_drain_close"),
    rxBytes: scope.counter("downstream_cx_rx_bytes_total"),
    rxBuffered: scope.gauge("downstream_cx_rx_bytes_buffered"),
    txBytes: scope.counter("downstream_cx_tx_bytes_total"),
    txBuffered: scope.gauge("downstream_cx_tx_bytes_buffered"),
    /** Connections with `max_early_data_bytes` from which something came before their upstream was connected. */
    earlyData: scope.counter("early_data_received_count_total"),
    pausedReading: scope.counter("downstream_flow_control_paused_reading_total"),
    resumedReading: scope.counter("downstream_flow_control_resumed_reading_total"),
    idleTimeout: scope.counter("idle_timeout"),
    maxDuration: scope.counter("max_downstream_connection_duration"),
    flushTotal: scope.counter("upstream_flush_total"),
    flushActive: scope.gauge("upstream_flush_active"),
  };
}
