// Hot path: runs for every request of the routes that use this cluster specifier.
import {
  type CompiledMatcher,
  compileMatcher,
  defineClusterSpecifier,
  MatcherOf,
  Type,
} from "@tsproxy/sdk";

const SPACE = "envoy.extensions.router.cluster_specifiers.matcher.v3";

const Config = Type.Object({
  cluster_matcher: MatcherOf({
    [`${SPACE}.ClusterAction` as const]: Type.Object({ cluster: Type.String({ minLength: 1 }) }),
  }),
});

/** Chooses the cluster that a tree of matchers names; if none of them matches there is no cluster. */
export default defineClusterSpecifier({
  name: "envoy.router.cluster_specifier_plugin.matcher",
  types: [`${SPACE}.MatcherClusterSpecifier`],
  config: Config,
  setup(config, cx) {
    const matcher: CompiledMatcher<string> = compileMatcher(
      config.cluster_matcher,
      "cluster_matcher",
      cx,
      ({ cluster }) => cluster,
    );
    return { cluster: (subject) => matcher.match(subject) };
  },
});
