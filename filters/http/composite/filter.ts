import { defineHttpFilter, Type } from "@tsproxy/sdk";

/**
 * Stands where one filter or another is to be, as a matcher around it says (`ExtensionWithMatcher`), which is whose business it is to
 * make that filter. Where nothing matches it does nothing.
 */
export default defineHttpFilter({
  name: "envoy.filters.http.composite",
  types: ["envoy.extensions.filters.http.composite.v3.Composite"],
  config: Type.Object({}),
  setup: () => () => ({}),
});
