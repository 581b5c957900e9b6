import {
  AccessLogList,
  CidrRange,
  Duration,
  Enum,
  Extension,
  HeaderKeyFormat,
  Http2ProtocolOptions,
  Percent,
  type Static,
  StringMatcher,
  Type,
  Typed,
  UInt32,
} from "@tsproxy/sdk";
import { ClientDetection } from "./client-detection.ts";
import { EarlyHeaderMutation } from "./early-header-mutation.ts";
import { LocalReplyConfig } from "./local-reply-config.ts";
import { ProxyStatusConfig } from "./proxy-status.ts";
import { RouteConfig } from "./route-config.ts";
import { ScopedRoutesConfig } from "./scoped-routes.ts";

/** A filter chain. A filter that is `disabled` is left out unless a route turns it on. */
const HttpFilters = Type.Array(
  Extension("http", { fields: { disabled: Type.Boolean({ default: false }) } }),
  { default: [] },
);

const DestinationPorts = Type.Array(UInt32(), { default: [] });

export const Config = Type.Object({
  stat_prefix: Type.String({ minLength: 1 }),
  codec_type: Enum(["AUTO", "HTTP1", "HTTP2", "HTTP3"], { default: "AUTO" }),
  route_config: Type.Optional(RouteConfig),
  scoped_routes: Type.Optional(ScopedRoutesConfig),
  http_filters: HttpFilters,
  access_log: AccessLogList(),
  access_log_options: Type.Optional(
    Type.Object({
      access_log_flush_interval: Type.Optional(Duration()),
      flush_access_log_on_new_request: Type.Boolean({ default: false }),
      flush_log_on_tunnel_successfully_established: Type.Boolean({ default: false }),
    }),
  ),
  /** The older place of two options of `access_log_options`. */
  access_log_flush_interval: Type.Optional(Duration()),
  flush_access_log_on_new_request: Type.Boolean({ default: false }),

  use_remote_address: Type.Boolean({ default: false }),
  xff_num_trusted_hops: UInt32({ default: 0 }),
  skip_xff_append: Type.Boolean({ default: false }),
  internal_address_config: Type.Optional(
    Type.Object({
      unix_sockets: Type.Boolean({ default: false }),
      cidr_ranges: Type.Array(CidrRange, { default: [] }),
    }),
  ),
  represent_ipv4_remote_address_as_ipv4_mapped_ipv6: Type.Boolean({ default: false }),
  original_ip_detection_extensions: Type.Array(ClientDetection, { default: [] }),
  early_header_mutation_extensions: Type.Array(EarlyHeaderMutation, { default: [] }),
  append_x_forwarded_port: Type.Boolean({ default: false }),
  scheme_header_transformation: Type.Optional(
    Type.Object({
      scheme_to_overwrite: Type.Optional(Type.String()),
      match_upstream: Type.Boolean({ default: false }),
    }),
  ),
  /** The scheme by the port that a client connected to before this proxy, where a listener filter has told it. */
  forward_proto_config: Type.Optional(
    Type.Object({
      https_destination_ports: DestinationPorts,
      http_destination_ports: DestinationPorts,
    }),
  ),
  via: Type.String({ default: "" }),
  add_user_agent: Type.Boolean({ default: false }),
  server_name: Type.String({ default: "envoy" }),
  server_header_transformation: Enum(["OVERWRITE", "APPEND_IF_ABSENT", "PASS_THROUGH"], {
    default: "OVERWRITE",
  }),
  generate_request_id: Type.Boolean({ default: true }),
  preserve_external_request_id: Type.Boolean({ default: false }),
  always_set_request_id_in_response: Type.Boolean({ default: false }),
  /** Both options concern only tracing, which is not implemented, so they have no effect. */
  request_id_extension: Type.Optional(
    Type.Object({
      typed_config: Typed({
        "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig": Type.Object({
          pack_trace_reason: Type.Boolean({ default: true }),
          use_request_id_for_trace_sampling: Type.Boolean({ default: true }),
        }),
      }),
    }),
  ),

  proxy_100_continue: Type.Boolean({ default: false }),
  upgrade_configs: Type.Array(
    Type.Object({
      upgrade_type: Type.String({ minLength: 1 }),
      enabled: Type.Boolean({ default: true }),
      /** Replaces `http_filters` for streams that ask for this upgrade; empty: it does not. */
      filters: HttpFilters,
    }),
    { default: [] },
  ),
  local_reply_config: Type.Optional(LocalReplyConfig),
  proxy_status_config: Type.Optional(ProxyStatusConfig),
  normalize_path: Type.Boolean({ default: false }),
  merge_slashes: Type.Boolean({ default: false }),
  path_with_escaped_slashes_action: Enum(
    [
      "IMPLEMENTATION_SPECIFIC_DEFAULT",
      "KEEP_UNCHANGED",
      "REJECT_REQUEST",
      "UNESCAPE_AND_REDIRECT",
      "UNESCAPE_AND_FORWARD",
    ],
    { default: "KEEP_UNCHANGED" },
  ),
  strip_matching_host_port: Type.Boolean({ default: false }),
  strip_any_host_port: Type.Boolean({ default: false }),
  strip_trailing_host_dot: Type.Boolean({ default: false }),

  forward_client_cert_details: Enum(
    ["SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY"],
    { default: "SANITIZE" },
  ),
  set_current_client_cert_details: Type.Optional(
    Type.Object({
      subject: Type.Optional(Type.Boolean()),
      cert: Type.Optional(Type.Boolean()),
      chain: Type.Optional(Type.Boolean()),
      dns: Type.Optional(Type.Boolean()),
      uri: Type.Optional(Type.Boolean()),
    }),
  ),

  max_request_headers_kb: UInt32({ default: 60, minimum: 1, maximum: 8192 }),
  common_http_protocol_options: Type.Object(
    {
      idle_timeout: Duration({ default: 3_600_000 }),
      max_headers_count: UInt32({ default: 100, minimum: 1 }),
      max_connection_duration: Duration({ default: 0 }),
      max_connection_duration_jitter: Type.Optional(Percent),
      max_stream_duration: Duration({ default: 0 }),
      max_requests_per_connection: UInt32({ default: 0 }),
      /** For clusters only: refused here, as in Envoy. */
      max_response_headers_kb: Type.Optional(UInt32()),
      headers_with_underscores_action: Enum(["ALLOW", "REJECT_REQUEST", "DROP_HEADER"], {
        default: "ALLOW",
      }),
    },
    { default: {} },
  ),
  http_protocol_options: Type.Object(
    {
      allow_absolute_url: Type.Boolean({ default: true }),
      accept_http_10: Type.Boolean({ default: false }),
      default_host_for_http_10: Type.String({ default: "" }),
      enable_trailers: Type.Boolean({ default: false }),
      allow_chunked_length: Type.Boolean({ default: false }),
      allow_custom_methods: Type.Boolean({ default: false }),
      header_key_format: Type.Optional(HeaderKeyFormat),
      ignore_http_11_upgrade: Type.Optional(Type.Array(StringMatcher)),
      override_stream_error_on_invalid_http_message: Type.Optional(Type.Boolean()),
    },
    { default: {} },
  ),
  http2_protocol_options: Type.Optional(Http2ProtocolOptions),
  stream_idle_timeout: Duration({ default: 300_000 }),
  /** HTTP/2: how long the end of a response may wait for the client's window. Absent: `stream_idle_timeout`. */
  stream_flush_timeout: Type.Optional(Duration()),
  /** HTTP/1: past `max_connection_duration` the connection lives until its next response, which says `connection: close`. */
  http1_safe_max_connection_duration: Type.Boolean({ default: false }),
  request_timeout: Duration({ default: 0 }),
  request_headers_timeout: Duration({ default: 0 }),
  stream_error_on_invalid_http_message: Type.Boolean({ default: false }),
  drain_timeout: Duration({ default: 5000 }),
  drain_timeout_jitter: Type.Optional(Percent),
  delayed_close_timeout: Duration({ default: 1000 }),
});
export type Config = Static<typeof Config>;
