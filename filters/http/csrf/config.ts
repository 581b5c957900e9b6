import { RuntimeFractionalPercent, type Static, StringMatcher, Type } from "@tsproxy/sdk";

/** Envoy's CsrfPolicy; routes take the same message. */
export const Config = Type.Object({
  filter_enabled: RuntimeFractionalPercent,
  shadow_enabled: Type.Optional(RuntimeFractionalPercent),
  additional_origins: Type.Array(StringMatcher, { default: [] }),
});
export type Config = Static<typeof Config>;
