import { DnsCacheConfig, defineCluster, Type } from "@tsproxy/sdk";
import { NamedHosts } from "./named-hosts.ts";
import { Resolver } from "./resolver.ts";

/** Hosts that requests name; each is resolved when it is first asked for, and stays while it is. */
export default defineCluster({
  name: "envoy.clusters.dynamic_forward_proxy",
  types: ["envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig"],
  config: Type.Object({
    dns_cache_config: DnsCacheConfig,
    allow_insecure_cluster_options: Type.Optional(Type.Boolean()),
  }),
  setup({ dns_cache_config: cache, allow_insecure_cluster_options: insecure = false }, cx) {
    return {
      peerNames: insecure ? "any" : "verified",
      initialHosts: [],
      discover(update) {
        const resolver = new Resolver(cache, cx, update);
        return () => resolver.stop();
      },
      provide: (own) => new NamedHosts(cache, own, cx),
    };
  },
});
