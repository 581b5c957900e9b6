import { defineHttpFilter, Type } from "@tsproxy/sdk";

/**
 * A place in the chain that does nothing by itself: the matcher around it (`ExtensionWithMatcher`, see match_delegate) puts another
 * filter there for the streams that match.
 */
export default defineHttpFilter({
  name: "envoy.filters.http.composite",
  types: ["envoy.extensions.filters.http.composite.v3.Composite"],
  config: Type.Object({}),
  setup: () => () => ({}),
});
