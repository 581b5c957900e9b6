// Hot path: requests that change nothing pass by their method.
import {
  type Counter,
  compileStringMatch,
  defineHttpFilter,
  type HttpFilter,
  type HttpStream,
  headerName,
  type RequestHeaders,
  RuntimeFraction,
  reply,
  type SetupContext,
  type StringMatch,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";

const ORIGIN = headerName("origin");
const REFERER = headerName("referer");
const CHANGING = new Set(["POST", "PUT", "DELETE", "PATCH"]);
const REFUSAL = reply(403, { body: "Invalid origin", details: "csrf_origin_mismatch" });

/** One CsrfPolicy, compiled: the filter's own or a route's. */
class Policy {
  readonly #enabled: RuntimeFraction;
  readonly #shadow: RuntimeFraction | undefined;
  readonly #origins: readonly StringMatch[];

  constructor(config: Config, cx: SetupContext) {
    this.#enabled = new RuntimeFraction(config.filter_enabled, cx.runtime);
    const shadow = config.shadow_enabled;
    this.#shadow = shadow === undefined ? undefined : new RuntimeFraction(shadow, cx.runtime);
    this.#origins = config.additional_origins.map((match, k) =>
      compileStringMatch(match, `additional_origins[${k}]`, cx),
    );
  }

  get enabled(): boolean {
    return this.#enabled.enabled();
  }
  get shadow(): boolean {
    return this.#shadow?.enabled() ?? false;
  }
  allows(source: string, target: string): boolean {
    return source === target || this.#origins.some((matches) => matches(source));
  }
}

interface Counters {
  readonly missing: Counter;
  readonly invalid: Counter;
  readonly valid: Counter;
}

class CsrfFilter implements HttpFilter {
  readonly #own: Policy;
  readonly #counters: Counters;
  readonly #stream: HttpStream;

  constructor(own: Policy, counters: Counters, stream: HttpStream) {
    this.#own = own;
    this.#counters = counters;
    this.#stream = stream;
  }

  onRequestHeaders(headers: RequestHeaders) {
    const policy = (this.#stream.routeConfig as Policy | undefined) ?? this.#own;
    const { enabled } = policy;
    if ((!enabled && !policy.shadow) || !CHANGING.has(headers.method)) return;
    const { missing, invalid, valid } = this.#counters;
    const origin = headers.get(ORIGIN) ?? "";
    const source = hostOf(origin === "" ? headers.get(REFERER) : origin);
    if (source === "") missing.inc();
    else if (policy.allows(source, headers.authority ?? "")) {
      valid.inc();
      return;
    } else invalid.inc();
    if (enabled) return REFUSAL;
  }
}

/**
 * Host and port of an origin or an absolute URL; of anything else the text itself. A browser that hides the origin sends `null`
 * (https://fetch.spec.whatwg.org/#origin-header), which counts as none, whatever the referer.
 */
function hostOf(url: string | undefined): string {
  if (url === undefined || url === "null") return "";
  return /^https?:\/\/([^/?#]*)/i.exec(url)?.[1] ?? url;
}

export default defineHttpFilter({
  name: "envoy.filters.http.csrf",
  aliases: ["envoy.csrf"],
  types: ["envoy.extensions.filters.http.csrf.v3.CsrfPolicy"],
  config: Config,
  routeConfig: Config,
  setupRoute: (config, cx) => new Policy(config, cx),
  setup(config, cx) {
    const stats = cx.stats.scope(`${cx.statPrefix ?? ""}csrf.`);
    const counters = {
      missing: stats.counter("missing_source_origin"),
      invalid: stats.counter("request_invalid"),
      valid: stats.counter("request_valid"),
    };
    const own = new Policy(config, cx);
    return (stream) => new CsrfFilter(own, counters, stream);
  },
});
