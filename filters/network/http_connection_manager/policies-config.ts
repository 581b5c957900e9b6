import {
  Duration,
  Enum,
  HashPolicyConfig,
  HeaderMatcher,
  RuntimeFractionalPercent,
  type Static,
  Type,
  TypedExtension,
  UInt32,
} from "@tsproxy/sdk";
import { HeaderMutation } from "./header-mutation.ts";

const Metadata = Type.Object({
  filter_metadata: Type.Record(Type.String(), Type.Record(Type.String(), Type.Unknown()), {
    default: {},
  }),
});
export type Metadata = Static<typeof Metadata>;

const RetryHostPredicate = TypedExtension({
  "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate": Type.Object({}),
  "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate": Type.Object({}),
  "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig": Type.Object({
    metadata_match: Type.Optional(Metadata),
  }),
});

const RetryPriority = TypedExtension({
  "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig": Type.Object({
    update_frequency: Type.Integer({ minimum: 1 }),
  }),
});

const RetryPolicyConfig = Type.Object({
  retry_on: Type.String({ default: "" }),
  num_retries: UInt32({ default: 1 }),
  per_try_timeout: Duration({ default: 0 }),
  per_try_idle_timeout: Duration({ default: 0 }),
  retry_priority: Type.Optional(RetryPriority),
  retry_host_predicate: Type.Array(RetryHostPredicate, { default: [] }),
  host_selection_retry_max_attempts: Type.Integer({ default: 0 }),
  retriable_status_codes: Type.Array(UInt32(), { default: [] }),
  retry_back_off: Type.Optional(
    Type.Object({ base_interval: Duration(), max_interval: Type.Optional(Duration()) }),
  ),
  rate_limited_retry_back_off: Type.Optional(
    Type.Object({
      reset_headers: Type.Array(
        Type.Object({
          name: Type.String({ minLength: 1 }),
          format: Enum(["SECONDS", "UNIX_TIMESTAMP"], { default: "SECONDS" }),
        }),
        { minItems: 1 },
      ),
      max_interval: Duration({ default: 300_000 }),
    }),
  ),
  /** Envoy has no such predicates either, so any entry is refused. */
  retry_options_predicates: Type.Array(TypedExtension({}), { default: [] }),
  retriable_headers: Type.Array(HeaderMatcher, { default: [] }),
  retriable_request_headers: Type.Array(HeaderMatcher, { default: [] }),
});
export type RetryPolicyConfig = Static<typeof RetryPolicyConfig>;

const MirrorPolicyConfig = Type.Object({
  cluster: Type.String({ default: "" }),
  cluster_header: Type.String({ default: "" }),
  runtime_fraction: Type.Optional(RuntimeFractionalPercent),
  disable_shadow_host_suffix_append: Type.Boolean({ default: false }),
  /** The mirrored request's host, without a suffix. */
  host_rewrite_literal: Type.Optional(Type.String()),
  request_headers_mutations: Type.Optional(Type.Array(HeaderMutation)),
});
export type MirrorPolicyConfig = Static<typeof MirrorPolicyConfig>;

const InternalRedirectPredicateConfig = TypedExtension({
  "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig": Type.Object({}),
  "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig": Type.Object({
    allowed_route_names: Type.Array(Type.String({ minLength: 1 }), { default: [] }),
  }),
  "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig": Type.Object({}),
});

const InternalRedirectConfig = Type.Object({
  max_internal_redirects: UInt32({ default: 1 }),
  redirect_response_codes: Type.Array(UInt32(), { default: [] }),
  predicates: Type.Array(InternalRedirectPredicateConfig, { default: [] }),
  allow_cross_scheme_redirect: Type.Boolean({ default: false }),
  response_headers_to_copy: Type.Array(Type.String({ minLength: 1 }), { default: [] }),
});
export type InternalRedirectConfig = Static<typeof InternalRedirectConfig>;

const HedgePolicyConfig = Type.Object({
  hedge_on_per_try_timeout: Type.Boolean({ default: false }),
});

/** Fields of a route's action, its virtual host and the route table. */
export const mirrorFields = {
  request_mirror_policies: Type.Array(MirrorPolicyConfig, { default: [] }),
};

/** Fields of a route's action and its virtual host; those of the action win. */
const sharedFields = {
  retry_policy: Type.Optional(RetryPolicyConfig),
  hedge_policy: Type.Optional(HedgePolicyConfig),
  ...mirrorFields,
};

/** Fields of a route entry and its virtual host. */
const bufferFields = {
  per_request_buffer_limit_bytes: Type.Optional(UInt32()),
  request_body_buffer_limit: Type.Optional(Type.Integer({ minimum: 0 })),
};

/** Fields of a route entry. */
export const entryPolicyFields = {
  ...bufferFields,
  /** The route's requests are counted below `vhost.<virtual host>.route.<this>.` as well. */
  stat_prefix: Type.String({ default: "" }),
};

/** Fields of a virtual host. */
export const virtualHostPolicyFields = {
  ...sharedFields,
  ...bufferFields,
  include_request_attempt_count: Type.Boolean({ default: false }),
  include_attempt_count_in_response: Type.Boolean({ default: false }),
  include_is_timeout_retry_header: Type.Boolean({ default: false }),
};

/** Fields of a RouteAction. */
export const actionPolicyFields = {
  ...sharedFields,
  priority: Enum(["DEFAULT", "HIGH"], { default: "DEFAULT" }),
  hash_policy: Type.Array(HashPolicyConfig, { default: [] }),
  metadata_match: Type.Optional(Metadata),
  internal_redirect_policy: Type.Optional(InternalRedirectConfig),
  max_stream_duration: Type.Optional(
    Type.Object({
      max_stream_duration: Type.Optional(Duration()),
      grpc_timeout_header_max: Type.Optional(Duration()),
      grpc_timeout_header_offset: Type.Optional(Duration()),
    }),
  ),
  /** The older option to honour `grpc-timeout`. */
  max_grpc_timeout: Type.Optional(Duration()),
  grpc_timeout_offset: Type.Optional(Duration()),
};

/** Fields of a weighted cluster. */
export const weightedPolicyFields = { metadata_match: Type.Optional(Metadata) };

const Action = Type.Object(actionPolicyFields);
const Host = Type.Object(virtualHostPolicyFields);
const Mirrors = Type.Object(mirrorFields);
const Entry = Type.Object(entryPolicyFields);
/** The parts of the config that a route's policies come from, the most specific first. */
export interface PolicySources {
  readonly action: Static<typeof Action>;
  readonly entry: Static<typeof Entry>;
  readonly virtualHost: Static<typeof Host> & { readonly name: string };
  readonly table: Static<typeof Mirrors>;
}
