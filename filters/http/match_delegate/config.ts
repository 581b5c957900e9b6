import { Extension, MatcherOf, RuntimeFractionalPercent, type Static, Type } from "@tsproxy/sdk";

/** Actions of a match: the filter is skipped, or (in a composite filter) another one takes its place. */
const StreamMatcher = () =>
  MatcherOf({
    "envoy.extensions.filters.common.matcher.action.v3.SkipFilter": Type.Object({}),
    "envoy.extensions.filters.http.composite.v3.ExecuteFilterAction": Type.Object({
      typed_config: Extension("http"),
      /** The part of the matching streams that get the filter. */
      sample_percent: Type.Optional(RuntimeFractionalPercent),
    }),
  });
export type StreamMatcher = Static<ReturnType<typeof StreamMatcher>>;

export const Config = Type.Object({
  extension_config: Extension("http"),
  xds_matcher: Type.Optional(StreamMatcher()),
  /** The older name of the same. */
  matcher: Type.Optional(StreamMatcher()),
});

/** Takes the place of the filter's own matcher. */
export const RouteConfig = Type.Object({ xds_matcher: Type.Optional(StreamMatcher()) });
