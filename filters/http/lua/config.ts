import { LuaSource, type Static, Type } from "@tsproxy/sdk";

/** Envoy's `lua.v3.Lua`. */
export const Config = Type.Object({
  /** The older form of `default_source_code`. */
  inline_code: Type.Optional(LuaSource()),
  default_source_code: Type.Optional(LuaSource()),
  /** Scripts that routes choose by name. */
  source_codes: Type.Record(Type.String(), LuaSource(), { default: {} }),
  stat_prefix: Type.String({ default: "" }),
  clear_route_cache: Type.Boolean({ default: true }),
});
export type Config = Static<typeof Config>;

/** Envoy's `lua.v3.LuaPerRoute`. */
export const RouteConfig = Type.Object({
  disabled: Type.Boolean({ default: false }),
  name: Type.String({ default: "" }),
  source_code: Type.Optional(LuaSource()),
  filter_context: Type.Record(Type.String(), Type.Unknown(), { default: {} }),
});
export type RouteConfig = Static<typeof RouteConfig>;
