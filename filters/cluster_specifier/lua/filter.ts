// Hot path: runs for every request of the routes that use this cluster specifier.
import { defineClusterSpecifier, LuaSource, Type } from "@tsproxy/sdk";
import { Script } from "./script.ts";

const Config = Type.Object({
  source_code: LuaSource(),
  /** The cluster of requests for which the script fails or returns no name. */
  default_cluster: Type.String({ default: "" }),
});

/** Chooses the cluster that a script's `envoy_on_route(handle)` returns. */
export default defineClusterSpecifier({
  name: "envoy.router.cluster_specifier_plugin.lua",
  types: ["envoy.extensions.router.cluster_specifiers.lua.v3.LuaConfig"],
  config: Config,
  setup({ source_code, default_cluster }, cx) {
    const script = new Script(source_code, cx);
    return { cluster: ({ request }) => script.clusterFor(request) ?? default_cluster };
  },
});
