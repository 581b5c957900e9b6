// Hot path: every request of a forward proxy.
import {
  DnsCacheConfig,
  Duration,
  defineHttpFilter,
  type HeaderName,
  type HttpFilter,
  type HttpStream,
  headerText,
  type NameOutcome,
  nameOf,
  type Reply,
  type RequestHeaders,
  reply,
  type SetupContext,
  Type,
} from "@tsproxy/sdk";

const RouteConfig = Type.Object({
  host_rewrite_literal: Type.Optional(Type.String()),
  host_rewrite_header: Type.Optional(Type.String()),
});

interface Rewrite {
  readonly literal: string | undefined;
  readonly header: HeaderName | undefined;
}

/** Envoy's default of `cluster_init_timeout`. */
const INIT_TIMEOUT_MS = 5_000;
const OVERFLOW = "DNS cache overflow";
const PENDING_OVERFLOW = "DNS cache pending request overflow";
const SUB_OVERFLOW = "Sub cluster overflow";
const SUB_TIMEOUT = "Sub cluster warming timeout";
const FAILURE = "DNS resolution failure";
const NO_NAME = reply(400, { body: "Empty host header", details: "empty_host_header" });

/** Holds a request until its route's cluster, one of type dynamic_forward_proxy, has resolved the host that the request names. */
class DynamicForwardProxy implements HttpFilter {
  readonly #cx: SetupContext;
  readonly #stream: HttpStream;
  readonly #readsState: boolean;
  readonly #initTimeoutMs: number;

  constructor(cx: SetupContext, stream: HttpStream, readsState: boolean, initTimeoutMs: number) {
    this.#initTimeoutMs = initTimeoutMs;
    this.#cx = cx;
    this.#stream = stream;
    this.#readsState = readsState;
  }

  onRequestHeaders(headers: RequestHeaders): Reply | undefined | Promise<Reply | undefined> {
    const action = this.#stream.route?.action;
    if (action?.type !== "route") return undefined;
    const cluster = this.#cx.clusters.get(action.cluster ?? "");
    const names = cluster?.names;
    if (cluster === undefined || names === undefined) return undefined;
    const rewrite = this.#stream.routeConfig as Rewrite | undefined;
    if (rewrite !== undefined) {
      const { literal, header } = rewrite;
      const host = literal ?? (header === undefined ? undefined : headers.get(header));
      if (host !== undefined) headers.authority = host;
    }
    if (headers.authority === "" && names.takesEmpty !== true) return NO_NAME;
    const reads = this.#readsState && this.#stream.hasFilterState !== false;
    const state = reads ? this.#stream.filterState : undefined;
    const outcome = names.resolve(headers.authority ?? "", state, this.#initTimeoutMs);
    if (outcome === "known") return undefined;
    if (outcome instanceof Promise)
      // "again": a reload has come between.
      return outcome.then((late) =>
        late === "again" ? this.onRequestHeaders(headers) : answer(late),
      );
    if (outcome === "pending_overflow") cluster.stats.counter("upstream_rq_pending_overflow").inc();
    return answer(outcome);
  }
}

/** The local reply for an outcome of the resolution; undefined: the request goes on. */
function answer(outcome: NameOutcome): Reply | undefined {
  if (typeof outcome === "object")
    return reply(503, {
      body: FAILURE,
      flags: ["DF"],
      details: `dns_resolution_failure{${outcome.failed}}`,
    });
  switch (outcome) {
    case "known":
    case "again":
      return undefined;
    case "sub_cluster_overflow":
      return reply(503, { body: SUB_OVERFLOW, details: outcome });
    case "sub_cluster_timeout":
      return reply(503, { body: SUB_TIMEOUT, details: "sub_cluster_warming_timeout" });
    case "overflow":
      return reply(503, { body: OVERFLOW, details: "dns_cache_overflow" });
    case "pending_overflow":
      return reply(503, { body: PENDING_OVERFLOW, details: "dns_cache_pending_requests_overflow" });
  }
}

export default defineHttpFilter({
  name: "envoy.filters.http.dynamic_forward_proxy",
  types: ["envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig"],
  config: Type.Object({
    dns_cache_config: Type.Optional(DnsCacheConfig),
    sub_cluster_config: Type.Optional(
      Type.Object({ cluster_init_timeout: Duration({ default: 5_000 }) }),
    ),
    allow_dynamic_host_from_filter_state: Type.Optional(Type.Boolean()),
  }),
  routeConfig: RouteConfig,
  setupRoute: ({ host_rewrite_literal: literal, host_rewrite_header: header }): Rewrite => ({
    literal: literal ? headerText(literal, "host_rewrite_literal") : undefined,
    header: header === undefined ? undefined : nameOf(header, "host_rewrite_header"),
  }),
  setup({ allow_dynamic_host_from_filter_state: readsState = false, sub_cluster_config }, cx) {
    const initTimeoutMs = sub_cluster_config?.cluster_init_timeout ?? INIT_TIMEOUT_MS;
    return (stream) => new DynamicForwardProxy(cx, stream, readsState, initTimeoutMs);
  },
});
