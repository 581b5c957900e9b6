import {
  Duration,
  Enum,
  Extension,
  HeaderValueOption,
  HealthPayload,
  type Static,
  StringMatcher,
  Type,
  UInt32,
} from "@tsproxy/sdk";

const StatusRanges = Type.Array(
  Type.Object({ start: Type.Integer({ default: 0 }), end: Type.Integer({ default: 0 }) }),
  { default: [] },
);

/** Envoy's HealthCheck. What the checks themselves want is the packages' in filters/health. */
export const HealthCheck = Type.Object({
  timeout: Duration(),
  interval: Duration(),
  initial_jitter: Duration({ default: 0 }),
  interval_jitter: Duration({ default: 0 }),
  interval_jitter_percent: UInt32({ default: 0 }),
  unhealthy_threshold: UInt32(),
  healthy_threshold: UInt32(),
  /** Names one of the cluster's `transport_socket_matches`, in the place of what the host's metadata says. */
  transport_socket_match_criteria: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  tls_options: Type.Optional(Type.Object({ alpn_protocols: Type.Array(Type.String()) })),
  reuse_connection: Type.Boolean({ default: true }),
  no_traffic_interval: Duration({ default: 60_000 }),
  no_traffic_healthy_interval: Type.Optional(Duration()),
  unhealthy_interval: Type.Optional(Duration()),
  unhealthy_edge_interval: Type.Optional(Duration()),
  healthy_edge_interval: Type.Optional(Duration()),
  always_log_health_check_failures: Type.Boolean({ default: false }),
  always_log_health_check_success: Type.Boolean({ default: false }),
  event_log_path: Type.String({ default: "" }),
  event_logger: Type.Optional(Type.Array(EventSink())),
  http_health_check: Type.Optional(
    Type.Object({
      host: Type.String({ default: "" }),
      path: Type.String({ minLength: 1 }),
      send: Type.Optional(HealthPayload),
      receive: Type.Array(HealthPayload, { default: [] }),
      response_buffer_size: UInt32({ default: 1024 }),
      request_headers_to_add: Type.Array(HeaderValueOption, { default: [] }),
      request_headers_to_remove: Type.Array(Type.String(), { default: [] }),
      expected_statuses: StatusRanges,
      retriable_statuses: StatusRanges,
      codec_client_type: Enum(["HTTP1", "HTTP2"], { default: "HTTP1" }),
      service_name_matcher: Type.Optional(StringMatcher),
      method: Enum(
        ["METHOD_UNSPECIFIED", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"],
        { default: "GET" },
      ),
    }),
  ),
  tcp_health_check: Type.Optional(
    Type.Object({
      send: Type.Optional(HealthPayload),
      receive: Type.Optional(Type.Array(HealthPayload)),
    }),
  ),
  grpc_health_check: Type.Optional(
    Type.Object({
      service_name: Type.String({ default: "" }),
      authority: Type.String({ default: "" }),
      initial_metadata: Type.Array(HeaderValueOption, { default: [] }),
    }),
  ),
  custom_health_check: Type.Optional(Extension("health")),
});
export type HealthCheck = Static<typeof HealthCheck>;

const Percent = (otherwise: number) => UInt32({ default: otherwise, maximum: 100 });

/** Envoy's OutlierDetection, with its defaults. */
export const OutlierDetection = Type.Object({
  /** That of the bootstrap's `cluster_manager.outlier_detection`, which the loader puts here. */
  event_log_path: Type.String({ default: "" }),
  consecutive_5xx: UInt32({ default: 5 }),
  interval: Duration({ default: 10_000 }),
  base_ejection_time: Duration({ default: 30_000 }),
  max_ejection_percent: Percent(10),
  enforcing_consecutive_5xx: Percent(100),
  enforcing_success_rate: Percent(100),
  success_rate_minimum_hosts: UInt32({ default: 5 }),
  success_rate_request_volume: UInt32({ default: 100 }),
  success_rate_stdev_factor: UInt32({ default: 1900 }),
  consecutive_gateway_failure: UInt32({ default: 5 }),
  enforcing_consecutive_gateway_failure: Percent(0),
  split_external_local_origin_errors: Type.Boolean({ default: false }),
  consecutive_local_origin_failure: UInt32({ default: 5 }),
  enforcing_consecutive_local_origin_failure: Percent(100),
  enforcing_local_origin_success_rate: Percent(100),
  failure_percentage_threshold: Percent(85),
  enforcing_failure_percentage: Percent(0),
  enforcing_failure_percentage_local_origin: Percent(0),
  failure_percentage_minimum_hosts: UInt32({ default: 5 }),
  failure_percentage_request_volume: UInt32({ default: 50 }),
  max_ejection_time: Type.Optional(Duration()),
  max_ejection_time_jitter: Duration({ default: 0 }),
  successful_active_health_check_uneject_host: Type.Boolean({ default: true }),
  always_eject_one_host: Type.Boolean({ default: false }),
});
export type OutlierDetection = Static<typeof OutlierDetection>;

/** `envoy.health_check.event_sink.file`. */
function EventSink() {
  return Type.Object({
    name: Type.Optional(Type.String()),
    typed_config: Type.Optional(Type.Object({ event_log_path: Type.String() })),
  });
}
