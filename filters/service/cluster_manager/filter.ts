import { defineService } from "@tsproxy/sdk";
import { ClusterManager } from "./cluster-manager.ts";
import { Config, check } from "./config.ts";

export default defineService({
  name: "cluster_manager",
  runs: "everywhere",
  section: "static_resources.clusters",
  config: Config,
  setup(config: Config, cx) {
    check(config);
    return new ClusterManager(config, cx);
  },
});
