// Hot path: asked for every request of the routes that name it.
import { defineClusterSpecifier, LuaSource, Type } from "@tsproxy/sdk";
import { Script } from "./script.ts";

const Config = Type.Object({
  source_code: LuaSource(),
  /** Where requests go that the script has failed for, or has no name for. */
  default_cluster: Type.String({ default: "" }),
});

/** The cluster that a script's `envoy_on_route(handle)` answers. */
export default defineClusterSpecifier({
  name: "envoy.router.cluster_specifier_plugin.lua",
  types: ["envoy.extensions.router.cluster_specifiers.lua.v3.LuaConfig"],
  config: Config,
  setup({ source_code, default_cluster }, cx) {
    const script = new Script(source_code, cx);
    return { cluster: ({ request }) => script.clusterFor(request) ?? default_cluster };
  },
});
