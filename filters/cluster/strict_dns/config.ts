import { DnsOptions, LoadAssignment, type Static, Type } from "@tsproxy/sdk";

export const Config = Type.Object({
  name: Type.String(),
  alt_stat_name: Type.Optional(Type.String()),
  load_assignment: Type.Optional(LoadAssignment),
  ...DnsOptions.properties,
});
export type Config = Static<typeof Config>;
