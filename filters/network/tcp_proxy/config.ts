import {
  AccessLogList,
  Duration,
  Enum,
  HeaderValueOption,
  Percent,
  type Static,
  Type,
  UInt32,
} from "@tsproxy/sdk";

const TunnelingConfig = Type.Object({
  /** A format string such as `%REQUESTED_SERVER_NAME%:443`. */
  hostname: Type.String({ minLength: 1 }),
  use_post: Type.Boolean({ default: false }),
  headers_to_add: Type.Array(HeaderValueOption, { default: [], maxItems: 1000 }),
  /** Empty: "/". */
  post_path: Type.String({ default: "" }),
  /** Keeps the answer's headers, and its trailers, in the connection's filter state, for logs and other filters. */
  propagate_response_headers: Type.Boolean({ default: false }),
  propagate_response_trailers: Type.Boolean({ default: false }),
});
export type TunnelingConfig = Static<typeof TunnelingConfig>;

/** Limits the hosts to those whose `envoy.lb` metadata has these values. */
const MetadataMatch = Type.Object({
  filter_metadata: Type.Record(Type.String(), Type.Record(Type.String(), Type.Unknown()), {
    default: {},
  }),
});

export const Config = Type.Object({
  stat_prefix: Type.String({ minLength: 1 }),
  cluster: Type.Optional(Type.String({ minLength: 1 })),
  weighted_clusters: Type.Optional(
    Type.Object({
      clusters: Type.Array(
        Type.Object({
          name: Type.String({ minLength: 1 }),
          weight: UInt32({ minimum: 1 }),
          metadata_match: Type.Optional(MetadataMatch),
        }),
        { minItems: 1 },
      ),
    }),
  ),
  metadata_match: Type.Optional(MetadataMatch),
  /** What hash-based load balancers get: a hash of the client's address, or of what a filter has left under that key. */
  hash_policy: Type.Array(
    Type.Object({
      source_ip: Type.Optional(Type.Object({})),
      filter_state: Type.Optional(Type.Object({ key: Type.String({ minLength: 1 }) })),
    }),
    { default: [], maxItems: 1 },
  ),
  /** Milliseconds; 0: no timeout. */
  idle_timeout: Duration({ default: 3_600_000 }),
  max_connect_attempts: UInt32({ default: 1, minimum: 1 }),
  /** Absent: the next attempt follows at once. */
  backoff_options: Type.Optional(
    Type.Object({ base_interval: Duration(), max_interval: Type.Optional(Duration()) }),
  ),
  max_downstream_connection_duration: Type.Optional(Duration()),
  max_downstream_connection_duration_jitter_percentage: Type.Optional(Percent),
  tunneling_config: Type.Optional(TunnelingConfig),
  /** When the upstream is connected to: at once, or when the client has sent something. TLS handshakes are over in either case. */
  upstream_connect_mode: Enum(["IMMEDIATE", "ON_DOWNSTREAM_DATA", "ON_DOWNSTREAM_TLS_HANDSHAKE"], {
    default: "IMMEDIATE",
  }),
  /** How much is read of the client before the upstream is connected. Absent: nothing. */
  max_early_data_bytes: Type.Optional(UInt32()),
  /** Closes connections of a listener that drains, at their next bytes. */
  check_drain_close: Type.Optional(Type.Boolean()),
  access_log: AccessLogList(),
  access_log_options: Type.Optional(
    Type.Object({
      access_log_flush_interval: Type.Optional(Duration()),
      flush_access_log_on_connected: Type.Boolean({ default: false }),
      flush_access_log_on_start: Type.Boolean({ default: false }),
    }),
  ),
  /** This and the next field are deprecated in favour of `access_log_options`. */
  access_log_flush_interval: Type.Optional(Duration()),
  flush_access_log_on_connected: Type.Boolean({ default: false }),
});
export type Config = Static<typeof Config>;
