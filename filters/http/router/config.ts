import { type Static, Type } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** Counters by response code, for each cluster. */
  dynamic_stats: Type.Boolean({ default: true }),
  suppress_envoy_headers: Type.Boolean({ default: false }),
});
export type Config = Static<typeof Config>;
