// Hot path: a choice a request.
import { defineBalancer, LocalityLbConfig, localityPolicyOf, Type } from "@tsproxy/sdk";

/** Any host, each with the same chance whatever its weight. */
export default defineBalancer({
  name: "envoy.load_balancing_policies.random",
  types: ["envoy.extensions.load_balancing_policies.random.v3.Random"],
  config: Type.Object({ locality_lb_config: Type.Optional(LocalityLbConfig) }),
  setup: (config) => ({
    localities: localityPolicyOf(config.locality_lb_config),
    create: ({ hosts }) => {
      const choose = () => hosts[Math.floor(Math.random() * hosts.length)];
      return { choose, peek: choose };
    },
  }),
});
