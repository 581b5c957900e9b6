import { Duration, Enum, LoadAssignment, type Static, Type } from "@tsproxy/sdk";

export const Config = Type.Object({
  name: Type.String(),
  alt_stat_name: Type.Optional(Type.String()),
  load_assignment: Type.Optional(LoadAssignment),
  dns_refresh_rate: Duration({ default: 5_000 }),
  dns_failure_refresh_rate: Type.Optional(
    Type.Object({ base_interval: Duration(), max_interval: Type.Optional(Duration()) }),
  ),
  dns_jitter: Type.Optional(Duration()),
  respect_dns_ttl: Type.Optional(Type.Boolean()),
  dns_lookup_family: Enum(["AUTO", "V4_ONLY", "V6_ONLY", "V4_PREFERRED", "ALL"], {
    default: "AUTO",
  }),
});
export type Config = Static<typeof Config>;
