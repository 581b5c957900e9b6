import type { Counter, Gauge, Stats } from "@tsproxy/sdk";

/** Envoy's counters that stay at 0, as this codec ignores METADATA frames and closes streams at once. */
const ALWAYS_ZERO = [
  "headers_cb_no_stream",
  "metadata_empty_frames",
  "cookies_total_bytes_too_large",
  "oghttp2_downstream_connections",
  "oghttp2_upstream_connections",
];
const ALWAYS_ZERO_GAUGES = ["deferred_stream_close"];
/** Histograms that Envoy 1.40 lists but never records. */
const ALWAYS_EMPTY = ["cookie_count", "cookie_size", "header_count", "header_list_size"];

/** Codec stats: under `http2.` for downstream, under `cluster.<name>.http2.` for upstream connections. */
export class Http2Stats {
  readonly droppedHeaders: Counter;
  readonly rejectedRequests: Counter;
  readonly goawaySent: Counter;
  readonly headerOverflow: Counter;
  readonly headerListTooLarge: Counter;
  /** Envoy counts connections by HTTP/2 library; the names are those of its default, nghttp2. */
  readonly downstreamConnections: Counter;
  readonly upstreamConnections: Counter;
  readonly emptyFramesFlood: Counter;
  readonly priorityFramesFlood: Counter;
  readonly windowUpdateFramesFlood: Counter;
  readonly keepaliveTimeout: Counter;
  readonly outboundControlFlood: Counter;
  readonly outboundFlood: Counter;
  readonly rxMessagingError: Counter;
  readonly rxReset: Counter;
  readonly streamRefusedErrors: Counter;
  readonly trailers: Counter;
  readonly txFlushTimeout: Counter;
  readonly txReset: Counter;
  readonly streamsActive: Gauge;
  readonly pendingSendBytes: Gauge;
  readonly outboundFramesActive: Gauge;
  readonly outboundControlFramesActive: Gauge;

  constructor(stats: Stats) {
    const counter = (name: string) => stats.counter(name);
    this.droppedHeaders = counter("dropped_headers_with_underscores");
    this.rejectedRequests = counter("requests_rejected_with_underscores_in_headers");
    this.goawaySent = counter("goaway_sent");
    this.headerOverflow = counter("header_overflow");
    this.headerListTooLarge = counter("header_list_size_too_large");
    this.downstreamConnections = counter("nghttp2_downstream_connections");
    this.upstreamConnections = counter("nghttp2_upstream_connections");
    this.emptyFramesFlood = counter("inbound_empty_frames_flood");
    this.priorityFramesFlood = counter("inbound_priority_frames_flood");
    this.windowUpdateFramesFlood = counter("inbound_window_update_frames_flood");
    this.keepaliveTimeout = counter("keepalive_timeout");
    this.outboundControlFlood = counter("outbound_control_flood");
    this.outboundFlood = counter("outbound_flood");
    this.rxMessagingError = counter("rx_messaging_error");
    this.rxReset = counter("rx_reset");
    this.streamRefusedErrors = counter("stream_refused_errors");
    this.trailers = counter("trailers");
    this.txFlushTimeout = counter("tx_flush_timeout");
    this.txReset = counter("tx_reset");
    this.streamsActive = stats.gauge("streams_active");
    this.pendingSendBytes = stats.gauge("pending_send_bytes");
    this.outboundFramesActive = stats.gauge("outbound_frames_active");
    this.outboundControlFramesActive = stats.gauge("outbound_control_frames_active");
    for (const name of ALWAYS_ZERO) counter(name);
    for (const name of ALWAYS_ZERO_GAUGES) stats.gauge(name);
    for (const name of ALWAYS_EMPTY) stats.histogram(name);
  }
}
