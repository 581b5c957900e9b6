import type { Counter, Gauge, Stats } from "@tsproxy/sdk";

/** `udp.<stat_prefix>.` */
export class DownstreamUdpStats {
  readonly total: Counter;
  readonly active: Gauge;
  readonly noRoute: Counter;
  readonly rxBytes: Counter;
  readonly rxDatagrams: Counter;
  readonly txBytes: Counter;
  readonly txDatagrams: Counter;
  readonly txErrors: Counter;
  readonly idleTimeout: Counter;

  constructor(stats: Stats) {
    this.total = stats.counter("downstream_sess_total");
    this.active = stats.gauge("downstream_sess_active");
    this.noRoute = stats.counter("downstream_sess_no_route");
    this.rxBytes = stats.counter("downstream_sess_rx_bytes");
    this.rxDatagrams = stats.counter("downstream_sess_rx_datagrams");
    this.txBytes = stats.counter("downstream_sess_tx_bytes");
    this.txDatagrams = stats.counter("downstream_sess_tx_datagrams");
    this.txErrors = stats.counter("downstream_sess_tx_errors");
    this.idleTimeout = stats.counter("idle_timeout");
    // Node tells of no error in receiving; there are no session filters.
    stats.counter("downstream_sess_rx_errors");
    stats.counter("session_filter_config_missing");
  }
}

/** `cluster.<name>.`: what the sessions count there. */
export class ClusterUdpStats {
  readonly rxDatagrams: Counter;
  readonly rxDropped: Counter;
  readonly rxErrors: Counter;
  readonly txDatagrams: Counter;
  readonly txErrors: Counter;
  readonly rxBytes: Counter;
  readonly txBytes: Counter;
  readonly overflow: Counter;

  constructor(stats: Stats) {
    this.rxDatagrams = stats.counter("udp.sess_rx_datagrams");
    this.rxDropped = stats.counter("udp.sess_rx_datagrams_dropped");
    this.rxErrors = stats.counter("udp.sess_rx_errors");
    this.txDatagrams = stats.counter("udp.sess_tx_datagrams");
    this.txErrors = stats.counter("udp.sess_tx_errors");
    this.rxBytes = stats.counter("upstream_cx_rx_bytes_total");
    this.txBytes = stats.counter("upstream_cx_tx_bytes_total");
    this.overflow = stats.counter("upstream_cx_overflow");
    // Of datagrams in HTTP tunnels, which do not exist here.
    for (const name of ["buffer_overflow", "failure", "success"])
      stats.counter(`udp.sess_tunnel_${name}`);
  }
}
