import { defineBalancer, Type } from "@tsproxy/sdk";

/** Says that the cluster's type chooses its hosts: the cluster manager asks no policy then. */
export default defineBalancer({
  name: "envoy.load_balancing_policies.cluster_provided",
  types: ["envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided"],
  config: Type.Object({}),
  setup: () => ({ create: () => ({ choose: () => undefined }) }),
});
