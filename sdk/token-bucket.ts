import type { BucketRate } from "./cells.ts";
import { ConfigError } from "./extension.ts";
import { Duration, type Static, Type, UInt32 } from "./schema.ts";

/** Envoy's local rate limits refuse faster fills. */
const FILL_INTERVAL_MIN_MS = 50;

/** Envoy's `type.v3.TokenBucket`. */
export const TokenBucketConfig = Type.Object({
  max_tokens: UInt32({ minimum: 1 }),
  tokens_per_fill: UInt32({ default: 1, minimum: 1 }),
  fill_interval: Duration(),
});
export type TokenBucketConfig = Static<typeof TokenBucketConfig>;

/** For `tokenBucket` and `tokenBuckets`. `path` is where the bucket stands in the config. */
export function bucketRate(config: TokenBucketConfig, path: string): BucketRate {
  if (config.fill_interval < FILL_INTERVAL_MIN_MS)
    throw new ConfigError(`${path}.fill_interval`, "is shorter than 50 ms; write at least 0.05s");
  return {
    maxTokens: config.max_tokens,
    tokensPerFill: config.tokens_per_fill,
    fillIntervalMs: config.fill_interval,
  };
}
