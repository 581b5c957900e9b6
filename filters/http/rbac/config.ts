import { rbacFields, type Static, Type } from "@tsproxy/sdk";

/** Envoy's `http.rbac.v3.RBAC`. */
export const Config = Type.Object({
  ...rbacFields,
  rules_stat_prefix: Type.String({ default: "" }),
  track_per_rule_stats: Type.Boolean({ default: false }),
});
export type Config = Static<typeof Config>;

/** Without `rbac` the filter is off for the route. */
export const RouteConfig = Type.Object({ rbac: Type.Optional(Config) });
export type RouteConfig = Static<typeof RouteConfig>;
