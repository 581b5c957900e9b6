import type { FormatSource } from "./format.ts";
import type { RequestHeaders, ResponseHeaders } from "./headers.ts";
import type { StreamInfo } from "./http.ts";

/** The route that a request took, resolved by the connection manager; the router carries it out. */
export interface Route {
  /** "" if the config gives none. */
  readonly name: string;
  readonly virtualHostName: string;
  readonly action: RouteAction | RedirectAction | DirectResponseAction;
  /** Header rules of all levels, in Envoy's order, applied to the request before it goes upstream. */
  editRequest(headers: RequestHeaders, info: StreamInfo, source?: FormatSource): void;
  /** `source`: where format commands find what the first three do not tell (metadata); an HttpStream is one. */
  editResponse(
    headers: ResponseHeaders,
    info: StreamInfo,
    request: RequestHeaders,
    source?: FormatSource,
  ): void;
  /** `typed_per_filter_config`, the most specific level. */
  filterConfig(filterName: string): unknown;
  /** The same of every level that has one, the least specific first; the same array each time. */
  filterConfigs(filterName: string): readonly unknown[];
}

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
  /** Rewrites of path and host. `keepOriginals`: what was there goes into x-envoy-original-path and -host. */
  rewrite(headers: RequestHeaders, keepOriginals?: boolean): void;
  readonly autoHostRewrite: boolean;
}

export interface RedirectAction {
  readonly type: "redirect";
  readonly status: number;
  location(headers: RequestHeaders): string;
}

export interface DirectResponseAction {
  readonly type: "direct_response";
  readonly status: number;
  readonly body: string;
}
