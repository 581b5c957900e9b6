import {
  type Counter,
  compileRbac,
  type DownstreamConnection,
  defineNetworkFilter,
  type NetworkFilter,
  type Rbac,
  type RbacDecision,
  type RbacSubject,
  type SetupContext,
  stop,
  type Timer,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";

const METADATA = "envoy.filters.network.rbac";

/** What the connections of one use share. */
class Settings {
  readonly config: Config;
  readonly cx: SetupContext;
  readonly #rules: Rbac | undefined;
  readonly #shadow: Rbac | undefined;
  readonly #allowed: Counter;
  readonly #denied: Counter;
  readonly #shadowAllowed: Counter;
  readonly #shadowDenied: Counter;

  constructor(config: Config, cx: SetupContext) {
    this.config = config;
    this.cx = cx;
    this.#rules = compileRbac(config, { rules: "rules", matcher: "matcher" }, cx);
    this.#shadow = compileRbac(
      { rules: config.shadow_rules, matcher: config.shadow_matcher },
      { rules: "shadow_rules", matcher: "shadow_matcher" },
      cx,
    );
    const stats = cx.stats.scope(`${dotted(config.stat_prefix)}rbac.`);
    const shadow = stats.scope(dotted(config.shadow_rules_stat_prefix));
    this.#allowed = stats.counter("allowed");
    this.#denied = stats.counter("denied");
    this.#shadowAllowed = shadow.counter("shadow_allowed");
    this.#shadowDenied = shadow.counter("shadow_denied");
  }

  /** Undefined: there are no rules. */
  decide(connection: DownstreamConnection): RbacDecision | undefined {
    const subject = subjectOf(connection);
    const shadow = this.#shadow?.decide(subject);
    if (shadow !== undefined) {
      (shadow.allowed ? this.#shadowAllowed : this.#shadowDenied).inc();
      this.#tell(connection, shadow);
    }
    const decision = this.#rules?.decide(subject);
    if (decision !== undefined) (decision.allowed ? this.#allowed : this.#denied).inc();
    return decision;
  }

  #tell(connection: DownstreamConnection, { allowed, policy }: RbacDecision): void {
    const prefix = this.config.shadow_rules_stat_prefix;
    connection.setMetadata?.(METADATA, {
      ...connection.metadata?.get(METADATA),
      ...(policy !== undefined && { [`${prefix}shadow_effective_policy_id`]: policy }),
      [`${prefix}shadow_engine_result`]: allowed ? "allowed" : "denied",
    });
  }
}

const dotted = (prefix: string): string =>
  prefix === "" || prefix.endsWith(".") ? prefix : `${prefix}.`;

function subjectOf(connection: DownstreamConnection): RbacSubject {
  const { metadata, filterState, serverName, transportProtocol, applicationProtocols } = connection;
  return {
    info: {
      downstreamRemoteAddress: connection.remoteAddress,
      downstreamDirectAddress: connection.directAddress ?? connection.remoteAddress,
      downstreamLocalAddress: connection.localAddress,
    },
    downstream: connection,
    metadata,
    filterState,
    serverName,
    transportProtocol,
    applicationProtocols,
  };
}

/** Decides when the first bytes come: by then the TLS handshake has told who the client is. */
class RbacFilter implements NetworkFilter {
  readonly #settings: Settings;
  readonly #connection: DownstreamConnection;
  #isDecided = false;
  #isDenied = false;
  #timer: Timer | undefined = undefined;

  constructor(settings: Settings, connection: DownstreamConnection) {
    this.#settings = settings;
    this.#connection = connection;
  }

  onData() {
    if (this.#isDenied) return stop;
    const { config } = this.#settings;
    if (this.#isDecided && config.enforcement_type !== "CONTINUOUS") return;
    this.#isDecided = true;
    const decision = this.#settings.decide(this.#connection);
    if (decision === undefined || decision.allowed) return;
    this.#deny(decision.policy ?? "none");
    return stop;
  }

  #deny(policy: string): void {
    const { config, cx } = this.#settings;
    const connection = this.#connection;
    this.#isDenied = true;
    connection.terminationDetails = `rbac_access_denied_matched_policy[${policy.replace(/\s/g, "_")}]`;
    if (config.delay_deny === 0) connection.close("abort");
    else {
      this.#timer = cx.timer(() => connection.close("abort"));
      this.#timer.arm(config.delay_deny);
    }
  }

  onClose() {
    this.#timer?.cancel();
  }
}

export default defineNetworkFilter({
  name: "envoy.filters.network.rbac",
  types: ["envoy.extensions.filters.network.rbac.v3.RBAC"],
  config: Config,
  setup(config, cx) {
    const settings = new Settings(config, cx);
    return { create: (connection) => new RbacFilter(settings, connection) };
  },
});
