import { Duration, HeaderMatcher, type Static, Type } from "@tsproxy/sdk";

/** Envoy's `http.health_check.v3.HealthCheck`. */
export const Config = Type.Object({
  pass_through_mode: Type.Boolean(),
  cache_time: Type.Optional(Duration()),
  cluster_min_healthy_percentages: Type.Optional(
    Type.Record(
      Type.String(),
      Type.Object({ value: Type.Number({ default: 0, minimum: 0, maximum: 100 }) }),
    ),
  ),
  headers: Type.Array(HeaderMatcher, { default: [] }),
});
export type Config = Static<typeof Config>;
