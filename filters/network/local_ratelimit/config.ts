import { Duration, RuntimeFeatureFlag, type Static, Type, UInt32 } from "@tsproxy/sdk";

export const Config = Type.Object({
  stat_prefix: Type.String({ minLength: 1 }),
  token_bucket: Type.Object({
    max_tokens: UInt32({ minimum: 1 }),
    tokens_per_fill: UInt32({ default: 1, minimum: 1 }),
    fill_interval: Duration(),
  }),
  runtime_enabled: Type.Optional(RuntimeFeatureFlag),
});
export type Config = Static<typeof Config>;
