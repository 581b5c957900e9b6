import { LuaSource, type Static, Type } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** The script: Envoy's DataSource, or the text as such. */
  source_code: LuaSource(),
  stat_prefix: Type.String({ default: "" }),
});
export type Config = Static<typeof Config>;
