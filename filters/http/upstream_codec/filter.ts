import { defineHttpFilter, Type } from "@tsproxy/sdk";

/**
 * Marks the end of a chain of upstream filters, from where the router sends requests to the host's connection. The filter itself
 * does nothing.
 */
export default defineHttpFilter({
  name: "envoy.filters.http.upstream_codec",
  types: ["envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"],
  terminal: true,
  config: Type.Object({}),
  setup: () => () => ({}),
});
