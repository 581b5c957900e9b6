import { defineBalancer, LoadBalancingPolicy, Type } from "@tsproxy/sdk";

/** Chooses a locality by weight, and then a host of it by another policy. */
export default defineBalancer({
  name: "envoy.load_balancing_policies.wrr_locality",
  types: ["envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality"],
  config: Type.Object({ endpoint_picking_policy: LoadBalancingPolicy }),
  setup(config, cx) {
    const picker = config.endpoint_picking_policy.policies[0]!.typed_extension_config;
    const child = cx.extension("balancer", picker);
    return {
      byStream: child.current.value.byStream === true,
      compose: (cluster) =>
        cluster.spread("", cluster.hosts, child, { localities: { type: "weighted" } }),
    };
  },
});
