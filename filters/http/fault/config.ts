import {
  Duration,
  FractionalPercent,
  HeaderMatcher,
  type Static,
  Type,
  UInt32,
} from "@tsproxy/sdk";

const ByHeader = Type.Object({});
const percentage = Type.Optional(FractionalPercent);

/** Envoy's HTTPFault; routes take the same message. */
export const Config = Type.Object({
  delay: Type.Optional(
    Type.Object({
      fixed_delay: Type.Optional(Duration()),
      header_delay: Type.Optional(ByHeader),
      percentage,
    }),
  ),
  abort: Type.Optional(
    Type.Object({
      http_status: Type.Optional(UInt32({ minimum: 200, maximum: 599 })),
      grpc_status: Type.Optional(UInt32()),
      header_abort: Type.Optional(ByHeader),
      percentage,
    }),
  ),
  response_rate_limit: Type.Optional(
    Type.Object({
      fixed_limit: Type.Optional(Type.Object({ limit_kbps: Type.Integer({ minimum: 1 }) })),
      header_limit: Type.Optional(ByHeader),
      percentage,
    }),
  ),
  upstream_cluster: Type.String({ default: "" }),
  headers: Type.Array(HeaderMatcher, { default: [] }),
  downstream_nodes: Type.Array(Type.String(), { default: [] }),
  max_active_faults: Type.Optional(UInt32()),
  disable_downstream_cluster_stats: Type.Boolean({ default: false }),
  filter_metadata: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  delay_percent_runtime: Type.String({ default: "" }),
  delay_duration_runtime: Type.String({ default: "" }),
  abort_percent_runtime: Type.String({ default: "" }),
  abort_http_status_runtime: Type.String({ default: "" }),
  abort_grpc_status_runtime: Type.String({ default: "" }),
  max_active_faults_runtime: Type.String({ default: "" }),
  response_rate_limit_percent_runtime: Type.String({ default: "" }),
});
export type Config = Static<typeof Config>;
