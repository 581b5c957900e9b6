import { HeaderValueOption } from "./header-rules.ts";
import { HealthPayload } from "./health-payload.ts";
import { Enum, type Static, Type, UInt32 } from "./schema.ts";
import { StringMatcher } from "./string-match.ts";

/*
 * Envoy's messages within `HealthCheck`. The cluster manager finds them in a cluster and hands each to the package of
 * filters/health that carries it out.
 */

const StatusRanges = Type.Array(
  Type.Object({ start: Type.Integer({ default: 0 }), end: Type.Integer({ default: 0 }) }),
  { default: [] },
);

/** Envoy's HttpHealthCheck. */
export const HttpHealthCheck = Type.Object({
  /** "": the host's own name, or else the cluster's. */
  host: Type.String({ default: "" }),
  path: Type.String({ minLength: 1 }),
  send: Type.Optional(HealthPayload),
  receive: Type.Array(HealthPayload, { default: [] }),
  /** Bytes of the answer's body in which `receive` is looked for. 0: Envoy has no limit then; ours holds. */
  response_buffer_size: UInt32({ default: 1024 }),
  request_headers_to_add: Type.Array(HeaderValueOption, { default: [] }),
  request_headers_to_remove: Type.Array(Type.String(), { default: [] }),
  expected_statuses: StatusRanges,
  retriable_statuses: StatusRanges,
  codec_client_type: Enum(["HTTP1", "HTTP2"], { default: "HTTP1" }),
  service_name_matcher: Type.Optional(StringMatcher),
  method: Enum(
    ["METHOD_UNSPECIFIED", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"],
    { default: "GET" },
  ),
});
export type HttpHealthCheck = Static<typeof HttpHealthCheck>;

/** Envoy's TcpHealthCheck. */
export const TcpHealthCheck = Type.Object({
  send: Type.Optional(HealthPayload),
  receive: Type.Optional(Type.Array(HealthPayload)),
});

/** Envoy's GrpcHealthCheck. */
export const GrpcHealthCheck = Type.Object({
  service_name: Type.String({ default: "" }),
  /** "": the cluster's name. */
  authority: Type.String({ default: "" }),
  initial_metadata: Type.Array(HeaderValueOption, { default: [] }),
});
