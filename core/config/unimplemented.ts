import type { Descriptor } from "./descriptor.ts";
import type { Place, Report } from "./diagnostic.ts";
import type { MapNode, Node } from "./document.ts";

/**
 * Fields that are errors as long as no schema lists them: without them the proxy would send in plain what is to be encrypted, let
 * in whom it is to keep out, or send a request where it does not belong. All other fields that Envoy has and no schema lists are
 * warnings. `*`: every field of the message.
 */
const MUST_NOT_IGNORE: { readonly [message: string]: readonly string[] | "*" } = {
  "envoy.config.bootstrap.v3.Bootstrap.DynamicResources": [
    "lds_config",
    "cds_config",
    "ads_config",
  ],
  "envoy.config.bootstrap.v3.Bootstrap": ["dynamic_resources"],
  "envoy.config.bootstrap.v3.Admin": ["allow_paths"],
  "envoy.config.listener.v3.Listener": [
    "api_listener",
    "fcds_config",
    "filter_chain_matcher",
    "transparent",
  ],
  "envoy.config.listener.v3.UdpListenerConfig": ["quic_options"],
  "envoy.config.listener.v3.FilterChain": ["transport_socket"],
  "envoy.config.listener.v3.FilterChainMatch": "*",
  "envoy.config.core.v3.SocketAddress": ["network_namespace_filepath", "resolver_name"],
  "envoy.config.cluster.v3.Cluster": [
    "cluster_type",
    "filters",
    "lb_subset_config",
    "load_balancing_policy",
    "transport_socket",
    "transport_socket_matcher",
    "transport_socket_matches",
  ],
  "envoy.config.common.matcher.v3.Matcher.OnMatch": ["keep_matching"],
  "envoy.config.endpoint.v3.LbEndpoint": ["health_status"],
  "envoy.config.endpoint.v3.LocalityLbEndpoints": ["priority"],
  "envoy.config.core.v3.HttpProtocolOptions": ["headers_with_underscores_action"],
  "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager": [
    "early_header_mutation_extensions",
    "forward_client_cert_matcher",
    "forward_proto_config",
    "internal_address_config",
    "merge_slashes",
    "normalize_path",
    "original_ip_detection_extensions",
    "path_normalization_options",
    "path_with_escaped_slashes_action",
    "skip_xff_append",
    "strip_any_host_port",
    "strip_matching_host_port",
    "strip_trailing_host_dot",
    "use_remote_address",
    "xff_num_trusted_hops",
  ],
  "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter": ["disabled"],
  "envoy.extensions.filters.http.composite.v3.Composite": "*",
  "envoy.extensions.filters.http.composite.v3.ExecuteFilterAction": "*",
  "envoy.extensions.common.ratelimit.v3.LocalRateLimitDescriptor": ["shadow_mode"],
  "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy": ["tunneling_config", "metadata_match"],
  "envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig": [
    "session_filters",
    "tunneling_config",
    "use_original_src_ip",
  ],
  "envoy.config.route.v3.RouteConfiguration": [
    "internal_only_headers",
    "request_headers_to_add",
    "request_headers_to_remove",
    "response_headers_to_add",
    "response_headers_to_remove",
    "route_specifiers",
    "typed_per_filter_config",
    "vhds",
  ],
  "envoy.config.route.v3.VirtualHost": [
    "matcher",
    "request_headers_to_add",
    "request_headers_to_remove",
    "require_tls",
    "response_headers_to_add",
    "response_headers_to_remove",
    "route_specifiers",
    "typed_per_filter_config",
  ],
  "envoy.config.route.v3.Route": [
    "request_headers_to_add",
    "request_headers_to_remove",
    "response_headers_to_add",
    "response_headers_to_remove",
    "route_specifiers",
    "typed_per_filter_config",
  ],
  "envoy.config.route.v3.WeightedCluster.ClusterWeight": [
    "cluster_header",
    "host_rewrite_literal",
    "metadata_match",
    "request_headers_to_add",
    "request_headers_to_remove",
    "typed_per_filter_config",
  ],
  "envoy.config.route.v3.RouteAction.RequestMirrorPolicy": [
    "host_rewrite_literal",
    "request_headers_mutations",
  ],
  "envoy.config.route.v3.RedirectAction": ["path_rewrite"],
  "envoy.config.route.v3.RouteMatch": "*",
  "envoy.config.route.v3.HeaderMatcher": "*",
  "envoy.config.route.v3.QueryParameterMatcher": "*",
  "envoy.config.route.v3.RouteAction": [
    "auto_host_rewrite",
    "host_rewrite",
    "host_rewrite_header",
    "host_rewrite_literal",
    "host_rewrite_path_regex",
    "metadata_match",
    "path_rewrite",
    "path_rewrite_policy",
    "prefix_rewrite",
    "regex_rewrite",
  ],
};

/** Prefixes of messages in which every field guards something, or says what matches. */
const MUST_NOT_IGNORE_SPACES = [
  "envoy.config.rbac.",
  "envoy.type.matcher.",
  "xds.type.matcher.",
  "envoy.extensions.transport_sockets.",
  "envoy.extensions.filters.http.api_key_auth.",
  "envoy.extensions.filters.http.basic_auth.",
  "envoy.extensions.filters.http.csrf.",
  "envoy.extensions.filters.http.ext_authz.",
  "envoy.extensions.filters.http.jwt_authn.",
  "envoy.extensions.filters.http.oauth2.",
  "envoy.extensions.filters.http.rbac.",
  "envoy.extensions.filters.network.ext_authz.",
  "envoy.extensions.filters.network.rbac.",
];

/** Fields whose default is true: where `true` is written, nothing is lost. */
const TRUE_BY_DEFAULT = new Set(["envoy.config.listener.v3.Listener.bind_to_port"]);

/** Deprecated fields, without any effect in Envoy either. */
const WITHOUT_EFFECT = new Set([
  "envoy.type.matcher.v3.RegexMatcher.google_re2",
  "xds.type.matcher.v3.RegexMatcher.google_re2",
]);

/** What to write in place of what comes from a control plane. */
const FROM_FILES: { readonly [field: string]: string } = {
  "envoy.config.bootstrap.v3.Bootstrap.dynamic_resources":
    "write its listeners and clusters under static_resources",
  "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.rds":
    "write the routes under route_config",
};

/** Reports a field that Envoy has and no schema lists, unless its value says nothing. */
export function reportUnimplemented(
  report: Report,
  descriptor: Descriptor,
  parent: MapNode,
  name: string,
  place: Place,
  value: Node,
): void {
  const message = parent.message ?? "";
  const full = `${message}.${name}`;
  if (WITHOUT_EFFECT.has(full) || saysNothing(descriptor, full, message, name, value)) return;
  const described = descriptor.message(message);
  const oneof = described?.fields[name]?.o;
  const chosen = oneof !== undefined && described?.required?.includes(oneof) === true;
  const listed = MUST_NOT_IGNORE[message];
  if (
    chosen ||
    listed === "*" ||
    listed?.includes(name) === true ||
    MUST_NOT_IGNORE_SPACES.some((space) => message.startsWith(space))
  )
    report.unservable(
      place,
      "known to Envoy, not implemented here, and not safe to ignore",
      FROM_FILES[full],
    );
  else report.unimplemented(place, "known to Envoy, not implemented here");
}

/** True if the value is the default, so that nothing is lost without it. */
function saysNothing(
  descriptor: Descriptor,
  full: string,
  message: string,
  name: string,
  value: Node,
): boolean {
  if (value.kind === "list") return value.items.length === 0;
  if (value.kind === "map") return false;
  if (value.invalid) return true;
  if (TRUE_BY_DEFAULT.has(full)) return value.value === true;
  const field = descriptor.message(message)?.fields[name];
  if (field === undefined || field.o !== undefined || field.t.startsWith("google.")) return false;
  if (field.e === 1) return descriptor.enum(field.t)?.[String(value.value)] === 0;
  return value.value === false || value.value === 0 || value.value === "";
}
