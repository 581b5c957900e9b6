import { Enum, LoadBalancingPolicy, type Static, Type } from "@tsproxy/sdk";

const Selector = Type.Object({
  keys: Type.Array(Type.String({ minLength: 1 }), { default: [] }),
  single_host_per_subset: Type.Boolean({ default: false }),
  fallback_policy: Enum(
    ["NOT_DEFINED", "NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET", "KEYS_SUBSET"],
    { default: "NOT_DEFINED" },
  ),
  fallback_keys_subset: Type.Array(Type.String(), { default: [] }),
});

/** Envoy's `lb_subset_config`, and the policy within each subset. */
export const Config = Type.Object({
  fallback_policy: Enum(["NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET"], {
    default: "NO_FALLBACK",
  }),
  default_subset: Type.Record(Type.String(), Type.Unknown(), { default: {} }),
  subset_selectors: Type.Array(Selector, { default: [] }),
  allow_redundant_keys: Type.Boolean({ default: false }),
  locality_weight_aware: Type.Boolean({ default: false }),
  scale_locality_weight: Type.Boolean({ default: false }),
  panic_mode_any: Type.Boolean({ default: false }),
  list_as_any: Type.Boolean({ default: false }),
  metadata_fallback_policy: Enum(["METADATA_NO_FALLBACK", "FALLBACK_LIST"], {
    default: "METADATA_NO_FALLBACK",
  }),
  subset_lb_policy: Type.Optional(LoadBalancingPolicy),
});
export type Config = Static<typeof Config>;
export type Selector = Static<typeof Selector>;
