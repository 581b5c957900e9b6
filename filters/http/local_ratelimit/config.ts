import {
  Enum,
  HeaderValueOption,
  HttpStatus,
  RateLimit,
  RuntimeFractionalPercent,
  type Static,
  TokenBucketConfig,
  Type,
  UInt32,
} from "@tsproxy/sdk";

const Descriptor = Type.Object({
  entries: Type.Array(
    Type.Object({ key: Type.String({ minLength: 1 }), value: Type.String({ default: "" }) }),
    { minItems: 1 },
  ),
  token_bucket: TokenBucketConfig,
});

/** Envoy's LocalRateLimit; routes take the same message. */
export const Config = Type.Object({
  stat_prefix: Type.String({ minLength: 1 }),
  status: Type.Optional(HttpStatus),
  token_bucket: Type.Optional(TokenBucketConfig),
  filter_enabled: Type.Optional(RuntimeFractionalPercent),
  filter_enforced: Type.Optional(RuntimeFractionalPercent),
  request_headers_to_add_when_not_enforced: Type.Array(HeaderValueOption, {
    default: [],
    maxItems: 10,
  }),
  response_headers_to_add: Type.Array(HeaderValueOption, { default: [], maxItems: 10 }),
  descriptors: Type.Array(Descriptor, { default: [] }),
  stage: UInt32({ default: 0, maximum: 10 }),
  rate_limits: Type.Array(RateLimit, { default: [] }),
  max_dynamic_descriptors: UInt32({ default: 20, minimum: 1 }),
  always_consume_default_token_bucket: Type.Boolean({ default: true }),
  local_rate_limit_per_downstream_connection: Type.Boolean({ default: false }),
  enable_x_ratelimit_headers: Enum(["OFF", "DRAFT_VERSION_03"], { default: "OFF" }),
  rate_limited_as_resource_exhausted: Type.Boolean({ default: false }),
});
export type Config = Static<typeof Config>;
