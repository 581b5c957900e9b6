import {
  type Definition,
  Duration,
  Enum,
  Extension,
  LoadBalancingPolicy,
  RouteConfigs,
  Type,
  UInt32,
} from "@tsproxy/sdk";
import type { PackageInfo } from "../protocol.ts";
import { describe } from "./describe-sources.ts";

// Small packages for tests: each schema has what the tests need to see accepted, defaulted, warned about or refused.

function info(spec: Partial<Definition>, packageName: string): PackageInfo {
  const definition = {
    config: Type.Object({}),
    setup: () => ({}),
    ...spec,
  } as unknown as Definition;
  return describe(definition, packageName);
}

const SocketAddress = Type.Object({
  address: Type.String(),
  port_value: UInt32({ maximum: 65535 }),
  protocol: Enum(["TCP"], { default: "TCP" }),
});
const Address = Type.Object({ socket_address: SocketAddress });

const Cluster = Type.Object({
  upstream_bind_config: Type.Optional(Type.Unknown()),
  name: Type.String({ minLength: 1 }),
  type: Enum(["STATIC", "STRICT_DNS", "LOGICAL_DNS"], { default: "STATIC" }),
  connect_timeout: Duration({ default: 5000 }),
  lb_policy: Enum(["ROUND_ROBIN", "LEAST_REQUEST"], { default: "ROUND_ROBIN" }),
  load_balancing_policy: Type.Optional(LoadBalancingPolicy),
  dns_lookup_family: Enum(["AUTO", "V4_ONLY"], { default: "AUTO" }),
  per_connection_buffer_limit_bytes: UInt32({ default: 1_048_576 }),
  load_assignment: Type.Optional(
    Type.Object({
      cluster_name: Type.Optional(Type.String()),
      endpoints: Type.Array(
        Type.Object({
          lb_endpoints: Type.Array(Type.Object({ endpoint: Type.Object({ address: Address }) }), {
            default: [],
          }),
        }),
        { default: [] },
      ),
    }),
  ),
});

const StringMatcher = Type.Object({
  exact: Type.Optional(Type.String()),
  prefix: Type.Optional(Type.String()),
  safe_regex: Type.Optional(Type.Object({ regex: Type.String() })),
});

const Route = Type.Object({
  match: Type.Object({
    prefix: Type.Optional(Type.String()),
    path: Type.Optional(Type.String()),
    safe_regex: Type.Optional(Type.Object({ regex: Type.String() })),
    headers: Type.Optional(
      Type.Array(
        Type.Object({
          name: Type.String(),
          string_match: Type.Optional(StringMatcher),
        }),
      ),
    ),
    query_parameters: Type.Optional(
      Type.Array(
        Type.Object({
          name: Type.String(),
          string_match: Type.Optional(StringMatcher),
          present_match: Type.Optional(Type.Boolean()),
        }),
      ),
    ),
  }),
  route: Type.Optional(
    Type.Object({
      cluster: Type.Optional(Type.String()),
      timeout: Duration({ default: 15_000 }),
      host_rewrite_literal: Type.Optional(Type.String()),
      upgrade_configs: Type.Optional(Type.Array(Type.Object({ upgrade_type: Type.String() }))),
    }),
  ),
  direct_response: Type.Optional(Type.Object({ status: UInt32() })),
  typed_per_filter_config: Type.Optional(RouteConfigs()),
});

const HttpConnectionManager = Type.Object({
  stat_prefix: Type.String({ minLength: 1 }),
  codec_type: Enum(["AUTO", "HTTP1"], { default: "AUTO" }),
  generate_request_id: Type.Boolean({ default: true }),
  common_http_protocol_options: Type.Optional(
    Type.Object({ idle_timeout: Duration({ default: 3_600_000 }) }),
  ),
  route_config: Type.Optional(
    Type.Object({
      name: Type.Optional(Type.String()),
      virtual_hosts: Type.Array(
        Type.Object({
          name: Type.String(),
          domains: Type.Array(Type.String()),
          routes: Type.Optional(Type.Array(Route)),
          typed_per_filter_config: Type.Optional(RouteConfigs()),
        }),
        { default: [] },
      ),
    }),
  ),
  http_filters: Type.Array(Extension("http"), { default: [] }),
  access_log: Type.Array(
    Extension("access_log", { fields: { filter: Type.Optional(Type.Unknown()) } }),
    { default: [] },
  ),
});

export const TEST_PACKAGES: readonly PackageInfo[] = [
  info(
    {
      kind: "network",
      name: "envoy.filters.network.http_connection_manager",
      aliases: ["envoy.http_connection_manager"],
      types: ["envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"],
      terminal: true,
      config: HttpConnectionManager,
    },
    "network/http_connection_manager",
  ),
  info(
    {
      kind: "network",
      name: "envoy.filters.network.tcp_proxy",
      types: ["envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"],
      terminal: true,
      config: Type.Object({ stat_prefix: Type.String(), cluster: Type.Optional(Type.String()) }),
    },
    "network/tcp_proxy",
  ),
  info({ kind: "network", name: "sniff" }, "network/sniff"),
  info(
    {
      kind: "http",
      name: "envoy.filters.http.router",
      aliases: ["envoy.router"],
      types: ["envoy.extensions.filters.http.router.v3.Router"],
      terminal: true,
    },
    "http/router",
  ),
  info(
    {
      kind: "http",
      name: "envoy.filters.http.buffer",
      aliases: ["envoy.buffer"],
      types: ["envoy.extensions.filters.http.buffer.v3.Buffer"],
      config: Type.Object({ max_request_bytes: UInt32() }),
      routeConfig: Type.Object({
        disabled: Type.Optional(Type.Boolean()),
        buffer: Type.Optional(Type.Object({ max_request_bytes: UInt32() })),
      }),
    },
    "http/buffer",
  ),
  info(
    {
      kind: "http",
      name: "envoy.filters.http.cors",
      types: ["envoy.extensions.filters.http.cors.v3.Cors"],
      routeConfig: Type.Object({
        max_age: Type.Optional(Type.String()),
        expose_headers: Type.Optional(Type.String()),
      }),
    },
    "http/cors",
  ),
  {
    ...info(
      {
        kind: "http",
        name: "shield",
        config: Type.Object({
          limit: UInt32({ default: 10 }),
          window: Duration({ default: 1000 }),
          mode: Enum(["LOUD", "QUIET"], { default: "QUIET" }),
          label: Type.Optional(Type.String()),
          sticky_ip: Type.Boolean({ default: false }),
        }),
        routeConfig: Type.Object({ limit: UInt32() }),
      },
      "http/shield",
    ),
    origin: "dropped-in",
  },
  info(
    {
      kind: "access_log",
      name: "envoy.access_loggers.file",
      aliases: ["envoy.file_access_log"],
      types: ["envoy.extensions.access_loggers.file.v3.FileAccessLog"],
      config: Type.Object({
        path: Type.String({ minLength: 1 }),
        format: Type.Optional(Type.String()),
      }),
    },
    "access_log/file",
  ),
  info(
    {
      kind: "balancer",
      name: "envoy.load_balancing_policies.least_request",
      types: ["envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest"],
    },
    "balancer/least_request",
  ),
  info(
    {
      kind: "service",
      name: "cluster_manager",
      section: "static_resources.clusters",
      config: Type.Array(Cluster),
    },
    "service/cluster_manager",
  ),
  info(
    {
      kind: "service",
      name: "admin",
      section: "admin",
      config: Type.Object({
        address: Type.Optional(Address),
        access_log_path: Type.Optional(Type.String()),
      }),
    },
    "service/admin",
  ),
  info(
    { kind: "service", name: "clock", config: Type.Object({ tick: Duration({ default: 1000 }) }) },
    "service/clock",
  ),
];
