import {
  type Counter,
  Duration,
  defineHttpFilter,
  type HttpFilter,
  type RequestHeaders,
  reply,
  type Static,
  type TokenBuckets,
  Type,
  tokenBuckets,
  UInt32,
} from "@tsproxy/sdk";

const Config = Type.Object({
  /** The header that tells clients apart; those without it share one bucket. */
  header: Type.String({ default: "x-api-key" }),
  requests: UInt32({ default: 10, minimum: 1 }),
  per: Duration({ default: 60_000 }),
});
type Config = Static<typeof Config>;

/** So many requests for each key and time, over all workers. */
class RateLimit implements HttpFilter {
  readonly #config: Config;
  readonly #buckets: TokenBuckets;
  readonly #limited: Counter;

  constructor(config: Config, buckets: TokenBuckets, limited: Counter) {
    this.#config = config;
    this.#buckets = buckets;
    this.#limited = limited;
  }

  onRequestHeaders(headers: RequestHeaders) {
    const key = headers.get(this.#config.header) ?? "";
    if (this.#buckets.take(key)) return;
    this.#limited.inc();
    const seconds = String(Math.ceil(this.#buckets.waitMs(key) / 1000));
    return reply(429, { body: "slow down\n", headers: [["retry-after", seconds]], flags: ["RL"] });
  }
}

export default defineHttpFilter({
  name: "ratelimit",
  config: Config,
  setup(config, cx) {
    const { requests, per } = config;
    // In memory that all workers share: the limit is exact, and a save of this file forgets nobody.
    const rate = { maxTokens: requests, tokensPerFill: requests, fillIntervalMs: per };
    const buckets = cx.cell("by key", tokenBuckets({ maxKeys: 10_000, ...rate }));
    const limited = cx.stats.counter("ratelimit.limited");
    return () => new RateLimit(config, buckets, limited);
  },
});
