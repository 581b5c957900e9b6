import { defineNetworkFilter } from "@tsproxy/sdk";
import { Config } from "./config.ts";
import { ConnectionManager } from "./manager.ts";

export default defineNetworkFilter({
  name: "envoy.filters.network.http_connection_manager",
  aliases: ["envoy.http_connection_manager"],
  types: ["envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"],
  terminal: true,
  config: Config,
  setup: (config, cx) => new ConnectionManager(config, cx),
});
