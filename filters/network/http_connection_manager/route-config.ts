import {
  BytesSource,
  Duration,
  Enum,
  Extension,
  FilterStateMatcher,
  HeaderMatcher,
  headerRules,
  LateList,
  MatcherOf,
  MetadataMatcher,
  ProxyProtocolConfig,
  QueryParameterMatcher,
  RateLimit,
  RegexRewrite,
  RouteConfigs,
  RuntimeFractionalPercent,
  SafeRegex,
  type Static,
  StringMatcher,
  Type,
  TypedExtension,
  UInt32,
  UriTemplateMatch,
} from "@tsproxy/sdk";
import { BodyFormatConfig } from "./body-format.ts";
import {
  actionPolicyFields,
  entryPolicyFields,
  mirrorFields,
  virtualHostPolicyFields,
  weightedPolicyFields,
} from "./policies-config.ts";

const RouteMatch = Type.Object({
  prefix: Type.Optional(Type.String()),
  path: Type.Optional(Type.String()),
  safe_regex: Type.Optional(SafeRegex),
  path_separated_prefix: Type.Optional(Type.String({ pattern: "^/[^?#]*[^?#/]$" })),
  connect_matcher: Type.Optional(Type.Object({})),
  path_match_policy: Type.Optional(UriTemplateMatch),
  case_sensitive: Type.Boolean({ default: true }),
  headers: Type.Array(HeaderMatcher, { default: [] }),
  query_parameters: Type.Array(QueryParameterMatcher, { default: [] }),
  runtime_fraction: Type.Optional(RuntimeFractionalPercent),
  grpc: Type.Optional(Type.Object({})),
  tls_context: Type.Optional(
    Type.Object({
      presented: Type.Optional(Type.Boolean()),
      validated: Type.Optional(Type.Boolean()),
    }),
  ),
  dynamic_metadata: Type.Array(MetadataMatcher, { default: [] }),
  cookies: Type.Array(
    Type.Object({
      name: Type.String({ minLength: 1 }),
      string_match: StringMatcher,
      invert_match: Type.Boolean({ default: false }),
    }),
    { default: [] },
  ),
  filter_state: Type.Array(FilterStateMatcher, { default: [] }),
});
export type RouteMatch = Static<typeof RouteMatch>;

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

/** The plugin's name is the name of its `extension`. */
const ClusterSpecifierPlugin = Type.Object({ extension: Extension("cluster_specifier") });

const rateLimits = Type.Array(RateLimit, { default: [] });

const RouteActionConfig = Type.Object({
  rate_limits: rateLimits,
  include_vh_rate_limits: Type.Boolean({ default: false }),
  cluster: Type.Optional(Type.String({ minLength: 1 })),
  cluster_header: Type.Optional(Type.String({ minLength: 1 })),
  weighted_clusters: Type.Optional(
    Type.Object({
      clusters: Type.Array(WeightedCluster, { minItems: 1 }),
      runtime_key_prefix: Type.String({ default: "" }),
      header_name: Type.String({ default: "" }),
      use_hash_policy: Type.Boolean({ default: false }),
    }),
  ),
  cluster_specifier_plugin: Type.Optional(Type.String({ minLength: 1 })),
  inline_cluster_specifier_plugin: Type.Optional(ClusterSpecifierPlugin),
  cluster_not_found_response_code: Enum(
    ["SERVICE_UNAVAILABLE", "NOT_FOUND", "INTERNAL_SERVER_ERROR"],
    { default: "SERVICE_UNAVAILABLE" },
  ),
  prefix_rewrite: Type.Optional(Type.String()),
  regex_rewrite: Type.Optional(RegexRewrite),
  path_rewrite: Type.Optional(Type.String()),
  path_rewrite_policy: Type.Optional(
    TypedExtension({
      "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig": Type.Object({
        path_template_rewrite: Type.String({ minLength: 1, maxLength: 256 }),
      }),
    }),
  ),
  host_rewrite: Type.Optional(Type.String()),
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
      connect_config: Type.Optional(
        Type.Object({
          allow_post: Type.Boolean({ default: false }),
          proxy_protocol_config: Type.Optional(ProxyProtocolConfig),
        }),
      ),
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
  path_rewrite: Type.Optional(Type.String()),
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
  body: Type.Optional(BytesSource()),
  body_format: Type.Optional(BodyFormatConfig),
});

const metadata = Type.Optional(
  Type.Object({
    filter_metadata: Type.Record(Type.String(), Type.Unknown(), { default: {} }),
  }),
);

const RouteEntry = Type.Object({
  name: Type.String({ default: "" }),
  match: RouteMatch,
  route: Type.Optional(RouteActionConfig),
  redirect: Type.Optional(RedirectConfig),
  direct_response: Type.Optional(DirectResponse),
  non_forwarding_action: Type.Optional(Type.Object({})),
  metadata,
  typed_per_filter_config: Type.Optional(RouteConfigs()),
  ...entryPolicyFields,
  ...headerRules,
});
export type RouteEntry = Static<typeof RouteEntry>;

const VirtualCluster = Type.Object({
  name: Type.String({ minLength: 1 }),
  headers: Type.Array(HeaderMatcher, { default: [] }),
});

const VirtualHostConfig = Type.Object({
  rate_limits: rateLimits,
  metadata,
  name: Type.String({ minLength: 1 }),
  domains: Type.Array(Type.String(), { minItems: 1 }),
  routes: Type.Array(RouteEntry, { default: [] }),
  matcher: Type.Optional(
    MatcherOf({
      "envoy.config.route.v3.Route": RouteEntry,
      "envoy.config.route.v3.RouteList": Type.Object({ routes: Type.Array(RouteEntry) }),
    }),
  ),
  virtual_clusters: Type.Array(VirtualCluster, { default: [] }),
  require_tls: Enum(["NONE", "EXTERNAL_ONLY", "ALL"], { default: "NONE" }),
  typed_per_filter_config: Type.Optional(RouteConfigs()),
  ...virtualHostPolicyFields,
  ...headerRules,
});
export type VirtualHostConfig = Static<typeof VirtualHostConfig>;

/** Envoy's RouteConfiguration. */
export const RouteConfig = Type.Object({
  name: Type.String({ default: "" }),
  virtual_hosts: LateList(VirtualHostConfig),
  validate_clusters: Type.Boolean({ default: true }),
  /** Header whose value chooses the virtual host, instead of the request's host. "": none. */
  vhost_header: Type.String({ default: "" }),
  ignore_port_in_host_matching: Type.Boolean({ default: false }),
  ignore_path_parameters_in_path_matching: Type.Boolean({ default: false }),
  most_specific_header_mutations_wins: Type.Boolean({ default: false }),
  internal_only_headers: Type.Array(Type.String({ minLength: 1 }), { default: [] }),
  max_direct_response_body_size_bytes: UInt32({ default: 4096 }),
  typed_per_filter_config: Type.Optional(RouteConfigs()),
  cluster_specifier_plugins: Type.Array(ClusterSpecifierPlugin, { default: [] }),
  ...mirrorFields,
  ...headerRules,
});
export type RouteConfig = Static<typeof RouteConfig>;
