import type { ExtensionRef } from "@tsproxy/sdk";
import type { ClusterConfig } from "./config.ts";

/**
 * The policy of a cluster, from `load_balancing_policy` or from `lb_policy` and the older fields, which become the policy's
 * config. Undefined: the cluster's type chooses hosts. `place`: the config field, for errors.
 */
export function balancerOf(
  config: ClusterConfig,
): { place: string; ref: ExtensionRef } | undefined {
  const named = config.load_balancing_policy?.policies[0]?.typed_extension_config;
  if (named?.package === "balancer/cluster_provided") return undefined;
  if (named !== undefined)
    return {
      place: "load_balancing_policy.policies[0].typed_extension_config",
      ref: own(named, config),
    };
  if (config.lb_policy === "CLUSTER_PROVIDED") return undefined;
  const policy = shipped(`balancer/${config.lb_policy.toLowerCase()}`, optionsOf(config));
  const subsets = config.lb_subset_config;
  if (subsets === undefined || (subsets.subset_selectors ?? []).length === 0)
    return { place: "lb_policy", ref: policy };
  // As in Envoy, subsets without selectors are ignored, so there is at least one here.
  return {
    place: "lb_subset_config",
    ref: shipped("balancer/subset", subsetOptions(config, policy)),
  };
}

function shipped(name: string, config: object): ExtensionRef {
  return { name, package: name, config };
}

/** Adds the fields that our policies need beside Envoy's. */
function own(ref: ExtensionRef, config: ClusterConfig): ExtensionRef {
  return { ...ref, config: { ...(ref.config as object), ...placeOf(config) } };
}

function placeOf(config: ClusterConfig): object {
  return { cluster: config.name, stat_prefix: `cluster.${config.alt_stat_name || config.name}.` };
}

function optionsOf(config: ClusterConfig): object {
  const common = config.common_lb_config ?? {};
  const { locality_weighted_lb_config: weighted, zone_aware_lb_config: zones } = common;
  const place = placeOf(config);
  const localities = {
    ...(weighted !== undefined && { locality_weighted_lb_config: {} }),
    ...(zones !== undefined && { zone_aware_lb_config: zones }),
  };
  const spread = { ...place, locality_lb_config: localities };
  const hashing = {
    ...place,
    ...(weighted !== undefined && { locality_weighted_lb_config: {} }),
    ...(common.consistent_hashing_lb_config !== undefined && {
      consistent_hashing_lb_config: common.consistent_hashing_lb_config,
    }),
  };
  switch (config.lb_policy) {
    case "ROUND_ROBIN":
      return { ...spread, ...config.round_robin_lb_config };
    case "LEAST_REQUEST":
      return { ...spread, ...config.least_request_lb_config };
    case "RING_HASH":
      return { ...RING_DEFAULTS, ...hashing, ...config.ring_hash_lb_config };
    case "MAGLEV":
      return { table_size: 65_537, ...hashing, ...config.maglev_lb_config };
    default:
      return spread;
  }
}

/** Core fills in defaults only for packages named in the config; this one is named here, so its defaults are too. */
const RING_DEFAULTS = {
  hash_function: "XX_HASH",
  minimum_ring_size: 1024,
  maximum_ring_size: 8 * 1024 * 1024,
};

function subsetOptions(config: ClusterConfig, policy: ExtensionRef): object {
  const given = config.lb_subset_config ?? {};
  return {
    fallback_policy: "NO_FALLBACK",
    default_subset: {},
    allow_redundant_keys: false,
    locality_weight_aware: false,
    scale_locality_weight: false,
    panic_mode_any: false,
    list_as_any: false,
    metadata_fallback_policy: "METADATA_NO_FALLBACK",
    ...given,
    subset_selectors: (given.subset_selectors ?? []).map((selector) => ({
      keys: [],
      single_host_per_subset: false,
      fallback_policy: "NOT_DEFINED",
      fallback_keys_subset: [],
      ...selector,
    })),
    subset_lb_policy: { policies: [{ typed_extension_config: policy }] },
  };
}
