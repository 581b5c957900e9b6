import { AccessLogList, Duration, type Static, Type, UpstreamHttpFilters } from "@tsproxy/sdk";
import { STRICT_NAMES } from "./steering.ts";

export const Config = Type.Object({
  /** Counters by response code for each cluster. */
  dynamic_stats: Type.Boolean({ default: true }),
  suppress_envoy_headers: Type.Boolean({ default: false }),
  /** A request with a bad value in one of these is answered 400. */
  strict_check_headers: Type.Array(Type.Union(STRICT_NAMES.map((name) => Type.Literal(name))), {
    default: [],
  }),
  /** Takes the timeout from the header `x-envoy-expected-rq-timeout-ms`, which a proxy before this one has set. */
  respect_expected_rq_timeout: Type.Boolean({ default: false }),
  /** Access logs that get a line for each attempt. */
  upstream_log: AccessLogList(),
  upstream_log_options: Type.Optional(
    Type.Object({
      flush_upstream_log_on_upstream_stream: Type.Boolean({ default: false }),
      upstream_log_flush_interval: Type.Optional(Duration()),
    }),
  ),
  /** Filters that every attempt passes in clusters without `http_filters` of their own. The last one is `upstream_codec`. */
  upstream_http_filters: UpstreamHttpFilters(),
  suppress_grpc_request_failure_code_stats: Type.Boolean({ default: false }),
});
export type Config = Static<typeof Config>;
