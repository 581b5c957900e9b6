import {
  Duration,
  Extension,
  GrpcHealthCheck,
  HttpHealthCheck,
  OutputFile,
  type Static,
  TcpHealthCheck,
  Type,
  UInt32,
} from "@tsproxy/sdk";

/** Envoy's HealthCheck. */
export const HealthCheck = Type.Object({
  timeout: Duration(),
  interval: Duration(),
  initial_jitter: Duration({ default: 0 }),
  interval_jitter: Duration({ default: 0 }),
  interval_jitter_percent: UInt32({ default: 0 }),
  unhealthy_threshold: UInt32(),
  healthy_threshold: UInt32(),
  /** Selects one of the cluster's `transport_socket_matches` instead of the host's metadata. */
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
  event_log_path: OutputFile({ default: "" }),
  event_logger: Type.Optional(Type.Array(EventSink())),
  http_health_check: Type.Optional(HttpHealthCheck),
  tcp_health_check: Type.Optional(TcpHealthCheck),
  grpc_health_check: Type.Optional(GrpcHealthCheck),
  custom_health_check: Type.Optional(Extension("health")),
});
export type HealthCheck = Static<typeof HealthCheck>;

const Percent = (otherwise: number) => UInt32({ default: otherwise, maximum: 100 });

/** Envoy's OutlierDetection, with its defaults. */
export const OutlierDetection = Type.Object({
  /** From the bootstrap's `cluster_manager.outlier_detection`; set by the config loader. */
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
  /** Hosts whose responses have `x-envoy-degraded` are degraded for a time. */
  detect_degraded_hosts: Type.Boolean({ default: false }),
});
export type OutlierDetection = Static<typeof OutlierDetection>;

/** Schema of `envoy.health_check.event_sink.file`. */
function EventSink() {
  return Type.Object({
    name: Type.Optional(Type.String()),
    typed_config: Type.Optional(Type.Object({ event_log_path: OutputFile() })),
  });
}
