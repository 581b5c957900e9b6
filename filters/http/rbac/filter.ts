import {
  type Counter,
  compileRbac,
  defineHttpFilter,
  type HttpFilter,
  type HttpStream,
  type Rbac,
  type RbacDecision,
  reply,
  type SetupContext,
  type Stats,
} from "@tsproxy/sdk";
import { Config, RouteConfig } from "./config.ts";

const METADATA = "envoy.filters.http.rbac";

/** The rules of one RBAC message: the filter's own or a route's. */
class Settings {
  readonly rules: Rbac | undefined;
  readonly shadow: Rbac | undefined;
  readonly countsPolicies: boolean;
  /** Prefixes of the metadata keys; "": those of the filter's own config apply. */
  readonly prefix: string;
  readonly shadowPrefix: string;

  constructor(config: Config, path: string, cx: SetupContext) {
    this.prefix = config.rules_stat_prefix;
    this.shadowPrefix = config.shadow_rules_stat_prefix;
    this.countsPolicies = config.track_per_rule_stats;
    this.rules = compileRbac(config, { rules: `${path}rules`, matcher: `${path}matcher` }, cx);
    this.shadow = compileRbac(
      { rules: config.shadow_rules, matcher: config.shadow_matcher },
      { rules: `${path}shadow_rules`, matcher: `${path}shadow_matcher` },
      cx,
    );
  }
}

/**
 * Applies rules. As in Envoy, the filter's config names the stats, even for a route's rules. It also gives the prefix of metadata
 * keys if the route has none of its own.
 */
class Enforcer {
  readonly #config: Config;
  readonly #stats: Stats;
  readonly #shadowStats: Stats;
  readonly #allowed: Counter;
  readonly #denied: Counter;
  readonly #shadowAllowed: Counter;
  readonly #shadowDenied: Counter;

  constructor(config: Config, cx: SetupContext) {
    this.#config = config;
    const scope = (prefix: string) =>
      cx.stats.scope(`${cx.statPrefix ?? ""}rbac.${prefix === "" ? "" : `${dotted(prefix)}`}`);
    this.#stats = scope(config.rules_stat_prefix);
    this.#shadowStats = scope(config.shadow_rules_stat_prefix);
    this.#allowed = this.#stats.counter("allowed");
    this.#denied = this.#stats.counter("denied");
    this.#shadowAllowed = this.#shadowStats.counter("shadow_allowed");
    this.#shadowDenied = this.#shadowStats.counter("shadow_denied");
  }

  /** Returns the refusal; undefined: there are no rules, or they let the request pass. */
  enforce({ rules, shadow, countsPolicies, prefix, shadowPrefix }: Settings, stream: HttpStream) {
    const told: Record<string, unknown> = {};
    if (shadow !== undefined) {
      const decision = shadow.decide(stream);
      (decision.allowed ? this.#shadowAllowed : this.#shadowDenied).inc();
      if (countsPolicies) countPolicy(this.#shadowStats, decision, "shadow_");
      tell(told, `${shadowPrefix || this.#config.shadow_rules_stat_prefix}shadow`, decision);
    }
    const decision = rules?.decide(stream);
    if (decision !== undefined) {
      tell(told, `${prefix || this.#config.rules_stat_prefix}enforced`, decision);
      (decision.allowed ? this.#allowed : this.#denied).inc();
      if (countsPolicies) countPolicy(this.#stats, decision, "");
      if (decision.logHint !== undefined) hintLog(stream, decision.logHint);
    }
    if (shadow !== undefined || decision !== undefined) {
      const all = { ...stream.metadata.get(METADATA), ...told };
      // In the order in which Envoy's logs print them.
      stream.metadata.set(METADATA, Object.fromEntries(Object.entries(all).sort()));
    }
    return decision === undefined || decision.allowed ? undefined : refusal(decision);
  }
}

function countPolicy(stats: Stats, { allowed, policy }: RbacDecision, prefix: string): void {
  if (policy === undefined) return;
  stats.counter(`policy.${policy}.${prefix}${allowed ? "allowed" : "denied"}`).inc();
}

const dotted = (prefix: string): string => (prefix.endsWith(".") ? prefix : `${prefix}.`);

function tell(told: Record<string, unknown>, key: string, { allowed, policy }: RbacDecision): void {
  if (policy !== undefined) told[`${key}_effective_policy_id`] = policy;
  told[`${key}_engine_result`] = allowed ? "allowed" : "denied";
}

/** Sets the dynamic metadata by which access logs can be filtered. */
function hintLog(stream: HttpStream, hint: boolean): void {
  const common = stream.metadata.get("envoy.common");
  stream.metadata.set("envoy.common", { ...common, access_log_hint: hint });
}

function refusal({ policy = "none" }: RbacDecision) {
  const details = `rbac_access_denied_matched_policy[${policy.replace(/\s/g, "_")}]`;
  return reply(403, { body: "RBAC: access denied", details });
}

class RbacFilter implements HttpFilter {
  readonly #enforcer: Enforcer;
  readonly #own: Settings;
  readonly #stream: HttpStream;

  constructor(enforcer: Enforcer, own: Settings, stream: HttpStream) {
    this.#enforcer = enforcer;
    this.#own = own;
    this.#stream = stream;
  }

  onRequestHeaders() {
    const route = this.#stream.routeConfig as { readonly settings?: Settings } | undefined;
    const settings = route === undefined ? this.#own : route.settings;
    return settings && this.#enforcer.enforce(settings, this.#stream);
  }
}

export default defineHttpFilter({
  name: "envoy.filters.http.rbac",
  types: ["envoy.extensions.filters.http.rbac.v3.RBAC"],
  config: Config,
  routeConfig: RouteConfig,
  setupRoute: ({ rbac }, cx) =>
    rbac === undefined ? {} : { settings: new Settings(rbac, "rbac.", cx) },
  setup(config, cx) {
    const own = new Settings(config, "", cx);
    const enforcer = new Enforcer(config, cx);
    return (stream) => new RbacFilter(enforcer, own, stream);
  },
});
