// Hot path: a request that is not limited passes onRequestHeaders only, or nothing at all (test/bench/cpu.ts idle).
import {
  defineHttpFilter,
  done,
  HeaderLine,
  type HttpFilter,
  type HttpStream,
  placeOfRouteConfig,
  type RequestHeaders,
  ResponseHeaders,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";
import type { Limit } from "./limiter.ts";
import { checkRoute, Settings } from "./settings.ts";

/** Stands for the filter while no stream can be limited. */
const NOTHING: HttpFilter = {};

class LocalRateLimitFilter implements HttpFilter {
  readonly #stream: HttpStream;
  #settings: Settings;
  /** The bucket that was asked; undefined: none. */
  #limit: Limit | undefined = undefined;

  constructor(settings: Settings, stream: HttpStream) {
    this.#settings = settings;
    this.#stream = stream;
  }

  onRequestHeaders(headers: RequestHeaders) {
    const settings = (this.#stream.routeConfig as Settings | undefined) ?? this.#settings;
    if (!settings.enabled) return done;
    this.#settings = settings;
    settings.enabledCount.inc();
    const { allowed, limit } = settings.ask(this.#stream);
    this.#limit = limit;
    if (allowed) {
      settings.okCount.inc();
      return settings.tellsLimits ? undefined : done;
    }
    settings.limitedCount.inc();
    if (!settings.enforced) {
      settings.requestRules?.apply(headers, this.#stream);
      return;
    }
    settings.enforcedCount.inc();
    const { refusal, responseRules } = settings;
    if (responseRules === undefined) return refusal;
    const own = new ResponseHeaders();
    responseRules.apply(own, this.#stream);
    return { ...refusal, headers: [...own] };
  }

  /** The refusal passes here as well. */
  onResponseHeaders(headers: ResponseHeaders) {
    const limit = this.#limit;
    if (limit === undefined || !this.#settings.tellsLimits) return;
    // draft-ietf-httpapi-ratelimit-headers-03; reset: seconds until there is a token.
    headers.appendLine(new HeaderLine("x-ratelimit-limit", String(limit.maxTokens)));
    headers.appendLine(new HeaderLine("x-ratelimit-remaining", String(limit.bucket.remaining)));
    headers.appendLine(
      new HeaderLine("x-ratelimit-reset", String(Math.ceil(limit.bucket.waitMs / 1000))),
    );
  }
}

export default defineHttpFilter({
  name: "envoy.filters.http.local_ratelimit",
  types: ["envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"],
  config: Config,
  routeConfig: Config,
  setupRoute(config, cx) {
    checkRoute(config);
    return new Settings(config, placeOfRouteConfig(config), cx);
  },
  setup(config, cx) {
    const settings = new Settings(config, "", cx);
    return (stream) =>
      stream.isOverridden === false && settings.isIdle
        ? NOTHING
        : new LocalRateLimitFilter(settings, stream);
  },
});
