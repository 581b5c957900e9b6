import { defineHttpFilter } from "@tsproxy/sdk";
import { Config } from "./config.ts";
import { Router } from "./router.ts";

export default defineHttpFilter({
  name: "envoy.filters.http.router",
  aliases: ["envoy.router"],
  types: ["envoy.extensions.filters.http.router.v3.Router"],
  terminal: true,
  config: Config,
  setup: (config, cx) => {
    const router = new Router(config, cx);
    return (stream) => router.route(stream);
  },
});
