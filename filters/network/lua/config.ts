import { LuaSource, type Static, Type } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** The script: one of Envoy's DataSources, or its text as a plain string. */
  source_code: LuaSource(),
  stat_prefix: Type.String({ default: "" }),
});
export type Config = Static<typeof Config>;
