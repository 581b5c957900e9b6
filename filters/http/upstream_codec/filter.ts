import { defineHttpFilter, Type } from "@tsproxy/sdk";

/**
 * The end of a chain of upstream filters: what comes here goes to the host's connection, which is the router's to lend. The entry
 * says where that is; there is nothing for a filter to do.
 */
export default defineHttpFilter({
  name: "envoy.filters.http.upstream_codec",
  types: ["envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"],
  terminal: true,
  config: Type.Object({}),
  setup: () => () => ({}),
});
