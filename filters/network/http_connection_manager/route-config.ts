import {
  Duration,
  Enum,
  HeaderMatcher,
  headerRules,
  QueryParameterMatcher,
  RouteConfigs,
  RuntimeFractionalPercent,
  SafeRegex,
  type Static,
  Type,
  UInt32,
} from "@tsproxy/sdk";
import {
  actionPolicyFields,
  bufferFields,
  mirrorFields,
  virtualHostPolicyFields,
  weightedPolicyFields,
} from "./policies-config.ts";

const RouteMatch = Type.Object({
  prefix: Type.Optional(Type.String()),
  path: Type.Optional(Type.String()),
  safe_regex: Type.Optional(SafeRegex),
  path_separated_prefix: Type.Optional(Type.String({ pattern: "^/[^?#]*[^?#/]$" })),
  case_sensitive: Type.Boolean({ default: true }),
  headers: Type.Array(HeaderMatcher, { default: [] }),
  query_parameters: Type.Array(QueryParameterMatcher, { default: [] }),
  runtime_fraction: Type.Optional(RuntimeFractionalPercent),
  grpc: Type.Optional(Type.Object({})),
});
export type RouteMatch = Static<typeof RouteMatch>;

const RegexRewrite = Type.Object({
  pattern: SafeRegex,
  substitution: Type.String({ default: "" }),
});
export type RegexRewrite = Static<typeof RegexRewrite>;

const WeightedCluster = Type.Object({
  name: Type.Optional(Type.String()),
  cluster_header: Type.Optional(Type.String()),
  weight: UInt32({ default: 0 }),
  host_rewrite_literal: Type.Optional(Type.String()),
  typed_per_filter_config: Type.Optional(RouteConfigs()),
  ...weightedPolicyFields,
  ...headerRules,
});
export type WeightedCluster = Static<typeof WeightedCluster>;

const RouteActionConfig = Type.Object({
  cluster: Type.Optional(Type.String({ minLength: 1 })),
  cluster_header: Type.Optional(Type.String({ minLength: 1 })),
  weighted_clusters: Type.Optional(
    Type.Object({ clusters: Type.Array(WeightedCluster, { minItems: 1 }) }),
  ),
  cluster_not_found_response_code: Enum(
    ["SERVICE_UNAVAILABLE", "NOT_FOUND", "INTERNAL_SERVER_ERROR"],
    { default: "SERVICE_UNAVAILABLE" },
  ),
  prefix_rewrite: Type.Optional(Type.String()),
  regex_rewrite: Type.Optional(RegexRewrite),
  host_rewrite_literal: Type.Optional(Type.String()),
  host_rewrite_header: Type.Optional(Type.String()),
  host_rewrite_path_regex: Type.Optional(RegexRewrite),
  auto_host_rewrite: Type.Boolean({ default: false }),
  append_x_forwarded_host: Type.Boolean({ default: false }),
  timeout: Duration({ default: 15_000 }),
  idle_timeout: Type.Optional(Duration()),
  upgrade_configs: Type.Array(
    Type.Object({
      upgrade_type: Type.String({ minLength: 1 }),
      enabled: Type.Boolean({ default: true }),
    }),
    { default: [] },
  ),
  ...actionPolicyFields,
});
export type RouteActionConfig = Static<typeof RouteActionConfig>;

const RedirectConfig = Type.Object({
  https_redirect: Type.Optional(Type.Boolean()),
  scheme_redirect: Type.Optional(Type.String()),
  host_redirect: Type.Optional(Type.String()),
  port_redirect: Type.Optional(UInt32({ maximum: 65535 })),
  path_redirect: Type.Optional(Type.String()),
  prefix_rewrite: Type.Optional(Type.String()),
  regex_rewrite: Type.Optional(RegexRewrite),
  response_code: Enum(
    ["MOVED_PERMANENTLY", "FOUND", "SEE_OTHER", "TEMPORARY_REDIRECT", "PERMANENT_REDIRECT"],
    { default: "MOVED_PERMANENTLY" },
  ),
  strip_query: Type.Boolean({ default: false }),
});
export type RedirectConfig = Static<typeof RedirectConfig>;

const DirectResponse = Type.Object({
  status: Type.Integer({ minimum: 200, maximum: 599 }),
  body: Type.Optional(Type.Object({ inline_string: Type.Optional(Type.String()) })),
});

const RouteEntry = Type.Object({
  name: Type.String({ default: "" }),
  match: RouteMatch,
  route: Type.Optional(RouteActionConfig),
  redirect: Type.Optional(RedirectConfig),
  direct_response: Type.Optional(DirectResponse),
  metadata: Type.Optional(
    Type.Object({
      filter_metadata: Type.Record(Type.String(), Type.Unknown(), { default: {} }),
    }),
  ),
  typed_per_filter_config: Type.Optional(RouteConfigs()),
  ...bufferFields,
  ...headerRules,
});
export type RouteEntry = Static<typeof RouteEntry>;

const VirtualHostConfig = Type.Object({
  name: Type.String({ minLength: 1 }),
  domains: Type.Array(Type.String(), { minItems: 1 }),
  routes: Type.Array(RouteEntry, { default: [] }),
  require_tls: Enum(["NONE", "EXTERNAL_ONLY", "ALL"], { default: "NONE" }),
  typed_per_filter_config: Type.Optional(RouteConfigs()),
  ...virtualHostPolicyFields,
  ...headerRules,
});
export type VirtualHostConfig = Static<typeof VirtualHostConfig>;

/** Envoy's RouteConfiguration. */
export const RouteConfig = Type.Object({
  name: Type.String({ default: "" }),
  virtual_hosts: Type.Array(VirtualHostConfig, { default: [] }),
  validate_clusters: Type.Boolean({ default: true }),
  ignore_port_in_host_matching: Type.Boolean({ default: false }),
  most_specific_header_mutations_wins: Type.Boolean({ default: false }),
  internal_only_headers: Type.Array(Type.String({ minLength: 1 }), { default: [] }),
  max_direct_response_body_size_bytes: UInt32({ default: 4096 }),
  typed_per_filter_config: Type.Optional(RouteConfigs()),
  ...mirrorFields,
  ...headerRules,
});
export type RouteConfig = Static<typeof RouteConfig>;
