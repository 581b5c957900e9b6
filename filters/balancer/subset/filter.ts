import { ConfigError, defineBalancer } from "@tsproxy/sdk";
import { Config, type Selector } from "./config.ts";
import { SubsetStats, Subsets } from "./subsets.ts";

export default defineBalancer({
  name: "envoy.load_balancing_policies.subset",
  types: ["envoy.extensions.load_balancing_policies.subset.v3.Subset"],
  config: Config,
  setup(config: Config, cx) {
    const inner = config.subset_lb_policy?.policies[0]?.typed_extension_config;
    if (inner === undefined)
      throw new ConfigError("subset_lb_policy", "is required: the policy within each subset");
    for (const [k, selector] of config.subset_selectors.entries())
      checkSelector(selector, `subset_selectors[${k}]`);
    const child = cx.extension("balancer", inner);
    let previous: ReadonlySet<string> = new Set();
    return {
      // The request's dynamic metadata may name the subset as well.
      byStream: true,
      compose(cluster) {
        const stats = new SubsetStats(cluster.stats);
        // Envoy counts them on its main thread and on each worker; here one worker counts, however many there are.
        const counts = cx.role === "control" ? "all" : cx.worker === 0 ? "changes" : "nothing";
        const subsets = new Subsets(config, cluster, child, stats, counts, previous);
        previous = subsets.names;
        return subsets;
      },
    };
  },
});

function checkSelector(selector: Selector, at: string): void {
  if (selector.fallback_policy !== "KEYS_SUBSET") {
    if (selector.fallback_keys_subset.length > 0)
      throw new ConfigError(
        `${at}.fallback_keys_subset`,
        "can be set only for KEYS_SUBSET fallback_policy; remove it",
      );
    return;
  }
  const keys = new Set(selector.keys);
  const fallback = new Set(selector.fallback_keys_subset);
  if (fallback.size === 0)
    throw new ConfigError(`${at}.fallback_keys_subset`, "cannot be empty with KEYS_SUBSET");
  if ([...fallback].some((key) => !keys.has(key)))
    throw new ConfigError(`${at}.fallback_keys_subset`, "must be a subset of the selector's keys");
  if (fallback.size === keys.size)
    throw new ConfigError(
      `${at}.fallback_keys_subset`,
      "cannot be equal to the selector's keys: it would fall back on itself",
    );
}
