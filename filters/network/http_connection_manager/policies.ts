import {
  ConfigError,
  compileHashPolicy,
  compileHeaderMatch,
  compileResponseHeaderMatch,
  type Host,
  headerText,
  type InternalRedirectPolicy,
  type InternalRedirectPredicate,
  type MetadataCriterion,
  type MirrorPolicy,
  nameOf,
  type RetryPolicy,
  type RoutePolicies,
  RuntimeFraction,
  type SetupContext,
  type StreamDuration,
} from "@tsproxy/sdk";
import { compileHeaderMutations } from "./header-mutation.ts";
import type {
  InternalRedirectConfig,
  Metadata,
  MirrorPolicyConfig,
  PolicySources,
  RetryPolicyConfig,
} from "./policies-config.ts";

/** Where the sources of policies stand in the config. */
export interface PolicyPaths {
  readonly action: string;
  readonly virtualHost: string;
  readonly table: string;
}

/** Refuses the name of a cluster that does not exist; `path`: where the config has it. */
type CheckCluster = (name: string, path: string) => void;

/** Compiles the policies of a route; undefined: it has none. `weighted`: `metadata_match` of its weighted cluster. */
export function compilePolicies(
  sources: PolicySources,
  paths: PolicyPaths,
  checkCluster: CheckCluster,
  cx: SetupContext,
  weighted?: Metadata,
): RoutePolicies | undefined {
  const { action, entry, virtualHost } = sources;
  const retryOfRoute = action.retry_policy !== undefined;
  const retry = action.retry_policy ?? virtualHost.retry_policy;
  const hedge = action.hedge_policy ?? virtualHost.hedge_policy;
  const retryPath = `${retryOfRoute ? paths.action : paths.virtualHost}.retry_policy`;
  const policies: RoutePolicies = {
    retry: retry === undefined ? undefined : compileRetry(retry, retryPath, cx),
    hedgeOnPerTryTimeout: hedge?.hedge_on_per_try_timeout ?? false,
    mirrors: compileMirrors(sources, paths, checkCluster, cx),
    hash: action.hash_policy.flatMap((policy, k) =>
      compileHashPolicy(policy, `${paths.action}.hash_policy[${k}]`, cx),
    ),
    metadataMatch: criteria(action.metadata_match, weighted),
    priority: action.priority === "HIGH" ? "high" : "default",
    streamDuration: streamDuration(action),
    internalRedirect:
      action.internal_redirect_policy === undefined
        ? undefined
        : compileRedirect(
            action.internal_redirect_policy,
            `${paths.action}.internal_redirect_policy`,
          ),
    attemptCountInRequest: virtualHost.include_request_attempt_count,
    attemptCountInResponse: virtualHost.include_attempt_count_in_response,
    timeoutRetryInRequest: virtualHost.include_is_timeout_retry_header,
    bufferLimit:
      entry.request_body_buffer_limit ??
      virtualHost.request_body_buffer_limit ??
      entry.per_request_buffer_limit_bytes ??
      virtualHost.per_request_buffer_limit_bytes,
    stats:
      entry.stat_prefix === ""
        ? undefined
        : {
            name: entry.stat_prefix,
            stats: cx.stats.scope(`vhost.${virtualHost.name}.route.${entry.stat_prefix}.`),
          },
    maxGrpcTimeoutMs: action.max_grpc_timeout,
    grpcTimeoutOffsetMs: action.grpc_timeout_offset ?? 0,
  };
  return asksForNothing(policies) ? undefined : policies;
}

/** Whether the policies change nothing. A limit of 0 is one; the offset of a gRPC timeout without one is none. */
function asksForNothing(policies: RoutePolicies): boolean {
  for (const name in policies) {
    const value = policies[name as keyof RoutePolicies];
    const isNothing =
      value === undefined ||
      value === false ||
      value === "default" ||
      (Array.isArray(value) && value.length === 0);
    if (!isNothing && name !== "grpcTimeoutOffsetMs") return false;
  }
  return true;
}

function compileRetry(config: RetryPolicyConfig, path: string, cx: SetupContext): RetryPolicy {
  const backOff = config.retry_back_off;
  // As in Envoy, less than a millisecond counts as one.
  const base = backOff === undefined ? undefined : Math.max(1, Math.floor(backOff.base_interval));
  const most =
    backOff?.max_interval === undefined ? undefined : Math.max(1, Math.floor(backOff.max_interval));
  if (base !== undefined && most !== undefined && most < base) {
    throw new ConfigError(
      `${path}.retry_back_off.max_interval`,
      "is less than base_interval; give one that is not",
    );
  }
  const limited = config.rate_limited_retry_back_off;
  const names = config.retry_host_predicate.map((predicate) => predicate.typed_config);
  return {
    on: config.retry_on.split(",").map((word) => word.trim()),
    retries: config.num_retries,
    perTryTimeoutMs: config.per_try_timeout,
    perTryIdleTimeoutMs: config.per_try_idle_timeout,
    backOffBaseMs: base,
    backOffMaxMs: most,
    resetHeaders: (limited?.reset_headers ?? []).map(({ name, format }, k) => ({
      name: nameOf(name, `${path}.rate_limited_retry_back_off.reset_headers[${k}].name`),
      format,
    })),
    resetMaxMs: Math.max(1, limited?.max_interval ?? 300_000),
    statusCodes: config.retriable_status_codes,
    headers: config.retriable_headers.map((matcher, k) =>
      compileResponseHeaderMatch(matcher, `${path}.retriable_headers[${k}]`, cx),
    ),
    requestHeaders: config.retriable_request_headers.map((matcher, k) =>
      compileHeaderMatch(matcher, `${path}.retriable_request_headers[${k}]`, cx),
    ),
    avoidPreviousHosts: names.some((p) => p["@type"].endsWith("PreviousHostsPredicate")),
    avoids: names.flatMap((predicate) => {
      switch (predicate["@type"]) {
        case "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate":
          return [isCanary];
        case "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig":
          return [hasMetadata(predicate.metadata_match)];
        default:
          return [];
      }
    }),
    // Envoy takes 0 as "not set", and its default is 1.
    hostSelectionRetries: config.host_selection_retry_max_attempts || 1,
    previousPrioritiesEvery: config.retry_priority?.typed_config.update_frequency ?? 0,
  };
}

function lbMetadata(host: Host): Readonly<Record<string, unknown>> {
  const metadata = host.metadata as Partial<Metadata> | undefined;
  return metadata?.filter_metadata?.["envoy.lb"] ?? {};
}

const isCanary = (host: Host): boolean => lbMetadata(host).canary === true;

/** Whether a host has all of the config's pairs in its `envoy.lb` metadata. */
function hasMetadata(config: Metadata | undefined): (host: Host) => boolean {
  const wanted = criteria(config) ?? [];
  const texts = wanted.map(({ key, value }) => [key, JSON.stringify(value)] as const);
  return (host) => {
    const own = lbMetadata(host);
    return texts.length > 0 && texts.every(([key, text]) => JSON.stringify(own[key]) === text);
  };
}

/** Merges the `envoy.lb` pairs of several sources; for each key the last one counts. Undefined: there are none. */
function criteria(
  ...sources: readonly (Metadata | undefined)[]
): readonly MetadataCriterion[] | undefined {
  const merged = new Map<string, unknown>();
  for (const source of sources) {
    for (const [key, value] of Object.entries(source?.filter_metadata["envoy.lb"] ?? {})) {
      merged.set(key, value);
    }
  }
  if (merged.size === 0) return undefined;
  const entries = [...merged].sort(([a], [b]) => (a < b ? -1 : 1));
  return entries.map(([key, value]) => ({ key, value }));
}

/** Compiles the mirrors of the most specific level that has any; other levels do not count. */
function compileMirrors(
  { action, virtualHost, table }: PolicySources,
  paths: PolicyPaths,
  checkCluster: CheckCluster,
  cx: SetupContext,
): readonly MirrorPolicy[] {
  const places = [
    [action.request_mirror_policies, paths.action],
    [virtualHost.request_mirror_policies, paths.virtualHost],
    [table.request_mirror_policies, paths.table],
  ] as const;
  const [configs, path] = places.find(([list]) => list.length > 0) ?? [[], ""];
  return configs.map((config, k) => {
    const at = `${path}.request_mirror_policies[${k}]`;
    if (config.cluster !== "") checkCluster(config.cluster, `${at}.cluster`);
    return compileMirror(config, at, cx);
  });
}

function compileMirror(config: MirrorPolicyConfig, path: string, cx: SetupContext): MirrorPolicy {
  const { cluster, cluster_header: header } = config;
  if (cluster !== "" && header !== "") {
    throw new ConfigError(path, "give one of cluster and cluster_header");
  }
  if (cluster === "" && header === "") {
    throw new ConfigError(path, "give cluster or cluster_header");
  }
  const fraction = new RuntimeFraction(config.runtime_fraction, cx.runtime);
  const { host_rewrite_literal: host, request_headers_mutations: mutations } = config;
  return {
    cluster,
    clusterHeader: header === "" ? undefined : nameOf(header, `${path}.cluster_header`),
    shadowHost: !config.disable_shadow_host_suffix_append,
    ...(host && { host: headerText(host, `${path}.host_rewrite_literal`) }),
    ...(mutations !== undefined && {
      edit: compileHeaderMutations(mutations, `${path}.request_headers_mutations`, cx),
    }),
    chosen: () => fraction.enabled(),
  };
}

function streamDuration(action: PolicySources["action"]): StreamDuration | undefined {
  const config = action.max_stream_duration;
  if (config === undefined) return undefined;
  return {
    maxMs: config.max_stream_duration,
    grpcTimeoutHeaderMaxMs: config.grpc_timeout_header_max,
    grpcTimeoutHeaderOffsetMs: config.grpc_timeout_header_offset,
  };
}

/** The codes that Envoy accepts for redirects; others in the list are ignored. */
const REDIRECT_CODES = [301, 302, 303, 307, 308];

function compileRedirect(config: InternalRedirectConfig, path: string): InternalRedirectPolicy {
  const codes = config.redirect_response_codes;
  if (codes.length > 5) {
    throw new ConfigError(`${path}.redirect_response_codes`, "has more than 5 codes");
  }
  return {
    maxRedirects: config.max_internal_redirects,
    statuses: codes.length === 0 ? [302] : codes.filter((code) => REDIRECT_CODES.includes(code)),
    allowCrossScheme: config.allow_cross_scheme_redirect,
    predicates: config.predicates.map((predicate) => redirectPredicate(predicate.typed_config)),
    responseHeadersToCopy: config.response_headers_to_copy.map((name, k) =>
      copyable(name, `${path}.response_headers_to_copy[${k}]`),
    ),
  };
}

function redirectPredicate(
  config: InternalRedirectConfig["predicates"][number]["typed_config"],
): InternalRedirectPredicate {
  switch (config["@type"]) {
    case "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig":
      return { type: "previous_routes" };
    case "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig":
      return { type: "allow_listed_routes", routes: config.allowed_route_names };
    case "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig":
      return { type: "safe_cross_scheme" };
  }
}

function copyable(name: string, path: string) {
  if (name.startsWith(":"))
    throw new ConfigError(path, `":" headers may not be copied; remove "${name}"`);
  return nameOf(name, path);
}
