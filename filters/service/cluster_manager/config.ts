import {
  type Address,
  type ClusterType,
  ConfigError,
  ConsistentHashingLbConfig,
  checkHttp2Options,
  DnsOptions,
  Duration,
  Enum,
  Extension,
  endpointsOf,
  everyOf,
  type Fraction,
  forwardsReason,
  fractionOf,
  HeaderKeyFormat,
  type HeaderNameCase,
  type Http2Options,
  Http2ProtocolOptions,
  headerKeyFormat,
  http2Options,
  isIp,
  type KeepAlive,
  keepAliveOf,
  LbPolicy,
  LoadAssignment,
  LoadBalancingPolicy,
  Percent,
  RuntimeDouble,
  SlowStartConfig,
  type Static,
  TcpKeepalive,
  type TrackedStats,
  Type,
  TypedExtension,
  UInt32,
  UpstreamHttpFilters,
} from "@tsproxy/sdk";
import type { HappyEyeballs } from "./happy-eyeballs.ts";
import { HealthCheck, OutlierDetection } from "./health-config.ts";
import { PeerNaming, UpstreamHttpOptions } from "./peer-names.ts";
import { TransportConfig } from "./transports.ts";

const MAX_RING = 8 * 1024 * 1024;

/** Envoy's `lb_subset_config`; implemented by filters/balancer/subset. */
const LbSubsetConfig = Type.Object({
  fallback_policy: Type.Optional(Enum(["NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET"])),
  default_subset: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  subset_selectors: Type.Optional(
    Type.Array(
      Type.Object({
        keys: Type.Optional(Type.Array(Type.String())),
        single_host_per_subset: Type.Optional(Type.Boolean()),
        fallback_policy: Type.Optional(
          Enum(["NOT_DEFINED", "NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET", "KEYS_SUBSET"]),
        ),
        fallback_keys_subset: Type.Optional(Type.Array(Type.String())),
      }),
    ),
  ),
  locality_weight_aware: Type.Optional(Type.Boolean()),
  scale_locality_weight: Type.Optional(Type.Boolean()),
  panic_mode_any: Type.Optional(Type.Boolean()),
  list_as_any: Type.Optional(Type.Boolean()),
  metadata_fallback_policy: Type.Optional(Enum(["METADATA_NO_FALLBACK", "FALLBACK_LIST"])),
});

const Http1Options = Type.Object({
  enable_trailers: Type.Optional(Type.Boolean()),
  allow_chunked_length: Type.Optional(Type.Boolean()),
  header_key_format: Type.Optional(HeaderKeyFormat),
  send_fully_qualified_url: Type.Optional(Type.Boolean()),
});

const CommonHttpOptions = Type.Object({
  idle_timeout: Type.Optional(Duration()),
  max_connection_duration: Type.Optional(Duration()),
  /** Lengthens that of clients' connections only; those of clusters take no notice of it, as Envoy's. */
  max_connection_duration_jitter: Type.Optional(Percent),
  max_requests_per_connection: Type.Optional(UInt32()),
  max_headers_count: Type.Optional(UInt32({ minimum: 1 })),
  max_stream_duration: Type.Optional(Duration()),
  max_response_headers_kb: Type.Optional(UInt32({ minimum: 1, maximum: 8192 })),
});

const BothOptions = Type.Object({
  http_protocol_options: Type.Optional(Http1Options),
  http2_protocol_options: Type.Optional(Http2ProtocolOptions),
});

const HttpProtocolOptions = Type.Object({
  common_http_protocol_options: Type.Optional(CommonHttpOptions),
  upstream_http_protocol_options: Type.Optional(UpstreamHttpOptions),
  /** A fixed protocol: HTTP/2 if its options are given, else HTTP/1.1. */
  explicit_http_config: Type.Optional(BothOptions),
  /** The protocol of the downstream request. */
  use_downstream_protocol_config: Type.Optional(BothOptions),
  /** The protocol negotiated by ALPN; HTTP/1.1 without TLS. */
  auto_config: Type.Optional(BothOptions),
  http_filters: UpstreamHttpFilters(),
});

const CircuitBreakers = Type.Object({
  thresholds: Type.Array(
    Type.Object({
      priority: Enum(["DEFAULT", "HIGH"], { default: "DEFAULT" }),
      max_connections: Type.Optional(UInt32()),
      max_pending_requests: Type.Optional(UInt32()),
      max_requests: Type.Optional(UInt32()),
      max_retries: Type.Optional(UInt32()),
      max_connection_pools: Type.Optional(UInt32()),
      retry_budget: Type.Optional(
        Type.Object({
          budget_percent: Type.Optional(
            Type.Object({ value: Type.Number({ minimum: 0, maximum: 100, default: 0 }) }),
          ),
          min_retry_concurrency: Type.Optional(UInt32()),
          /** Attempts of so many milliseconds count, in the place of those that are active. 0: not so. */
          budget_interval: Type.Optional(Duration()),
        }),
      ),
      track_remaining: Type.Boolean({ default: false }),
    }),
    { default: [] },
  ),
  per_host_thresholds: Type.Array(
    Type.Object({
      priority: Enum(["DEFAULT", "HIGH"], { default: "DEFAULT" }),
      max_connections: Type.Optional(UInt32()),
    }),
    { default: [] },
  ),
});

const HEALTH_STATUSES = [
  "UNKNOWN",
  "HEALTHY",
  "UNHEALTHY",
  "DRAINING",
  "TIMEOUT",
  "DEGRADED",
] as const;

const SourceAddress = Type.Object({
  address: Type.String(),
  port_value: UInt32({ maximum: 65_535, default: 0 }),
});

const BindConfig = Type.Object({
  source_address: Type.Optional(SourceAddress),
  /** For upstreams of the other address family. */
  extra_source_addresses: Type.Optional(Type.Array(Type.Object({ address: SourceAddress }))),
  /** Older name of `extra_source_addresses`. */
  additional_source_addresses: Type.Optional(Type.Array(SourceAddress)),
  /** Envoy has only the default selector, by address family of the upstream; the same applies without it. */
  local_address_selector: Type.Optional(
    TypedExtension({
      "envoy.config.upstream.local_address_selector.v3.DefaultLocalAddressSelector": Type.Object(
        {},
      ),
    }),
  ),
});
type BindConfig = Static<typeof BindConfig>;

export const HTTP_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

export const ClusterConfig = Type.Object({
  name: Type.String({ minLength: 1 }),
  alt_stat_name: Type.Optional(Type.String()),
  /** For access logs and filters. */
  metadata: Type.Optional(
    Type.Object({
      filter_metadata: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
    }),
  ),
  /** Each value is a package of that name in filters/cluster. */
  type: Enum(["STATIC", "STRICT_DNS", "LOGICAL_DNS", "ORIGINAL_DST"], { default: "STATIC" }),
  cluster_type: Type.Optional(Extension("cluster")),
  cleanup_interval: Type.Optional(Duration()),
  original_dst_lb_config: Type.Optional(
    Type.Object({
      use_http_header: Type.Optional(Type.Boolean()),
      http_header_name: Type.Optional(Type.String()),
      upstream_port_override: Type.Optional(UInt32({ maximum: 65_535 })),
      metadata_key: Type.Optional(
        Type.Object({
          key: Type.String({ minLength: 1 }),
          path: Type.Array(Type.Object({ key: Type.String({ minLength: 1 }) }), { minItems: 1 }),
        }),
      ),
    }),
  ),
  connect_timeout: Duration({ default: 5_000 }),
  lb_policy: LbPolicy,
  load_balancing_policy: Type.Optional(LoadBalancingPolicy),
  load_assignment: Type.Optional(LoadAssignment),
  round_robin_lb_config: Type.Optional(
    Type.Object({ slow_start_config: Type.Optional(SlowStartConfig) }),
  ),
  least_request_lb_config: Type.Optional(
    Type.Object({
      choice_count: UInt32({ default: 2, minimum: 2 }),
      active_request_bias: Type.Optional(RuntimeDouble),
      slow_start_config: Type.Optional(SlowStartConfig),
    }),
  ),
  ring_hash_lb_config: Type.Optional(
    Type.Object({
      minimum_ring_size: Type.Optional(UInt32({ maximum: MAX_RING, minimum: 1 })),
      maximum_ring_size: Type.Optional(UInt32({ maximum: MAX_RING })),
      hash_function: Enum(["XX_HASH", "MURMUR_HASH_2"], { default: "XX_HASH" }),
    }),
  ),
  maglev_lb_config: Type.Optional(
    Type.Object({ table_size: Type.Optional(UInt32({ maximum: 5_000_011, minimum: 2 })) }),
  ),
  lb_subset_config: Type.Optional(LbSubsetConfig),
  health_checks: Type.Optional(Type.Array(HealthCheck)),
  outlier_detection: Type.Optional(OutlierDetection),
  close_connections_on_host_health_failure: Type.Optional(Type.Boolean()),
  ignore_health_on_host_removal: Type.Optional(Type.Boolean()),
  /** An upstream connection serves the requests of only one downstream connection. */
  connection_pool_per_downstream_connection: Type.Optional(Type.Boolean()),
  preconnect_policy: Type.Optional(
    Type.Object({
      per_upstream_preconnect_ratio: Type.Number({ minimum: 1, maximum: 3, default: 1 }),
      predictive_preconnect_ratio: Type.Number({ minimum: 1, maximum: 3, default: 1 }),
    }),
  ),
  common_lb_config: Type.Optional(
    Type.Object({
      zone_aware_lb_config: Type.Optional(
        Type.Object({
          routing_enabled: Type.Optional(
            Type.Object({ value: Type.Number({ minimum: 0, maximum: 100, default: 0 }) }),
          ),
          min_cluster_size: Type.Optional(UInt32()),
          fail_traffic_on_panic: Type.Optional(Type.Boolean()),
        }),
      ),
      locality_weighted_lb_config: Type.Optional(Type.Object({})),
      update_merge_window: Type.Optional(Duration()),
      override_host_status: Type.Optional(
        Type.Object({ statuses: Type.Array(Enum(HEALTH_STATUSES), { default: [] }) }),
      ),
      close_connections_on_host_set_change: Type.Optional(Type.Boolean()),
      ignore_new_hosts_until_first_hc: Type.Optional(Type.Boolean()),
      consistent_hashing_lb_config: Type.Optional(
        Type.Omit(ConsistentHashingLbConfig, ["hash_policy"]),
      ),
      healthy_panic_threshold: Type.Optional(
        Type.Object({ value: Type.Number({ minimum: 0, maximum: 100, default: 0 }) }),
      ),
    }),
  ),
  circuit_breakers: Type.Optional(CircuitBreakers),
  ...DnsOptions.properties,
  wait_for_warm_on_init: Type.Optional(Type.Boolean()),
  track_cluster_stats: Type.Optional(
    Type.Object({
      timeout_budgets: Type.Optional(Type.Boolean()),
      request_response_sizes: Type.Optional(Type.Boolean()),
      per_endpoint_stats: Type.Optional(Type.Boolean()),
    }),
  ),
  /** Older name of `track_cluster_stats.timeout_budgets`. */
  track_timeout_budgets: Type.Optional(Type.Boolean()),
  ...TransportConfig,
  per_connection_buffer_limit_bytes: Type.Optional(UInt32()),
  upstream_bind_config: Type.Optional(BindConfig),
  upstream_connection_options: Type.Optional(
    Type.Object({
      happy_eyeballs_config: Type.Optional(
        Type.Object({
          first_address_family_version: Enum(["DEFAULT", "V4", "V6", "PIPE"], {
            default: "DEFAULT",
          }),
          first_address_family_count: UInt32({ default: 1, minimum: 1 }),
        }),
      ),
      tcp_keepalive: Type.Optional(TcpKeepalive),
    }),
  ),
  typed_extension_protocol_options: Type.Optional(
    Type.Object({ [HTTP_PROTOCOL_OPTIONS]: Type.Optional(HttpProtocolOptions) }),
  ),
  /** Used if the protocol options set none. */
  max_requests_per_connection: Type.Optional(UInt32()),
  /** This and the next three fields are the older place of the protocol options; used if the newer message is absent. */
  common_http_protocol_options: Type.Optional(CommonHttpOptions),
  upstream_http_protocol_options: Type.Optional(UpstreamHttpOptions),
  http_protocol_options: Type.Optional(Http1Options),
  http2_protocol_options: Type.Optional(Http2ProtocolOptions),
  protocol_selection: Enum(["USE_CONFIGURED_PROTOCOL", "USE_DOWNSTREAM_PROTOCOL"], {
    default: "USE_CONFIGURED_PROTOCOL",
  }),
});
export type ClusterConfig = Static<typeof ClusterConfig>;

export const Config = Type.Array(ClusterConfig);
export type Config = Static<typeof Config>;

/** The policies that keep neither stats nor memory that workers share: it does not matter when they are set up, nor in what order. */
const PLAIN_POLICIES: readonly ClusterConfig["lb_policy"][] = [
  "ROUND_ROBIN",
  "LEAST_REQUEST",
  "RANDOM",
];

/**
 * True for a cluster that a worker may set up as late as at its first use: nothing is discovered, checked, timed from the start of
 * the config, or read from files. Which hosts are ejected, and where their attempts are counted, the control thread has told by then.
 */
export function isPlain(config: ClusterConfig): boolean {
  return (
    config.type === "STATIC" &&
    config.cluster_type === undefined &&
    (config.health_checks ?? []).length === 0 &&
    PLAIN_POLICIES.includes(config.lb_policy) &&
    config.load_balancing_policy === undefined &&
    config.lb_subset_config === undefined &&
    config.round_robin_lb_config?.slow_start_config === undefined &&
    config.least_request_lb_config?.slow_start_config === undefined &&
    config.transport_socket === undefined &&
    config.transport_socket_matches === undefined &&
    config.typed_extension_protocol_options?.[HTTP_PROTOCOL_OPTIONS]?.http_filters === undefined
  );
}

/** Checks what the schema cannot express. Throws the errors of all clusters, one each. */
export function check(config: Config): void {
  const names = new Set<string>();
  everyOf(config, (cluster, k) => {
    if (names.has(cluster.name))
      throw new ConfigError(
        `[${k}].name`,
        `"${cluster.name}" is already the name of another cluster; rename one`,
      );
    names.add(cluster.name);
    if (cluster.connect_timeout === 0)
      throw new ConfigError(`[${k}].connect_timeout`, "must be more than 0s; leave it out for 5s");
    checkMaxRequests(cluster, `[${k}].max_requests_per_connection`);
    const protocol = protocolOf(cluster);
    checkHttp2Options(
      protocol.options.http2_protocol_options,
      `[${k}]${protocol.at}.http2_protocol_options`,
    );
    checkBinding(cluster, `[${k}].upstream_bind_config`);
    checkHealth(cluster, `[${k}]`);
    checkHashing(cluster, `[${k}]`);
    checkWeights(cluster, `[${k}].load_assignment`);
    checkDrops(cluster, `[${k}].load_assignment.policy.drop_overloads`);
  });
}

function checkMaxRequests(cluster: ClusterConfig, at: string): void {
  if (
    cluster.max_requests_per_connection !== undefined &&
    commonOptionsOf(cluster).max_requests_per_connection !== undefined
  )
    throw new ConfigError(
      at,
      "Only one of max_requests_per_connection from Cluster or HttpProtocolOptions can be specified; keep the one in common_http_protocol_options",
    );
}

/** The options of all protocols, from the newer place if that is there. */
function commonOptionsOf(config: ClusterConfig): Static<typeof CommonHttpOptions> {
  const typed = config.typed_extension_protocol_options?.[HTTP_PROTOCOL_OPTIONS];
  return (typed === undefined ? config : typed).common_http_protocol_options ?? {};
}

function checkDrops(cluster: ClusterConfig, at: string): void {
  const drops = cluster.load_assignment?.policy?.drop_overloads ?? [];
  if (drops.length > 1)
    throw new ConfigError(
      `${at}[1]`,
      `Cluster drop_overloads config has ${drops.length} categories. Envoy only support one.`,
    );
  const { numerator, denominator } = dropOf(cluster);
  if (numerator > denominator)
    throw new ConfigError(
      `${at}[0].drop_percentage`,
      `is ${numerator} of ${denominator}; the valid range is 0 to 100 %`,
    );
}

/** The fraction of requests to drop by `drop_overloads`. */
export function dropOf(config: ClusterConfig): Fraction {
  const [drop] = config.load_assignment?.policy?.drop_overloads ?? [];
  return drop?.drop_percentage === undefined
    ? { numerator: 0, denominator: 1 }
    : fractionOf(drop.drop_percentage);
}

/** The policy of the cluster's ClusterLoadAssignment, as in Envoy's config dump. */
export function policyOf(config: ClusterConfig): Readonly<Record<string, unknown>> {
  const [drop] = config.load_assignment?.policy?.drop_overloads ?? [];
  const { numerator, denominator } = dropOf(config);
  const millionth = Math.floor((numerator / denominator) * 1e6);
  return {
    ...(drop !== undefined && {
      drop_overloads: [
        {
          category: drop.category,
          drop_percentage: { numerator: millionth, denominator: "MILLION" },
        },
      ],
    }),
    overprovisioning_factor: config.load_assignment?.policy?.overprovisioning_factor ?? 140,
  };
}

/** The optional stats that the cluster tracks; undefined: none. */
export function tracksOf(config: ClusterConfig): TrackedStats | undefined {
  const tracked = config.track_cluster_stats;
  // The newer field takes precedence.
  const timeoutBudgets = tracked?.timeout_budgets ?? config.track_timeout_budgets ?? false;
  const requestResponseSizes = tracked?.request_response_sizes ?? false;
  return timeoutBudgets || requestResponseSizes
    ? { timeoutBudgets, requestResponseSizes }
    : undefined;
}

function extraSources(bind: BindConfig): readonly Static<typeof SourceAddress>[] {
  return [
    ...(bind.extra_source_addresses ?? []).map((extra) => extra.address),
    ...(bind.additional_source_addresses ?? []),
  ];
}

/** Checks `upstream_bind_config`, with Envoy's error messages. */
function checkBinding(cluster: ClusterConfig, at: string): void {
  const bind = cluster.upstream_bind_config;
  if (bind === undefined) return;
  const refuse = (field: string, why: string): never => {
    throw new ConfigError(`${at}.${field}`, `Cluster ${cluster.name}'s ${why}`);
  };
  const extra = extraSources(bind);
  if (
    (bind.extra_source_addresses ?? []).length > 0 &&
    (bind.additional_source_addresses ?? []).length > 0
  )
    throw new ConfigError(
      `${at}.additional_source_addresses`,
      `Can't specify both \`extra_source_addresses\` and \`additional_source_addresses\` in the Cluster ${cluster.name}'s upstream binding config`,
    );
  if (extra.length > 0 && bind.source_address === undefined)
    refuse(
      "extra_source_addresses",
      "upstream binding config has extra/additional source addresses but no source_address. Extra/additional addresses cannot be specified if source_address is not set.",
    );
  if (extra.length > 1)
    refuse(
      "extra_source_addresses[1]",
      "upstream binding config has more than one extra/additional source addresses. Only one extra/additional source can be supported in BindConfig's extra_source_addresses/additional_source_addresses field",
    );
  for (const { address } of [bind.source_address, ...extra].filter((one) => one !== undefined))
    if (!isIp(address)) throw new ConfigError(at, `malformed IP address: ${address}`);
  const isV6 = (ip: string): boolean => ip.includes(":");
  if (extra[0] !== undefined && isV6(extra[0].address) === isV6(bind.source_address!.address))
    refuse(
      "extra_source_addresses",
      "upstream binding config has two same IP version source addresses. Only two different IP version source addresses can be supported in BindConfig's source_address and extra_source_addresses/additional_source_addresses fields",
    );
}

/** The source addresses to connect from; the one of the upstream's family is used, else the first. */
function sourcesOf(config: ClusterConfig): readonly Address[] {
  const bind = config.upstream_bind_config;
  if (bind?.source_address === undefined) return [];
  return [bind.source_address, ...extraSources(bind)].map((source) => ({
    ip: source.address,
    port: source.port_value ?? 0,
  }));
}

/** Hashing by hostname needs hosts that are found by name, so only STRICT_DNS allows it. */
function checkHashing(cluster: ClusterConfig, at: string): void {
  const hashing = cluster.common_lb_config?.consistent_hashing_lb_config;
  if (hashing?.use_hostname_for_hashing !== true || cluster.type === "STRICT_DNS") return;
  throw new ConfigError(
    `${at}.common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing`,
    `cannot use hostname for consistent hashing loadbalancing for a cluster of type ${cluster.type ?? "STATIC"}; use STRICT_DNS`,
  );
}

function checkHealth(cluster: ClusterConfig, at: string): void {
  const checks = cluster.health_checks ?? [];
  if (checks.length > 1)
    throw new ConfigError(
      `${at}.health_checks[1]`,
      "multiple health checks not supported; keep one",
    );
  for (const field of ["timeout", "interval"] as const) {
    if (checks[0]?.[field] === 0)
      throw new ConfigError(`${at}.health_checks[0].${field}`, "must be more than 0s");
  }
  if (checks[0]?.grpc_health_check !== undefined && protocolOf(cluster).protocol === "HTTP1")
    throw new ConfigError(
      `${at}.health_checks[0].grpc_health_check`,
      "a cluster must support HTTP/2 for gRPC healthchecking; give it http2_protocol_options: {}",
    );
  const outlier = cluster.outlier_detection;
  if ((outlier?.max_ejection_time ?? Number.MAX_VALUE) < (outlier?.base_ejection_time ?? 0))
    throw new ConfigError(
      `${at}.outlier_detection.max_ejection_time`,
      "outlier detector's max_ejection_time cannot be smaller than base_ejection_time",
    );
}

/** As in Envoy, the sum of a locality's weights must fit into 32 bits. */
function checkWeights(cluster: ClusterConfig, at: string): void {
  const sums = new Map<string, number>();
  for (const { spec, path } of endpointsOf(cluster.load_assignment)) {
    const key = `${spec.priority}|${JSON.stringify(spec.locality)}`;
    const sum = (sums.get(key) ?? 0) + spec.weight;
    sums.set(key, sum);
    if (sum > 0xffff_ffff)
      throw new ConfigError(
        `${at}.${path}.load_balancing_weight`,
        "the weights of its locality add up to more than 4294967295",
      );
  }
}

/** The options that the data path needs, with Envoy's defaults. */
export interface ClusterOptions {
  readonly connectTimeoutMs: number;
  readonly keepAlive: KeepAlive | undefined;
  /** Source addresses to connect from; empty: the system chooses. */
  readonly sources: readonly Address[];
  readonly happyEyeballs: HappyEyeballs;
  /** 0: none. */
  readonly idleTimeoutMs: number;
  /** 0: none. */
  readonly maxConnectionDurationMs: number;
  /** 0: no limit. */
  readonly maxRequestsPerConnection: number;
  /** Undefined or 0: none. */
  readonly maxStreamDurationMs: number | undefined;
  /** Undefined: each protocol's own. */
  readonly maxHeadKib: number | undefined;
  readonly maxHeaders: number;
  readonly enableTrailers: boolean;
  readonly allowChunkedLength: boolean;
  readonly headerKeyFormat: HeaderNameCase | undefined;
  readonly forwardsReason: boolean;
  readonly sendsAbsoluteUrl: boolean;
  readonly protocol: "HTTP1" | "HTTP2" | "DOWNSTREAM" | "ALPN";
  readonly http2: Http2Options;
  /** Undefined: SNI and SAN validation do not depend on requests. */
  readonly peerNaming: PeerNaming | undefined;
  readonly panicThreshold: number;
  /** Statuses with which a host may be chosen as override host. */
  readonly overrideStatuses: ReadonlySet<string>;
  readonly overprovisioningFactor: number;
  readonly weightedPriorityHealth: boolean;
}

/** The upstream protocol and its options. The older fields are used if the newer message is absent. */
/** `at`: the path of the options in the cluster, with a dot before it unless they are the cluster's own fields. */
function protocolOf(config: ClusterConfig): {
  readonly at: string;
  readonly protocol: ClusterOptions["protocol"];
  readonly options: Static<typeof BothOptions>;
} {
  const typed = config.typed_extension_protocol_options?.[HTTP_PROTOCOL_OPTIONS];
  const message = `.typed_extension_protocol_options["${HTTP_PROTOCOL_OPTIONS}"]`;
  if (typed?.use_downstream_protocol_config !== undefined) {
    const at = `${message}.use_downstream_protocol_config`;
    return { at, protocol: "DOWNSTREAM", options: typed.use_downstream_protocol_config };
  }
  if (typed?.auto_config !== undefined)
    return { at: `${message}.auto_config`, protocol: "ALPN", options: typed.auto_config };
  const at = typed === undefined ? "" : `${message}.explicit_http_config`;
  const options = (typed === undefined ? config : typed.explicit_http_config) ?? {};
  if (typed === undefined && config.protocol_selection === "USE_DOWNSTREAM_PROTOCOL")
    return { at, protocol: "DOWNSTREAM", options };
  const isHttp2 = options.http2_protocol_options !== undefined;
  return { at, protocol: isHttp2 ? "HTTP2" : "HTTP1", options };
}

/** `upstream_http_protocol_options`, as they apply to hosts of this kind. As in Envoy, the newer message has no defaults. */
function peerOptionsOf(
  config: ClusterConfig,
  peerNames: ClusterType["peerNames"],
): Static<typeof UpstreamHttpOptions> | undefined {
  const typed = config.typed_extension_protocol_options?.[HTTP_PROTOCOL_OPTIONS];
  if (typed !== undefined) return typed.upstream_http_protocol_options;
  const byName = { auto_sni: true, auto_san_validation: true };
  return config.upstream_http_protocol_options ?? (peerNames && byName);
}

/** `upstream_http_protocol_options` that the type of a cluster implies; undefined: the config has its say. */
export function peerNamesOf(
  config: ClusterConfig,
  peerNames: ClusterType["peerNames"],
): Static<typeof UpstreamHttpOptions> | undefined {
  const typed = config.typed_extension_protocol_options?.[HTTP_PROTOCOL_OPTIONS];
  return typed === undefined ? peerOptionsOf(config, peerNames) : undefined;
}

/** Refuses a config whose hosts are named by requests but not held to these names. */
export function checkPeerNames(
  config: ClusterConfig,
  { peerNames }: ClusterType,
  at: string,
): void {
  const options = peerOptionsOf(config, peerNames);
  if (peerNames !== "verified" || (options?.auto_sni && options.auto_san_validation)) return;
  const isTyped = config.typed_extension_protocol_options?.[HTTP_PROTOCOL_OPTIONS] !== undefined;
  throw new ConfigError(
    `${at}.${isTyped ? `typed_extension_protocol_options["${HTTP_PROTOCOL_OPTIONS}"]` : "upstream_http_protocol_options"}`,
    "requests name the hosts of this cluster, so TLS must ask for these names and verify them; write upstream_http_protocol_options: { auto_sni: true, auto_san_validation: true }, or allow_insecure_cluster_options in the cluster_type",
  );
}

/** `peerNames`: that of the cluster's type. */
export function optionsOf(
  config: ClusterConfig,
  peerNames: ClusterType["peerNames"],
): ClusterOptions {
  const common = commonOptionsOf(config);
  const { protocol, options } = protocolOf(config);
  const http1 = options.http_protocol_options ?? {};
  const eyeballs = config.upstream_connection_options?.happy_eyeballs_config;
  return {
    connectTimeoutMs: config.connect_timeout ?? 5_000,
    keepAlive: keepAliveOf(config.upstream_connection_options?.tcp_keepalive),
    sources: sourcesOf(config),
    happyEyeballs: {
      firstFamily:
        eyeballs?.first_address_family_version === "DEFAULT"
          ? undefined
          : eyeballs?.first_address_family_version,
      firstCount: eyeballs?.first_address_family_count ?? 1,
    },
    idleTimeoutMs: common.idle_timeout ?? 3_600_000,
    maxConnectionDurationMs: common.max_connection_duration ?? 0,
    maxRequestsPerConnection:
      common.max_requests_per_connection ?? config.max_requests_per_connection ?? 0,
    maxStreamDurationMs: common.max_stream_duration,
    maxHeadKib: common.max_response_headers_kb,
    maxHeaders: common.max_headers_count ?? 100,
    enableTrailers: http1.enable_trailers ?? false,
    allowChunkedLength: http1.allow_chunked_length ?? false,
    headerKeyFormat: headerKeyFormat(http1.header_key_format),
    forwardsReason: forwardsReason(http1.header_key_format),
    sendsAbsoluteUrl: http1.send_fully_qualified_url ?? false,
    protocol,
    http2: http2Options(options.http2_protocol_options),
    peerNaming: PeerNaming.of(peerOptionsOf(config, peerNames)),
    overrideStatuses: new Set(
      config.common_lb_config?.override_host_status?.statuses ?? ["UNKNOWN", "HEALTHY", "DEGRADED"],
    ),
    panicThreshold: Math.round(config.common_lb_config?.healthy_panic_threshold?.value ?? 50),
    overprovisioningFactor: config.load_assignment?.policy?.overprovisioning_factor ?? 140,
    weightedPriorityHealth: config.load_assignment?.policy?.weighted_priority_health ?? false,
  };
}
