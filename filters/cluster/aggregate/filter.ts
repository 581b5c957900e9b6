import { defineCluster, Type } from "@tsproxy/sdk";

/** Hosts of other clusters, each of which is the fallback of those before it. */
export default defineCluster({
  name: "envoy.clusters.aggregate",
  types: ["envoy.extensions.clusters.aggregate.v3.ClusterConfig"],
  config: Type.Object({ clusters: Type.Array(Type.String({ minLength: 1 }), { minItems: 1 }) }),
  setup: (config) => ({ initialHosts: [], clusters: config.clusters }),
});
