import {
  type Counter,
  type DownstreamConnection,
  defineNetworkFilter,
  type Gauge,
  held,
  type NetworkFilter,
  RuntimeFlag,
  type SetupContext,
  type SharedHolds,
  stop,
  type Timer,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";

/** What the connections of one use share. */
class Limit {
  readonly config: Config;
  readonly cx: SetupContext;
  /** Connections that the limit has let in, over all workers. */
  readonly open: SharedHolds;
  readonly limited: Counter;
  readonly active: Gauge;
  readonly #enabled: RuntimeFlag | undefined;

  constructor(config: Config, cx: SetupContext, open: SharedHolds) {
    this.config = config;
    this.cx = cx;
    this.open = open;
    const stats = cx.stats.scope(`connection_limit.${config.stat_prefix}.`);
    this.limited = stats.counter("limited_connections");
    this.active = stats.gauge("active_connections");
    const flag = config.runtime_enabled;
    this.#enabled = flag === undefined ? undefined : new RuntimeFlag(flag, cx.runtime);
  }

  get enabled(): boolean {
    return this.#enabled?.value ?? true;
  }
}

/** Closes connections past the limit, at once or after a delay that slows down clients which connect again and again. */
class ConnectionLimit implements NetworkFilter {
  readonly #limit: Limit;
  readonly #connection: DownstreamConnection;
  #isCounted = false;
  #holds = false;
  #timer: Timer | undefined = undefined;

  constructor(limit: Limit, connection: DownstreamConnection) {
    this.#limit = limit;
    this.#connection = connection;
  }

  onConnect() {
    const { active, config, cx, enabled, limited, open } = this.#limit;
    if (!enabled) return;
    active.inc();
    this.#isCounted = true;
    this.#holds = open.acquire(config.max_connections);
    if (this.#holds) return;
    limited.inc();
    if (config.delay === 0) this.#connection.close("flush");
    else {
      this.#timer = cx.timer(() => this.#connection.close("flush"));
      this.#timer.arm(config.delay);
    }
    return stop;
  }

  onClose() {
    this.#timer?.cancel();
    if (this.#isCounted) this.#limit.active.dec();
    if (this.#holds) this.#limit.open.release();
    this.#isCounted = this.#holds = false;
  }
}

export default defineNetworkFilter({
  name: "envoy.filters.network.connection_limit",
  types: ["envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit"],
  config: Config,
  shared: { open: held() },
  setup(config, cx) {
    const limit = new Limit(config, cx, cx.shared.open);
    return { create: (connection) => new ConnectionLimit(limit, connection) };
  },
});
