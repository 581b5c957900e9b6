import {
  bucketRate,
  type Counter,
  type DownstreamConnection,
  defineNetworkFilter,
  hash,
  type NetworkFilter,
  RuntimeFlag,
  stop,
  type TokenBucket,
  tokenBucket,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";

/** What the connections of one use share. */
interface Shared {
  readonly bucket: TokenBucket;
  readonly enabled: RuntimeFlag | undefined;
  readonly limited: Counter;
}

/** Closes connections that come too fast. */
class LocalRateLimit implements NetworkFilter {
  readonly #shared: Shared;
  readonly #connection: DownstreamConnection;

  constructor(shared: Shared, connection: DownstreamConnection) {
    this.#shared = shared;
    this.#connection = connection;
  }

  onConnect() {
    const { bucket, enabled, limited } = this.#shared;
    if (enabled?.value === false || bucket.take()) return;
    limited.inc();
    // As in Envoy, which has no flag of its own for this.
    this.#connection.responseFlag = "URX";
    this.#connection.close("flush");
    return stop;
  }
}

export default defineNetworkFilter({
  name: "envoy.filters.network.local_ratelimit",
  types: ["envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit"],
  config: Config,
  setup(config, cx) {
    const rate = bucketRate(config.token_bucket, "token_bucket");
    // The rate is part of the name: a bucket whose rate has changed is another one, and starts full.
    const name = `bucket ${hash(JSON.stringify(rate), 0).toString(36)}`;
    const flag = config.runtime_enabled;
    const shared: Shared = {
      bucket: cx.cell(name, tokenBucket(rate)),
      enabled: flag === undefined ? undefined : new RuntimeFlag(flag, cx.runtime),
      limited: cx.stats.counter(`local_rate_limit.${config.stat_prefix}.rate_limited`),
    };
    return { create: (connection) => new LocalRateLimit(shared, connection) };
  },
});
