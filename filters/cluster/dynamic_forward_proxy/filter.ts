import { ConfigError, DnsCacheConfig, defineCluster, Type } from "@tsproxy/sdk";
import { NamedClusters } from "./named-clusters.ts";
import { NamedHosts } from "./named-hosts.ts";
import { Resolver } from "./resolver.ts";
import { SubClusters, SubClustersConfig } from "./sub-clusters.ts";

/** Hosts that requests name; each is resolved when it is first asked for, and stays while it is. */
export default defineCluster({
  name: "envoy.clusters.dynamic_forward_proxy",
  types: ["envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig"],
  config: Type.Object({
    dns_cache_config: Type.Optional(DnsCacheConfig),
    sub_clusters_config: Type.Optional(SubClustersConfig),
    allow_insecure_cluster_options: Type.Optional(Type.Boolean()),
  }),
  setup(config, cx) {
    const { dns_cache_config: cache, sub_clusters_config: subClusters } = config;
    const common = {
      peerNames: config.allow_insecure_cluster_options === true ? "any" : "verified",
      initialHosts: [],
    } as const;
    if (subClusters !== undefined) {
      if (subClusters.lb_policy === "CLUSTER_PROVIDED")
        throw new ConfigError(
          "sub_clusters_config.lb_policy",
          "unsupported lb_policy 'CLUSTER_PROVIDED' in sub_cluster_config",
        );
      return {
        ...common,
        discover(update, own, made) {
          const clusters = new SubClusters(subClusters, own, made);
          update([]);
          return () => clusters.stop();
        },
        provide: (own) => new NamedClusters(subClusters, own, cx),
      };
    }
    if (cache === undefined)
      throw new ConfigError(
        "dns_cache_config",
        "is missing; write dns_cache_config: { name: names }, or sub_clusters_config: {}",
      );
    return {
      ...common,
      discover(update) {
        const resolver = new Resolver(cache, cx, update);
        return () => resolver.stop();
      },
      provide: (own) => new NamedHosts(cache, own, cx),
    };
  },
});
