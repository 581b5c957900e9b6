import { RuntimeFeatureFlag, type Static, TokenBucketConfig, Type } from "@tsproxy/sdk";

export const Config = Type.Object({
  stat_prefix: Type.String({ minLength: 1 }),
  token_bucket: TokenBucketConfig,
  runtime_enabled: Type.Optional(RuntimeFeatureFlag),
});
export type Config = Static<typeof Config>;
