import { RuntimeFractionalPercent, type Static, StringMatcher, Type } from "@tsproxy/sdk";

export const Config = Type.Object({});

/** Envoy's CorsPolicy, for routes and virtual hosts. */
export const Policy = Type.Object({
  allow_origin_string_match: Type.Array(StringMatcher, { default: [] }),
  allow_methods: Type.String({ default: "" }),
  allow_headers: Type.String({ default: "" }),
  expose_headers: Type.String({ default: "" }),
  max_age: Type.String({ default: "" }),
  allow_credentials: Type.Optional(Type.Boolean()),
  allow_private_network_access: Type.Optional(Type.Boolean()),
  forward_not_matching_preflights: Type.Optional(Type.Boolean()),
  filter_enabled: Type.Optional(RuntimeFractionalPercent),
  shadow_enabled: Type.Optional(RuntimeFractionalPercent),
});
export type Policy = Static<typeof Policy>;
