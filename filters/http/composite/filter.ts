import { defineHttpFilter, Type } from "@tsproxy/sdk";

/**
 * A placeholder in the filter chain that does nothing by itself: the matcher around it (`ExtensionWithMatcher`, see
 * match_delegate) puts another filter in its place for the streams that match.
 */
export default defineHttpFilter({
  name: "envoy.filters.http.composite",
  types: ["envoy.extensions.filters.http.composite.v3.Composite"],
  config: Type.Object({}),
  setup: () => () => ({}),
});
