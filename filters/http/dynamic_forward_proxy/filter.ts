// Hot path: every request of a forward proxy.
import {
  DnsCacheConfig,
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

const OVERFLOW = "DNS cache overflow";
const PENDING_OVERFLOW = "DNS cache pending request overflow";
const FAILURE = "DNS resolution failure";
const NO_NAME = reply(400, { body: "Empty host header", details: "empty_host_header" });

/** Holds a request until its route's cluster, one of type dynamic_forward_proxy, has resolved the host that the request names. */
class DynamicForwardProxy implements HttpFilter {
  readonly #cx: SetupContext;
  readonly #stream: HttpStream;
  readonly #readsState: boolean;

  constructor(cx: SetupContext, stream: HttpStream, readsState: boolean) {
    this.#cx = cx;
    this.#stream = stream;
    this.#readsState = readsState;
  }

  onRequestHeaders(headers: RequestHeaders) {
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
    if (headers.authority === "") return NO_NAME;
    const reads = this.#readsState && this.#stream.hasFilterState !== false;
    const state = reads ? this.#stream.filterState : undefined;
    const outcome = names.resolve(headers.authority ?? "", state);
    if (outcome === "known") return undefined;
    if (outcome instanceof Promise) return outcome.then(answer);
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
      return undefined;
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
    dns_cache_config: DnsCacheConfig,
    allow_dynamic_host_from_filter_state: Type.Optional(Type.Boolean()),
  }),
  routeConfig: RouteConfig,
  setupRoute: ({ host_rewrite_literal: literal, host_rewrite_header: header }): Rewrite => ({
    literal: literal ? headerText(literal, "host_rewrite_literal") : undefined,
    header: header === undefined ? undefined : nameOf(header, "host_rewrite_header"),
  }),
  setup:
    ({ allow_dynamic_host_from_filter_state: readsState = false }, cx) =>
    (stream) =>
      new DynamicForwardProxy(cx, stream, readsState),
});
