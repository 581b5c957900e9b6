import {
  ConfigError,
  type Counter,
  compileHeaderRules,
  DescriptorMaker,
  type HeaderRules,
  type HttpStream,
  type Reply,
  RuntimeFraction,
  reply,
  type SetupContext,
  statusOf,
} from "@tsproxy/sdk";
import type { Config } from "./config.ts";
import { type Asked, Limiter, privateCells } from "./limiter.ts";

const CONNECTION_LIMITER = "envoy.filters.http.local_ratelimit";
const NONE: readonly Asked[] = [];

/** One LocalRateLimit, compiled: the filter's own, or a route's that takes its place. */
export class Settings {
  readonly tellsLimits: boolean;
  readonly enabledCount: Counter;
  readonly enforcedCount: Counter;
  readonly okCount: Counter;
  readonly limitedCount: Counter;
  /** For requests past a limit that is not enforced. */
  readonly requestRules: HeaderRules | undefined;
  readonly responseRules: HeaderRules | undefined;
  readonly refusal: Reply;
  readonly #config: Config;
  readonly #cx: SetupContext;
  readonly #limiter: Limiter;
  readonly #enabled: RuntimeFraction;
  readonly #enforced: RuntimeFraction;
  readonly #makers: readonly DescriptorMaker[];

  /** `place`: names the buckets; two uses at one place are one limit. */
  constructor(config: Config, place: string, cx: SetupContext) {
    this.#config = config;
    this.#cx = cx;
    this.tellsLimits = config.enable_x_ratelimit_headers === "DRAFT_VERSION_03";
    const stats = cx.stats.scope(`${config.stat_prefix}.http_local_rate_limit.`);
    this.enabledCount = stats.counter("enabled");
    this.enforcedCount = stats.counter("enforced");
    this.okCount = stats.counter("ok");
    this.limitedCount = stats.counter("rate_limited");
    // Envoy's name for what only its newest options count.
    stats.counter("shadow_mode");
    this.#enabled = new RuntimeFraction(config.filter_enabled ?? NEVER, cx.runtime);
    this.#enforced = new RuntimeFraction(config.filter_enforced ?? NEVER, cx.runtime);
    this.#limiter = new Limiter(config, (name, spec) => cx.cell(`${place} ${name}`, spec));
    for (const [k, limit] of config.rate_limits.entries()) checkOwn(limit, `rate_limits[${k}]`);
    this.#makers = config.rate_limits.map(
      (limit, k) => new DescriptorMaker(limit, `rate_limits[${k}]`, cx),
    );
    const rules = {
      request_headers_to_add: config.request_headers_to_add_when_not_enforced,
      request_headers_to_remove: [],
      response_headers_to_add: config.response_headers_to_add,
      response_headers_to_remove: [],
    };
    this.requestRules = compileHeaderRules(rules, "request", "");
    this.responseRules = compileHeaderRules(rules, "response", "");
    const status = config.status === undefined ? 429 : statusOf(config.status);
    this.refusal = reply(status < 400 ? 429 : status, {
      body: "local_rate_limited",
      flags: ["RL"],
      // As in Envoy, `local_reply_config` does not see the flag.
      flagsLate: true,
      details: "local_rate_limited",
      ...(config.rate_limited_as_resource_exhausted && { grpcStatus: 8 }),
    });
  }

  /** As the runtime is now, no request is asked about. */
  get isIdle(): boolean {
    return this.#enabled.isNever;
  }
  get enabled(): boolean {
    return this.#enabled.enabled();
  }
  get enforced(): boolean {
    return this.#enforced.enabled();
  }

  ask(stream: HttpStream) {
    const descriptors = this.#config.descriptors.length === 0 ? NONE : this.#describe(stream);
    if (!this.#config.local_rate_limit_per_downstream_connection)
      return this.#limiter.ask(descriptors);
    // Envoy keeps one limiter a connection, of the config that came first.
    const state = stream.connectionState;
    let limiter = state.get(CONNECTION_LIMITER) as Limiter | undefined;
    if (limiter === undefined) {
      limiter = new Limiter(
        this.#config,
        privateCells(() => this.#cx.now()),
      );
      state.set(CONNECTION_LIMITER, limiter);
    }
    return limiter.ask(descriptors);
  }

  #describe(stream: HttpStream): readonly Asked[] {
    const found: Asked[] = [];
    const ofRoute = this.#makers.length === 0;
    const lists = ofRoute ? (stream.route?.rateLimits ?? []) : [this.#makers];
    for (const makers of lists) {
      for (const maker of makers) {
        if (ofRoute ? !this.#wants(maker) : maker.onStreamDone) continue;
        const made = maker.make(stream);
        // As Envoy's: what its own entries count as is heeded, what those of routes do is not.
        if (made !== undefined) found.push(ofRoute ? { entries: made.entries } : made);
      }
    }
    return found;
  }

  #wants(maker: DescriptorMaker): boolean {
    return maker.stage === this.#config.stage && maker.disableKey === "";
  }
}

const NEVER = {
  default_value: { numerator: 0, denominator: "HUNDRED" },
  runtime_key: "",
} as const;

/** Envoy refuses what means nothing within the filter. */
function checkOwn(limit: Config["rate_limits"][number], path: string): void {
  if (limit.limit !== undefined)
    throw new ConfigError(`${path}.limit`, "is not supported here; remove it");
  if (limit.stage !== 0) throw new ConfigError(`${path}.stage`, "is not supported here; remove it");
  if (limit.disable_key !== "")
    throw new ConfigError(`${path}.disable_key`, "is not supported here; remove it");
}

/** A route's limit without a bucket limits nothing; Envoy refuses it. */
export function checkRoute(config: Config): void {
  if (config.token_bucket === undefined)
    throw new ConfigError("", "token_bucket is missing; a route's limit needs one");
}
