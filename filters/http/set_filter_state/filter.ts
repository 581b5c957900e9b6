// Hot path: every request of a chain with it.
import {
  compileFilterStateValues,
  defineHttpFilter,
  FilterStateValue,
  type HttpStream,
  type SetupContext,
  type Static,
  setStreamState,
  Type,
} from "@tsproxy/sdk";

export const Config = Type.Object({
  on_request_headers: Type.Array(FilterStateValue, { default: [] }),
  /** The route is chosen anew once all objects are set. */
  clear_route_cache: Type.Boolean({ default: false }),
});

type Apply = (stream: HttpStream) => void;

function compile(config: Static<typeof Config>, cx: SetupContext): Apply {
  const apply = compileFilterStateValues(config.on_request_headers, "on_request_headers", cx);
  return (stream) => apply(stream, (key, value) => setStreamState(stream, key, value));
}

/** Gives requests objects of filter state, made from what is known of them. */
export default defineHttpFilter({
  name: "envoy.filters.http.set_filter_state",
  types: ["envoy.extensions.filters.http.set_filter_state.v3.Config"],
  config: Config,
  routeConfig: Config,
  setupRoute: compile,
  setup(config, cx) {
    const own = compile(config, cx);
    return (stream) => ({
      onRequestHeaders() {
        own(stream);
        for (const ofLevel of stream.routeConfigs) (ofLevel as Apply)(stream);
        if (config.clear_route_cache) stream.clearRoute();
      },
    });
  },
});
