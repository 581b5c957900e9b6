import { defineNetworkFilter } from "@tsproxy/sdk";
import { Config } from "./config.ts";
import { ConnectionManager } from "./manager.ts";
import { type CheckInput, checkRoutes } from "./route-check.ts";
import { type ExplainInput, explainRoute } from "./route-explain.ts";

export default defineNetworkFilter({
  name: "envoy.filters.network.http_connection_manager",
  aliases: ["envoy.http_connection_manager"],
  types: ["envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"],
  terminal: true,
  config: Config,
  setup: (config, cx) => new ConnectionManager(config, cx),
  tools: {
    "route check": (input, cx) => checkRoutes(input as CheckInput, cx),
    "route explain": (input, cx) => explainRoute(input as ExplainInput, cx),
  },
});
