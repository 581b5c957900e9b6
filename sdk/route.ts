import type { Host, MetadataCriterion, Priority } from "./cluster.ts";
import type { FormatSource } from "./format.ts";
import type { HeadMatch } from "./header-match.ts";
import type { HeaderName, RequestHeaders, ResponseHeaders } from "./headers.ts";
import type { Reply, StreamInfo } from "./http.ts";
import type { ProxyHeader } from "./proxy-protocol.ts";
import type { DescriptorMaker } from "./rate-limit.ts";
import type { Stats } from "./stats.ts";

/** The route that a request took, resolved by the connection manager; the router carries it out. */
export interface Route {
  /** "" if the config gives none. */
  readonly name: string;
  readonly virtualHostName: string;
  readonly action: RouteAction | RedirectAction | DirectResponseAction;
  /** `metadata.filter_metadata` of the route and of its virtual host, by namespace. */
  readonly routeMetadata?: Readonly<Record<string, unknown>> | undefined;
  readonly virtualHostMetadata?: Readonly<Record<string, unknown>> | undefined;
  /** The virtual cluster that counts the request, undefined: none does. As in Envoy, the router asks, so logs of other answers name none. */
  virtualCluster?(headers: RequestHeaders): VirtualCluster | undefined;
  /** Header rules of all levels, in Envoy's order, applied to the request before it goes upstream. Throws in a sandbox. */
  editRequest(headers: RequestHeaders, info: StreamInfo, source?: FormatSource): void;
  /**
   * The same for the response. `source`: for format commands that need more than the other arguments (metadata); an HttpStream is one.
   * Throws in a sandbox.
   */
  editResponse(
    headers: ResponseHeaders,
    info: StreamInfo,
    request: RequestHeaders,
    source?: FormatSource,
  ): void;
  /** `rate_limits` of the route, and those of its virtual host where these count too. */
  readonly rateLimits?: readonly (readonly DescriptorMaker[])[] | undefined;
  /** `typed_per_filter_config`, the most specific level. Throws in a sandbox, as the next: `stream.routeConfig` is there. */
  filterConfig(filterName: string): unknown;
  /** The same of every level that has one, the least specific first; the same array each time. */
  filterConfigs(filterName: string): readonly unknown[];
}

/** Requests of a virtual host that have stats of their own. */
export interface VirtualCluster {
  readonly name: string;
  /** `vhost.<virtual host>.vcluster.<name>.` */
  readonly stats: Stats;
}

/** How a route ends CONNECT requests. */
export interface Termination {
  /** `allow_post`: it ends POST requests in the same way; their bodies are the bytes. */
  readonly ofPost: boolean;
  /** `proxy_protocol_config`: sent ahead of the bytes. */
  readonly header?: ProxyHeader | undefined;
}

/** Sends the request to a cluster. */
export interface RouteAction {
  readonly type: "route";
  /** The cluster, after weights; undefined if a cluster_header is missing. */
  readonly cluster: string | undefined;
  readonly clusterNotFoundStatus: number;
  /** 0: none. From the end of the request to the end of the response. */
  readonly timeoutMs: number;
  /** Undefined: the connection manager's `stream_idle_timeout`. */
  readonly idleTimeoutMs: number | undefined;
  /** Upgrades that the route turns on or off, lower case; others follow the connection manager. */
  readonly upgrades: ReadonlyMap<string, boolean>;
  /** `connect_config`: a CONNECT ends here, and its bytes go to the cluster as they are. */
  readonly termination?: Termination | undefined;
  /** Rewrites of path and host. `keepOriginals`: what was there goes into x-envoy-original-path and -host. */
  rewrite(headers: RequestHeaders, keepOriginals: boolean, source: FormatSource): void;
  readonly autoHostRewrite: boolean;
  /** Replaces the host in the head, as `autoHostRewrite` asks. `keepOriginal`: the old one goes into x-envoy-original-host. */
  rewriteHost?(headers: RequestHeaders, host: string, keepOriginal: boolean): void;
  /** Retries, mirrors, hashing and so on; undefined: the route has none. Shared by all requests of the route. */
  readonly policies?: RoutePolicies | undefined;
}

/** Each member as Envoy's field of that name, after virtual host and route are merged. */
export interface RoutePolicies {
  readonly retry: RetryPolicy | undefined;
  readonly hedgeOnPerTryTimeout: boolean;
  readonly mirrors: readonly MirrorPolicy[];
  readonly hash: readonly HashPolicy[];
  readonly metadataMatch: readonly MetadataCriterion[] | undefined;
  readonly priority: Priority;
  readonly streamDuration: StreamDuration | undefined;
  readonly internalRedirect: InternalRedirectPolicy | undefined;
  /** `include_request_attempt_count`, `include_attempt_count_in_response`, `include_is_timeout_retry_header`. */
  readonly attemptCountInRequest: boolean;
  readonly attemptCountInResponse: boolean;
  readonly timeoutRetryInRequest: boolean;
  /** Bytes of a request's body that are kept for retries, mirrors and redirects at most. */
  readonly bufferLimit: number | undefined;
  /** `stat_prefix`: stats of the route's own, counted as those of a virtual cluster. */
  readonly stats: VirtualCluster | undefined;
  /** `max_grpc_timeout`, the older way to honour `grpc-timeout`. Undefined: the header is not looked at. */
  readonly maxGrpcTimeoutMs: number | undefined;
  readonly grpcTimeoutOffsetMs: number;
}

/** Which answers are tried again, how often, and how long after. */
export interface RetryPolicy {
  /** Words of `retry_on`, HTTP's and gRPC's; unknown ones are left out. */
  readonly on: readonly string[];
  readonly retries: number;
  /** 0: none. */
  readonly perTryTimeoutMs: number;
  readonly perTryIdleTimeoutMs: number;
  /** Undefined: Envoy's 25 ms (runtime `upstream.base_retry_backoff_ms`), and ten times that. */
  readonly backOffBaseMs: number | undefined;
  readonly backOffMaxMs: number | undefined;
  /** `rate_limited_retry_back_off`: response headers that say when to come again. */
  readonly resetHeaders: readonly {
    readonly name: HeaderName;
    readonly format: "SECONDS" | "UNIX_TIMESTAMP";
  }[];
  readonly resetMaxMs: number;
  readonly statusCodes: readonly number[];
  readonly headers: readonly HeadMatch<ResponseHeaders>[];
  /** Empty: every request may be retried. */
  readonly requestHeaders: readonly HeadMatch[];
  /** `previous_hosts`: the router knows which hosts have been tried. */
  readonly avoidPreviousHosts: boolean;
  /** Other predicates, which look at the host alone; true: another host is to be chosen. */
  readonly avoids: readonly ((host: Host) => boolean)[];
  readonly hostSelectionRetries: number;
  /** `previous_priorities`: after so many attempts each, the priorities tried are left out. 0: never. */
  readonly previousPrioritiesEvery: number;
}

/** Sends a copy of some requests to another cluster as well, whose answers nobody reads. */
export interface MirrorPolicy {
  readonly cluster: string;
  /** In the place of `cluster`, if there is one. */
  readonly clusterHeader: HeaderName | undefined;
  /** The mirrored request's host ends in `-shadow`. */
  readonly shadowHost: boolean;
  /** The mirrored request's host as it is sent, whatever `shadowHost` says. */
  readonly host?: string;
  /** Edits the mirrored request's head, when all else is done. */
  edit?(headers: RequestHeaders, source: FormatSource): void;
  /** Whether this request is mirrored (`runtime_fraction`). */
  chosen(): boolean;
}

/** Where one part of a request's hash comes from. */
export type HashPolicy = { readonly terminal: boolean } & (
  | {
      readonly type: "header";
      /** The values of the header, which may be a pseudo header. */
      values(headers: RequestHeaders): readonly string[];
      rewrite(value: string): string;
    }
  | {
      readonly type: "cookie";
      readonly name: string;
      /** Undefined: a client without the cookie gets none. 0: one for its session. */
      readonly ttlMs: number | undefined;
      readonly path: string;
      readonly attributes: readonly (readonly [string, string])[];
    }
  | { readonly type: "source_ip" }
  | { readonly type: "query_parameter"; readonly name: string }
  /** A text in `filterState`; other values are not hashed. */
  | { readonly type: "filter_state"; readonly key: string }
);

/** `max_stream_duration` of a route. Undefined: not said. */
export interface StreamDuration {
  readonly maxMs: number | undefined;
  readonly grpcTimeoutHeaderMaxMs: number | undefined;
  readonly grpcTimeoutHeaderOffsetMs: number | undefined;
}

/** Which redirects of an upstream the proxy follows itself. */
export interface InternalRedirectPolicy {
  readonly maxRedirects: number;
  readonly statuses: readonly number[];
  readonly allowCrossScheme: boolean;
  readonly predicates: readonly InternalRedirectPredicate[];
  readonly responseHeadersToCopy: readonly HeaderName[];
}

/** What a redirect has to fulfil besides. */
export type InternalRedirectPredicate =
  | { readonly type: "previous_routes" }
  | { readonly type: "allow_listed_routes"; readonly routes: readonly string[] }
  | { readonly type: "safe_cross_scheme" };

/** Answers with a redirect. */
export interface RedirectAction {
  readonly type: "redirect";
  readonly status: number;
  /** To be asked before `rewrite`. */
  location(headers: RequestHeaders, source: FormatSource): string;
  /** Undefined: the path stays. Envoy rewrites that of the request too, which logs show. `keepOriginal`: as `RouteAction.rewrite`. */
  readonly rewrite?: ((headers: RequestHeaders, keepOriginal: boolean) => void) | undefined;
}

/** Answers by itself. */
export interface DirectResponseAction {
  readonly type: "direct_response";
  readonly status: number;
  /** Bytes: it is not UTF-8. */
  readonly body: string | Uint8Array;
  /** `body_format`: makes the body for one stream, with its content-type if the config has one. Undefined: it is `body`. */
  readonly bodyFor?: ((stream: FormatSource) => Pick<Reply, "body" | "contentType">) | undefined;
}
