import { moveCors } from "./cors.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Place, Report } from "./diagnostic.ts";
import {
  clone,
  invalidAt,
  isNull,
  ListNode,
  MapNode,
  mapOf,
  type Node,
  scalar,
} from "./document.ts";
import type { Registry } from "./registry.ts";

/** v2: a file for Envoy 1.6 to 1.17, whose old forms are rewritten. v3: old forms are refused, as Envoy does. */
export type Era = "v2" | "v3";

/** Fields that no v3 file has. */
const OLD_FIELDS = new Set([
  "hosts",
  "tls_context",
  "use_websocket",
  "per_filter_config",
  "deprecated_v1",
  "sni_domains",
]);

/**
 * A v2 type makes a file v2, even beside v3 types: Envoy in 2020 read such a file as v2. An old form makes it v2 if there are no
 * v3 types. Any other file is v3.
 */
export function eraOf(root: Node): Era {
  const seen = { v2: false, v3: false, old: false };
  look(root, seen);
  if (seen.v2) return "v2";
  return seen.old && !seen.v3 ? "v2" : "v3";
}

function look(node: Node, seen: { v2: boolean; v3: boolean; old: boolean }): void {
  if (node.kind === "list") for (const item of node.items) look(item, seen);
  if (node.kind !== "map" || node.unread !== undefined) return;
  const type = node.string("@type") ?? node.string("type_url");
  if (type !== undefined && /\/envoy\./.test(type)) {
    if (/\.v3(alpha)?\./.test(type)) seen.v3 = true;
    else seen.v2 = true;
  }
  if (node.has("config") && isEnvoyName(node.string("name"))) seen.old = true;
  for (let entry = node.entries.first; entry !== undefined; entry = entry.next) {
    if (OLD_FIELDS.has(entry.key)) seen.old = true;
    if (entry.value.kind !== "scalar") look(entry.value, seen);
  }
}

export function isEnvoyName(name: string | undefined): name is string {
  return name?.startsWith("envoy.") === true;
}

/** The message in which an extension stands decides what a short v2 name means: `envoy.ratelimit` is two filters. */
const PLACES: { readonly [message: string]: { readonly prefix: string; readonly kind: string } } = {
  "envoy.config.listener.v3.Filter": { prefix: "envoy.filters.network.", kind: "network" },
  "envoy.config.listener.v3.ListenerFilter": {
    prefix: "envoy.filters.listener.",
    kind: "listener",
  },
  "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter": {
    prefix: "envoy.filters.http.",
    kind: "http",
  },
  "envoy.config.accesslog.v3.AccessLog": { prefix: "envoy.access_loggers.", kind: "access_log" },
  "envoy.config.metrics.v3.StatsSink": { prefix: "envoy.stat_sinks.", kind: "stats_sink" },
  "envoy.config.trace.v3.Tracing.Http": { prefix: "envoy.tracers.", kind: "tracer" },
  "envoy.config.core.v3.TransportSocket": { prefix: "envoy.transport_sockets.", kind: "transport" },
  "envoy.config.route.v3.RetryPolicy.RetryHostPredicate": {
    prefix: "envoy.retry_host_predicates.",
    kind: "retry_host_predicate",
  },
  "envoy.config.route.v3.RetryPolicy.RetryPriority": {
    prefix: "envoy.retry_priorities.",
    kind: "retry_priority",
  },
  "envoy.config.core.v3.HealthCheck.CustomHealthCheck": {
    prefix: "envoy.health_checkers.",
    kind: "health",
  },
  "envoy.config.overload.v3.ResourceMonitor": {
    prefix: "envoy.resource_monitors.",
    kind: "resource_monitor",
  },
};

/** Last parts of v2 names that v3 has renamed. */
const RENAMED: { readonly [name: string]: string } = {
  rate_limit: "ratelimit",
  file_access_log: "file",
  http_grpc_access_log: "http_grpc",
  tcp_grpc_access_log: "tcp_grpc",
  "dynamic.ot": "dynamic_ot",
};

/** The v3 name of an extension that v2 files call otherwise. */
export function modernName(name: string, prefix: string): string {
  if (name.startsWith(prefix)) return name;
  const short = name.replace(/^envoy\./, "").replace(/^(listener|tracers|stat_sinks)\./, "");
  return prefix + (RENAMED[short] ?? short);
}

/**
 * Rewrites v2's forms to v3's while the tree is walked. `rewrite` is called once for each message, before its fields are read.
 */
export class Rewriter {
  readonly era: Era;
  readonly #descriptor: Descriptor;
  readonly #registry: Registry;
  readonly #report: Report;
  #tracing: MapNode | undefined;
  #rateLimitService: Node | undefined;

  constructor(era: Era, descriptor: Descriptor, registry: Registry, report: Report) {
    this.era = era;
    this.#descriptor = descriptor;
    this.#registry = registry;
    this.#report = report;
  }

  /** The v3 name of a type; in v2 files the v2 names are aliases. */
  typeName(type: string): string {
    return this.era === "v2" ? (this.#descriptor.successor(type) ?? type) : type;
  }

  /** For a v2 field in a v3 file: what to write instead. Undefined: nothing is known of it. */
  hint(type: string, key: string): string | undefined {
    const fields = V2_FIELDS[type] ?? {};
    return Object.hasOwn(fields, key) ? `that is Envoy's v2; write ${fields[key]}` : undefined;
  }

  rewrite(type: string, node: MapNode): void {
    if (this.era === "v2") this.#rewriteOld(type, node);
    COMMON[type]?.(node);
  }

  #rewriteOld(type: string, node: MapNode): void {
    if (type in PLACES) this.#extensionEntry(type, node);
    switch (type) {
      case "envoy.config.bootstrap.v3.Bootstrap":
        this.#bootstrap(node);
        break;
      case "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager":
        this.#connectionManager(node);
        break;
      case "envoy.extensions.filters.http.ratelimit.v3.RateLimit":
      case "envoy.extensions.filters.network.ratelimit.v3.RateLimit":
        if (this.#rateLimitService !== undefined && !node.has("rate_limit_service"))
          node.set("rate_limit_service", clone(this.#rateLimitService));
        break;
    }
    TABLE[type]?.(node);
    const perRoute = node.map("typed_per_filter_config");
    if (perRoute !== undefined) this.#perRoute(perRoute);
  }

  /** Adds types to per-route configs, which v2 wrote without: the filter's name says them. */
  #perRoute(configs: MapNode): void {
    for (const [name, { value, place }] of configs.entries) {
      if (value.kind !== "map" || value.has("@type")) continue;
      const main = this.#descriptor.extensions.get(modernName(name, "envoy.filters.http."));
      if (main === undefined || !isEnvoyName(name)) continue;
      const own = this.#descriptor.siblings(main).find((t) => /PerRoute(Config)?$/.test(t));
      const type = scalar(place, `type.googleapis.com/${own ?? main}`);
      const rest = [...value.entries];
      value.entries.clear();
      value.set("@type", type, place);
      for (const [key, entry] of rest) value.entries.set(key, entry);
    }
  }

  /** Turns `config`, an untyped Struct, into a typed_config: the name says the type. */
  #extensionEntry(type: string, node: MapNode): void {
    const { prefix, kind } = PLACES[type]!;
    const v1 =
      node.entries.get("deprecated_v1") ?? node.map("config")?.entries.get("deprecated_v1");
    if (v1 !== undefined) {
      const { place } = v1;
      node.delete("deprecated_v1");
      this.#report.error(place, "a v1 filter config cannot be read", "write it in v2 or v3 form");
      const config = node.delete("config") ?? node.get("typed_config");
      node.set("typed_config", invalidAt(place, config), place);
      return;
    }
    const name = node.string("name");
    if (name === undefined || (!name.startsWith("envoy.") && kind !== "transport")) return;
    const typed = node.map("typed_config");
    if (typed?.has("@type") === true && !typed.string("@type")!.endsWith("google.protobuf.Struct"))
      return;
    if (typed !== undefined && node.has("config")) return;
    const key = typed === undefined ? "config" : "typed_config";
    const message = this.#configType(name, prefix, kind);
    if (message === undefined) return;
    const entry = node.entries.get(key);
    if (entry !== undefined && entry.value.kind !== "map" && !isNull(entry.value)) return;
    const place = entry?.place ?? node.get("name")!.place;
    const inner = entry?.value.kind === "map" ? entry.value : undefined;
    const body = typed?.has("@type") === true ? typed.map("value") : inner;
    const config = new MapNode(body?.place ?? place, body?.entries);
    const named = node.get("name")!.place;
    config.set("@type", scalar(named, `type.googleapis.com/${message}`), named);
    node.delete("config");
    node.set("typed_config", config, place);
  }

  #configType(name: string, prefix: string, kind: string): string | undefined {
    const modern = modernName(name, prefix);
    if (modern === "envoy.filters.http.gzip") return "envoy.extensions.filters.http.gzip.v3.Gzip";
    return (
      this.#descriptor.extensions.get(modern) ??
      this.#registry.named(kind, modern)?.types[0] ??
      this.#registry.named(kind, name)?.types[0]
    );
  }

  #bootstrap(node: MapNode): void {
    this.#tracing = node.map("tracing")?.map("http");
    this.#rateLimitService = node.delete("rate_limit_service");
    const runtime = node.entries.get("runtime");
    if (runtime?.value.kind !== "map") return;
    node.delete("runtime");
    const { place } = runtime;
    const layer = (name: string, kind: string, body: MapNode) =>
      mapOf(place, { name: scalar(place, name), [kind]: body });
    const base = runtime.value;
    const disk = (subdirectory: Node | undefined, cluster: boolean) =>
      mapOf(place, {
        symlink_root: base.get("symlink_root"),
        subdirectory,
        append_service_cluster: cluster ? scalar(place, true) : undefined,
      });
    const layers = [layer("root", "disk_layer", disk(base.get("subdirectory"), false))];
    const override = base.get("override_subdirectory");
    if (override !== undefined) layers.push(layer("override", "disk_layer", disk(override, true)));
    layers.push(layer("admin", "admin_layer", new MapNode(place)));
    const list = new ListNode(place, layers);
    node.set("layered_runtime", mapOf(place, { layers: list }), place);
  }

  #connectionManager(node: MapNode): void {
    const idle = node.entries.get("idle_timeout");
    if (idle !== undefined) {
      node.delete("idle_timeout");
      const options = node.map("common_http_protocol_options") ?? new MapNode(idle.place);
      if (!options.has("idle_timeout")) options.set("idle_timeout", idle.value, idle.place);
      node.set("common_http_protocol_options", options);
    }
    const tracing = node.map("tracing");
    if (tracing === undefined) return;
    // The listener's rule has turned it into traffic_direction before.
    tracing.delete("operation_name");
    const tags = tracing.list("request_headers_for_tags");
    if (tags.length > 0) {
      const place = tags[0]!.place;
      const custom = tags.map((tag) =>
        mapOf(tag.place, { tag, request_header: mapOf(tag.place, { name: clone(tag) }) }),
      );
      tracing.delete("request_headers_for_tags");
      tracing.set("custom_tags", new ListNode(place, [...tracing.list("custom_tags"), ...custom]));
    }
    if (this.#tracing !== undefined && !tracing.has("provider"))
      tracing.set("provider", clone(this.#tracing));
  }
}

type Rule = (node: MapNode) => void;

const STRING_MATCHES: { readonly [old: string]: string } = {
  exact_match: "exact",
  prefix_match: "prefix",
  suffix_match: "suffix",
  contains_match: "contains",
  safe_regex_match: "safe_regex",
};

/** Rewrites for files of either era: forms that v3 still accepts. */
const COMMON: { readonly [type: string]: Rule } = {
  "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager": moveCors,
  "envoy.config.listener.v3.Listener": (node) => {
    const chains = node.list("filter_chains").filter((c) => c.kind === "map");
    const chain = chains.find((c) => isTrue(c.get("use_proxy_proto")));
    for (const c of chains) c.delete("use_proxy_proto");
    if (chain === undefined) return;
    const place = chain.place;
    const type =
      "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
    const filter = mapOf(place, {
      name: scalar(place, "envoy.filters.listener.proxy_protocol"),
      typed_config: mapOf(place, { "@type": scalar(place, type) }),
    });
    node.set("listener_filters", new ListNode(place, [filter, ...node.list("listener_filters")]));
  },
  "envoy.config.route.v3.HeaderMatcher": (node) => {
    // Deprecated forms of string_match. Two of them at once are left to be refused.
    const old = Object.keys(STRING_MATCHES).filter((name) => node.has(name));
    const [name] = old;
    if (name === undefined || old.length > 1 || node.has("string_match")) return;
    const { place, value } = node.entries.get(name)!;
    node.delete(name);
    node.set("string_match", mapOf(value.place, { [STRING_MATCHES[name]!]: value }), place);
  },
  "envoy.config.route.v3.RouteAction": (node) => {
    redirectPolicy(node);
    // `host_rewrite` is a literal in v2 and a format in v3; without % both mean the same.
    const host = node.entries.get("host_rewrite");
    if (host === undefined || node.string("host_rewrite")?.includes("%") === true) return;
    rename(node, "host_rewrite", "host_rewrite_literal");
  },
};

/** Turns the deprecated `internal_redirect_action` and `max_internal_redirects` into `internal_redirect_policy`. */
function redirectPolicy(node: MapNode): void {
  const action = node.entries.get("internal_redirect_action");
  const most = node.delete("max_internal_redirects");
  if (action === undefined) return;
  node.delete("internal_redirect_action");
  const handles = [1, "HANDLE_INTERNAL_REDIRECT"].includes(
    action.value.kind === "scalar" ? (action.value.value as string | number) : "",
  );
  if (!handles || node.has("internal_redirect_policy")) return;
  const { place } = action;
  node.set("internal_redirect_policy", mapOf(place, { max_internal_redirects: most }), place);
}

/** Rewrites for v2 files, by the v3 name of the message. */
const TABLE: { readonly [type: string]: Rule } = {
  "envoy.config.core.v3.Node": (node) => {
    rename(node, "build_version", "user_agent_version");
  },
  "envoy.config.cluster.v3.Cluster": (node) => {
    const hosts = node.entries.get("hosts");
    if (hosts !== undefined) {
      const endpoints = node
        .list("hosts")
        .map((host) => mapOf(host.place, { endpoint: mapOf(host.place, { address: host }) }));
      const { place } = hosts;
      node.delete("hosts");
      const locality = mapOf(place, { lb_endpoints: new ListNode(place, endpoints) });
      const name = node.get("name");
      node.set(
        "load_assignment",
        mapOf(place, {
          cluster_name: name === undefined ? undefined : clone(name),
          endpoints: new ListNode(place, [locality]),
        }),
        place,
      );
    }
    transportSocket(node, "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext");
    if (node.string("lb_policy")?.toUpperCase() === "ORIGINAL_DST_LB")
      node.set("lb_policy", scalar(node.get("lb_policy")!.place, "CLUSTER_PROVIDED"));
    rename(node, "drain_connections_on_host_removal", "ignore_health_on_host_removal");
    rename(node, "extension_protocol_options", "typed_extension_protocol_options");
  },
  "envoy.config.core.v3.ApiConfigSource": (node) => {
    const names = node.list("cluster_names");
    if (names.length === 0 || node.has("grpc_services")) return;
    if (!["GRPC", "DELTA_GRPC"].includes(node.string("api_type")?.toUpperCase() ?? "")) return;
    const place = node.entries.get("cluster_names")!.place;
    const services = names.map((name) =>
      mapOf(name.place, { envoy_grpc: mapOf(name.place, { cluster_name: name }) }),
    );
    node.delete("cluster_names");
    node.set("grpc_services", new ListNode(place, services), place);
  },
  "envoy.config.core.v3.HealthCheck.HttpHealthCheck": (node) => {
    const http2 = node.delete("use_http2");
    if (http2 !== undefined && isTrue(http2))
      node.set("codec_client_type", scalar(http2.place, "HTTP2"));
    const name = node.delete("service_name");
    if (name !== undefined) node.set("service_name_matcher", mapOf(name.place, { prefix: name }));
  },
  "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter": gzipAsCompressor,
  "envoy.config.listener.v3.Listener": (node) => {
    const bind = node.map("deprecated_v1")?.get("bind_to_port");
    node.delete("deprecated_v1");
    if (bind !== undefined && !node.has("bind_to_port")) node.set("bind_to_port", bind);
    const operation = operationName(node);
    if (operation === undefined || node.has("traffic_direction")) return;
    const direction = operation.value.toUpperCase() === "EGRESS" ? "OUTBOUND" : "INBOUND";
    node.set("traffic_direction", scalar(operation.place, direction));
  },
  "envoy.config.listener.v3.FilterChain": (node) => {
    transportSocket(node, "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext");
  },
  "envoy.config.listener.v3.FilterChainMatch": (node) => {
    rename(node, "sni_domains", "server_names");
  },
  "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext": (node) => {
    const names = node.list("verify_subject_alt_name");
    if (names.length === 0) return;
    const place = node.entries.get("verify_subject_alt_name")!.place;
    // v2 compared a name with those of every kind, so it becomes a matcher for each kind.
    const matchers = names.flatMap((name) =>
      ["DNS", "URI", "IP_ADDRESS"].map((kind) =>
        mapOf(name.place, {
          san_type: scalar(name.place, kind),
          matcher: mapOf(name.place, { exact: clone(name) }),
        }),
      ),
    );
    node.delete("verify_subject_alt_name");
    node.set("match_typed_subject_alt_names", new ListNode(place, matchers), place);
  },
  "envoy.config.route.v3.VirtualHost": perFilterConfig,
  "envoy.config.route.v3.WeightedCluster.ClusterWeight": perFilterConfig,
  "envoy.config.route.v3.Route": perFilterConfig,
  "envoy.config.route.v3.RouteMatch": (node) => {
    asRegex(node, "regex", "safe_regex");
  },
  "envoy.config.route.v3.HeaderMatcher": (node) => {
    asRegex(node, "regex_match", "safe_regex_match");
    const regex = node.delete("regex");
    if (regex !== undefined && isTrue(regex)) asRegex(node, "value", "safe_regex_match");
    else rename(node, "value", "exact_match");
  },
  "envoy.config.route.v3.QueryParameterMatcher": (node) => {
    const regex = node.delete("regex");
    const value = node.delete("value");
    const place = (value ?? regex ?? node).place;
    const matched = regex !== undefined && isTrue(regex) && value !== undefined;
    if (matched)
      node.set("string_match", mapOf(place, { safe_regex: mapOf(place, { regex: value }) }));
    else if (value !== undefined && node.get("string_match") === undefined)
      node.set("string_match", mapOf(place, { exact: value }));
    else if (!node.has("string_match") && !node.has("present_match"))
      node.set("present_match", scalar(place, true));
  },
  "envoy.config.route.v3.VirtualCluster": (node) => {
    const pattern = node.delete("pattern");
    const method = node.delete("method");
    const header = (name: string, value: Node, match: string, body: Node) =>
      mapOf(value.place, {
        name: scalar(value.place, name),
        string_match: mapOf(value.place, { [match]: body }),
      });
    const headers = [...node.list("headers")];
    if (pattern !== undefined)
      headers.push(
        header(":path", pattern, "safe_regex", mapOf(pattern.place, { regex: pattern })),
      );
    if (method !== undefined) headers.push(header(":method", method, "exact", method));
    if (headers.length > 0) node.set("headers", new ListNode(node.place, headers));
  },
  "envoy.config.route.v3.RouteAction": (node) => {
    rename(node, "auto_host_rewrite_header", "host_rewrite_header");
    const websocket = node.delete("use_websocket");
    if (websocket !== undefined && isTrue(websocket)) {
      const place = websocket.place;
      const upgrade = mapOf(place, {
        upgrade_type: scalar(place, "websocket"),
        enabled: scalar(place, true),
      });
      node.set("upgrade_configs", new ListNode(place, [...node.list("upgrade_configs"), upgrade]));
    }
    const mirror = node.delete("request_mirror_policy");
    if (mirror !== undefined)
      node.set("request_mirror_policies", new ListNode(mirror.place, [mirror]));
  },
  "envoy.config.route.v3.RouteAction.RequestMirrorPolicy": (node) => {
    const key = node.delete("runtime_key");
    if (key === undefined || node.has("runtime_fraction")) return;
    const { place } = key;
    // The runtime value is in ten-thousandths, and without one nothing is mirrored.
    const never = mapOf(place, {
      numerator: scalar(place, 0),
      denominator: scalar(place, "TEN_THOUSAND"),
    });
    node.set("runtime_fraction", mapOf(place, { default_value: never, runtime_key: key }));
  },
  "envoy.extensions.filters.http.cors.v3.CorsPolicy": (node) => {
    const matchers = [...node.list("allow_origin_string_match")];
    for (const origin of node.list("allow_origin"))
      matchers.push(mapOf(origin.place, { exact: origin }));
    for (const origin of node.list("allow_origin_regex"))
      matchers.push(mapOf(origin.place, { safe_regex: mapOf(origin.place, { regex: origin }) }));
    node.delete("allow_origin");
    node.delete("allow_origin_regex");
    if (matchers.length > 0)
      node.set("allow_origin_string_match", new ListNode(matchers[0]!.place, matchers));
    const enabled = node.delete("enabled");
    if (enabled === undefined || isNull(enabled)) return;
    const { place } = enabled;
    const percent = mapOf(place, {
      numerator: scalar(place, isTrue(enabled) ? 100 : 0),
      denominator: scalar(place, "HUNDRED"),
    });
    node.set("filter_enabled", mapOf(place, { default_value: percent }), place);
  },
  "envoy.type.matcher.v3.StringMatcher": (node) => {
    asRegex(node, "regex", "safe_regex");
  },
  "envoy.extensions.filters.common.fault.v3.FaultDelay": (node) => {
    node.delete("type");
    asPercentage(node);
  },
  "envoy.extensions.filters.http.fault.v3.FaultAbort": asPercentage,
  "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz": (node) => {
    node.delete("use_alpha");
  },
  "envoy.extensions.filters.network.redis_proxy.v3.RedisProxy": (node) => {
    const cluster = node.delete("cluster");
    if (cluster === undefined) return;
    const catchAll = mapOf(cluster.place, { cluster });
    node.set("prefix_routes", mapOf(cluster.place, { catch_all_route: catchAll }));
  },
  "envoy.config.trace.v3.ZipkinConfig": (node) => {
    const version = node.get("collector_endpoint_version");
    const endpoint = node.get("collector_endpoint");
    const place = (version ?? endpoint ?? node).place;
    const name = node.string("collector_endpoint_version")?.toUpperCase();
    if (name !== undefined && name !== "HTTP_JSON_V1") return;
    node.set("collector_endpoint_version", scalar(place, "HTTP_JSON"));
    if (endpoint !== undefined && node.string("collector_endpoint") === "/api/v1/spans")
      node.set("collector_endpoint", scalar(endpoint.place, "/api/v2/spans"));
  },
};

/** v2 fields that a v3 file may still have, and what v3 calls them, for hints. */
const V2_FIELDS: { readonly [type: string]: { readonly [key: string]: string } } = {
  "envoy.config.cluster.v3.Cluster": {
    hosts: "load_assignment",
    tls_context: "transport_socket",
    extension_protocol_options: "typed_extension_protocol_options",
    drain_connections_on_host_removal: "ignore_health_on_host_removal",
  },
  "envoy.config.bootstrap.v3.Bootstrap": {
    runtime: "layered_runtime",
    rate_limit_service: "it in each rate limit filter",
  },
  "envoy.config.listener.v3.FilterChain": { tls_context: "transport_socket" },
  "envoy.config.listener.v3.FilterChainMatch": { sni_domains: "server_names" },
  "envoy.config.route.v3.VirtualHost": { per_filter_config: "typed_per_filter_config" },
  "envoy.config.route.v3.Route": { per_filter_config: "typed_per_filter_config" },
  "envoy.config.route.v3.WeightedCluster.ClusterWeight": {
    per_filter_config: "typed_per_filter_config",
  },
  "envoy.config.route.v3.RouteMatch": { regex: "safe_regex" },
  "envoy.config.route.v3.HeaderMatcher": {
    value: "string_match with exact",
    regex: "string_match with safe_regex",
    regex_match: "string_match with safe_regex",
  },
  "envoy.config.route.v3.QueryParameterMatcher": {
    value: "string_match",
    regex: "string_match with safe_regex",
  },
  "envoy.config.route.v3.RouteAction": {
    use_websocket: "upgrade_configs",
    auto_host_rewrite_header: "host_rewrite_header",
    request_mirror_policy: "request_mirror_policies",
  },
  "envoy.extensions.filters.http.cors.v3.CorsPolicy": {
    allow_origin: "allow_origin_string_match",
    allow_origin_regex: "allow_origin_string_match with safe_regex",
    enabled: "filter_enabled",
  },
  "envoy.config.route.v3.VirtualCluster": { pattern: "headers", method: "headers" },
  "envoy.type.matcher.v3.StringMatcher": { regex: "safe_regex" },
  "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager": {
    idle_timeout: "common_http_protocol_options.idle_timeout",
  },
  "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing": {
    operation_name: "traffic_direction in the listener",
    request_headers_for_tags: "custom_tags",
  },
  "envoy.config.core.v3.HealthCheck.HttpHealthCheck": {
    use_http2: "codec_client_type",
    service_name: "service_name_matcher",
  },
};

function isTrue(node: Node | undefined): boolean {
  return node?.kind === "scalar" && (node.value === true || node.value === "true");
}

function rename(node: MapNode, from: string, to: string): void {
  const entry = node.entries.get(from);
  if (entry === undefined) return;
  node.entries.delete(from);
  if (!node.entries.has(to)) node.entries.set(to, entry);
}

function asRegex(node: MapNode, from: string, to: string): void {
  const entry = node.entries.get(from);
  if (entry === undefined) return;
  node.entries.delete(from);
  node.set(to, mapOf(entry.value.place, { regex: entry.value }), entry.place);
}

function asPercentage(node: MapNode): void {
  const percent = node.delete("percent");
  if (percent === undefined || node.has("percentage")) return;
  const { place } = percent;
  const hundred = scalar(place, "HUNDRED");
  node.set("percentage", mapOf(place, { numerator: percent, denominator: hundred }));
}

const GZIP = /\/envoy\.(?:extensions\.filters|config\.filter)\.http\.gzip\.v[23]\.Gzip$/;
/** Fields of v2's gzip filter that go to the compression library; the others say which responses are compressed. */
const GZIP_LIBRARY = [
  "memory_level",
  "compression_level",
  "compression_strategy",
  "window_bits",
  "chunk_size",
];
const GZIP_LEVELS: { readonly [old: string]: string } = {
  DEFAULT: "DEFAULT_COMPRESSION",
  BEST: "BEST_COMPRESSION",
  SPEED: "BEST_SPEED",
};
const GZIP_STRATEGIES: { readonly [old: string]: string } = {
  DEFAULT: "DEFAULT_STRATEGY",
  HUFFMAN: "HUFFMAN_ONLY",
};

/** Turns v2's gzip filter into the compressor with gzip as its library. */
function gzipAsCompressor(node: MapNode): void {
  const old = node.map("typed_config");
  const type = old?.string("@type");
  if (old === undefined || type === undefined || !GZIP.test(type)) return;
  const { place } = old;
  const space = "type.googleapis.com/envoy.extensions.";
  const library = mapOf(place, {
    "@type": scalar(place, `${space}compression.gzip.compressor.v3.Gzip`),
  });
  const compressor = old.map("compressor") ?? new MapNode(place);
  for (const [key, { value, place: at }] of old.entries) {
    if (GZIP_LIBRARY.includes(key)) library.set(key, value, at);
    else if (key !== "@type" && key !== "compressor") compressor.set(key, value, at);
  }
  renameWord(library, "compression_level", GZIP_LEVELS);
  renameWord(library, "compression_strategy", GZIP_STRATEGIES);
  const made = mapOf(place, {
    "@type": scalar(place, `${space}filters.http.compressor.v3.Compressor`),
    compressor_library: mapOf(place, { name: scalar(place, "gzip"), typed_config: library }),
  });
  const common = mapOf(place, {
    enabled: compressor.delete("runtime_enabled"),
    min_content_length: compressor.delete("content_length"),
    content_type: compressor.delete("content_type"),
  });
  const response = mapOf(place, {
    common_config: common.entries.size > 0 ? common : undefined,
    disable_on_etag_header: compressor.delete("disable_on_etag_header"),
    remove_accept_encoding_header: compressor.delete("remove_accept_encoding_header"),
  });
  if (response.entries.size > 0) made.set("response_direction_config", response, place);
  // Other fields are unknown; they are kept, and so reported.
  for (const [key, { value, place: at }] of compressor.entries) made.set(key, value, at);
  node.set("typed_config", made, node.entries.get("typed_config")!.place);
}

function renameWord(node: MapNode, key: string, words: { readonly [old: string]: string }): void {
  const now = words[node.string(key)?.toUpperCase() ?? ""];
  if (now !== undefined) node.set(key, scalar(node.get(key)!.place, now));
}

function perFilterConfig(node: MapNode): void {
  rename(node, "per_filter_config", "typed_per_filter_config");
}

function transportSocket(node: MapNode, type: string): void {
  const tls = node.entries.get("tls_context");
  if (tls?.value.kind !== "map") return;
  const { place } = tls;
  node.delete("tls_context");
  const config = new MapNode(tls.value.place, tls.value.entries);
  config.set("@type", scalar(place, `type.googleapis.com/${type}`), place);
  const socket = mapOf(place, {
    name: scalar(place, "envoy.transport_sockets.tls"),
    typed_config: config,
  });
  node.set("transport_socket", socket, place);
}

/** The `tracing.operation_name` of the first connection manager, wherever v2 put its config. */
function operationName(listener: MapNode): { value: string; place: Place } | undefined {
  for (const chain of listener.list("filter_chains"))
    for (const filter of chain.kind === "map" ? chain.list("filters") : []) {
      if (filter.kind !== "map") continue;
      const config = filter.map("config") ?? filter.map("typed_config");
      const tracing = config?.map("tracing");
      const value = tracing?.string("operation_name");
      if (value !== undefined) return { value, place: tracing!.get("operation_name")!.place };
    }
  return undefined;
}
