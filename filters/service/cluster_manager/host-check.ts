import type {
  Address,
  Connection,
  ConnectionHandler,
  ConnectOptions,
  Counter,
  Gauge,
  HealthChecker,
  HealthEvents,
  HealthSession,
  HostSpec,
  SetupContext,
  Slot,
  Stats,
  Timer,
} from "@tsproxy/sdk";
import { CheckTimeout } from "./check-timeout.ts";
import type { HealthCheck } from "./health-config.ts";
import { HealthEventLog } from "./health-events.ts";
import { FLAG } from "./health-flags.ts";
import { addressOf } from "./host.ts";

/** Effect of a check on a host's health; "pending": the threshold is not reached yet. */
type Transition = "unchanged" | "pending" | "changed";

/** The part of a host that its checks use. */
export interface CheckedHost {
  readonly spec: HostSpec;
  flags: number;
}

/** What the checks of all hosts of a cluster share. */
export class ClusterChecks {
  readonly cx: SetupContext;
  readonly config: HealthCheck;
  readonly clusterName: string;
  readonly checker: Slot<HealthChecker>;
  readonly connectOptionsFor: (spec: HostSpec, address: Address) => ConnectOptions;
  readonly events: HealthEventLog;
  readonly attempt: Counter;
  readonly success: Counter;
  readonly failure: Counter;
  readonly passiveFailure: Counter;
  readonly networkFailure: Counter;
  readonly verifyCluster: Counter;
  readonly healthy: Gauge;
  readonly degraded: Gauge;
  readonly #hadTraffic: () => boolean;

  constructor(parts: {
    readonly cx: SetupContext;
    readonly config: HealthCheck;
    readonly clusterName: string;
    readonly checker: Slot<HealthChecker>;
    readonly connectOptionsFor: (spec: HostSpec, address: Address) => ConnectOptions;
    readonly stats: Stats;
    /** True once the cluster has had a request; until then `no_traffic_interval` applies. */
    readonly hadTraffic: () => boolean;
  }) {
    this.cx = parts.cx;
    this.config = parts.config;
    this.clusterName = parts.clusterName;
    this.checker = parts.checker;
    this.connectOptionsFor = parts.connectOptionsFor;
    this.#hadTraffic = parts.hadTraffic;
    const { event_log_path: old, event_logger: sinks = [] } = parts.config;
    const paths = [old, ...sinks.map((sink) => sink.typed_config?.event_log_path ?? "")];
    this.events = new HealthEventLog(
      parts.cx,
      paths.filter((path) => path !== ""),
      parts.checker.current.value.type,
      parts.clusterName,
    );
    const scope = parts.stats.scope("health_check.");
    this.attempt = scope.counter("attempt");
    this.success = scope.counter("success");
    this.failure = scope.counter("failure");
    this.passiveFailure = scope.counter("passive_failure");
    this.networkFailure = scope.counter("network_failure");
    this.verifyCluster = scope.counter("verify_cluster");
    this.healthy = scope.gauge("healthy");
    this.degraded = scope.gauge("degraded");
  }

  /** Milliseconds until the next check, depending on the result of this one. */
  interval(ok: boolean, transition: Transition): number {
    const { config } = this;
    const pending = transition === "pending";
    if (!this.#hadTraffic()) {
      const quiet = config.no_traffic_interval;
      return this.jittered(ok && !pending ? (config.no_traffic_healthy_interval ?? quiet) : quiet);
    }
    if (ok) {
      return this.jittered(
        pending ? (config.healthy_edge_interval ?? config.interval) : config.interval,
      );
    }
    const unhealthy = config.unhealthy_interval ?? config.interval;
    return this.jittered(pending ? (config.unhealthy_edge_interval ?? unhealthy) : unhealthy);
  }

  /** Adds the configured jitter to a delay, within the limits of runtime. */
  jittered(ms: number, jitterMs = this.config.interval_jitter): number {
    const percent = Math.floor((this.config.interval_jitter_percent * ms) / 100);
    const all = ms + Math.random() * percent + Math.random() * jitterMs;
    const { runtime } = this.cx;
    const least = runtime.integer("health_check.min_interval", 0);
    const most = runtime.integer("health_check.max_interval", Number.MAX_SAFE_INTEGER);
    return Math.max(1, least, Math.min(all, most));
  }
}

/**
 * The active checks of one host.
 *
 *   start ──> checking ──result or timeout──> waiting ──interval──> checking …
 */
export class HostCheck implements HealthEvents {
  readonly #shared: ClusterChecks;
  readonly #host: CheckedHost;
  readonly #onChecked: (changed: boolean, ok: boolean) => void;
  readonly #interval: Timer;
  readonly #timeout: CheckTimeout;
  #session: HealthSession | undefined = undefined;
  #generation: Slot<HealthChecker>["current"];
  #spec: HostSpec;
  #checking = false;
  /** No check has completed yet. */
  #first: boolean;
  #healthyInRow = 0;
  #unhealthyInRow = 0;
  #closed = false;

  /** `known`: a previous generation has checked the host. `onChecked`: called after each check; `changed`: its flags have. */
  constructor(
    shared: ClusterChecks,
    host: CheckedHost,
    known: boolean,
    onChecked: (changed: boolean, ok: boolean) => void,
  ) {
    this.#shared = shared;
    this.#host = host;
    this.#spec = host.spec;
    this.#first = !known;
    this.#onChecked = onChecked;
    this.#generation = shared.checker.current;
    this.#generation.acquire();
    this.#interval = shared.cx.timer(() => this.#check());
    this.#timeout = new CheckTimeout(shared.cx, () => this.#onTimeout());
    if ((host.flags & FLAG.FAILED_ACTIVE_HC) === 0) shared.healthy.inc();
    if ((host.flags & FLAG.DEGRADED_ACTIVE_HC) !== 0) shared.degraded.inc();
  }

  get first(): boolean {
    return this.#first;
  }

  start(): void {
    const { initial_jitter: jitter, interval } = this.#shared.config;
    if (!this.#first) this.#interval.arm(this.#shared.jittered(Math.random() * interval));
    else if (jitter === 0) this.#check();
    else this.#interval.arm(this.#shared.jittered(0, jitter));
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#interval.cancel();
    this.#timeout.cancel();
    this.#session?.close();
    this.#generation.release();
    if ((this.#host.flags & FLAG.FAILED_ACTIVE_HC) === 0) this.#shared.healthy.dec();
    if ((this.#host.flags & FLAG.DEGRADED_ACTIVE_HC) !== 0) this.#shared.degraded.dec();
  }

  /** Called when a worker has received a response with x-envoy-immediate-health-check-fail. */
  onPassiveFailure(): void {
    if (this.#closed) return;
    this.#host.flags |= FLAG.EXCLUDED_VIA_IMMEDIATE_HC_FAIL;
    this.#fail("PASSIVE", false, 0);
    this.#onChecked(true, false);
  }

  #check(): void {
    const { checker, attempt, config } = this.#shared;
    if (checker.current !== this.#generation) this.#renew();
    if (this.#spec !== this.#host.spec) this.#session = this.#leave();
    this.#session ??= this.#generation.value.create(this.#target(), this);
    this.#checking = true;
    attempt.inc();
    this.#timeout.arm(config.timeout);
    this.#session.check();
  }

  /** Changes to new code of the checker. */
  #renew(): void {
    this.#session = this.#leave();
    this.#generation.release();
    this.#generation = this.#shared.checker.current;
    this.#generation.acquire();
  }

  /** Closes the session; the next one uses the host's current spec, as its address may have changed. */
  #leave(): undefined {
    this.#session?.close();
    this.#spec = this.#host.spec;
    return undefined;
  }

  #target() {
    const { spec } = this.#host;
    const { cx, config, clusterName, connectOptionsFor, verifyCluster } = this.#shared;
    const own = spec.healthCheck;
    const address =
      spec.path !== undefined
        ? addressOf(spec)
        : { ip: own?.ip ?? spec.ip, port: own?.port || spec.port };
    return {
      clusterName,
      address,
      hostname: own?.hostname ?? "",
      reuseConnection: config.reuse_connection,
      connect: (handler: ConnectionHandler): Connection =>
        cx.connect(address, handler, connectOptionsFor(spec, address)),
      timeoutMs: config.timeout,
      onClusterVerified: () => verifyCluster.inc(),
    };
  }

  onHealthy({ degraded }: { readonly degraded: boolean }): void {
    if (!this.#take()) return;
    const { config, events, healthy, success } = this.#shared;
    const host = this.#host;
    const before = host.flags;
    const first = this.#first;
    this.#unhealthyInRow = 0;
    let transition: Transition = "unchanged";
    if ((host.flags & FLAG.FAILED_ACTIVE_HC) !== 0) {
      // The first successful check makes the host healthy at once, without `healthy_threshold`.
      if (first || ++this.#healthyInRow === config.healthy_threshold) {
        host.flags &= ~(
          FLAG.FAILED_ACTIVE_HC |
          FLAG.ACTIVE_HC_TIMEOUT |
          FLAG.EXCLUDED_VIA_IMMEDIATE_HC_FAIL
        );
        healthy.inc();
        transition = "changed";
        events.write(host.spec, { add_healthy_event: { first_check: first } });
      } else transition = "pending";
    }
    if (transition !== "changed" && config.always_log_health_check_success)
      events.write(host.spec, { successful_health_check_event: {} });
    transition = this.#endPending(transition);
    if (degraded !== ((host.flags & FLAG.DEGRADED_ACTIVE_HC) !== 0)) {
      this.#setDegraded(degraded);
      if (transition === "unchanged") transition = "changed";
    }
    success.inc();
    this.#first = false;
    this.#interval.arm(this.#shared.interval(true, transition));
    this.#onChecked(host.flags !== before || first, true);
  }

  onFailure(failure: Parameters<HealthEvents["onFailure"]>[0]): void {
    if (!this.#take()) return;
    const before = this.#host.flags;
    const first = this.#first;
    if (failure.immediate === true) this.#host.flags |= FLAG.EXCLUDED_VIA_IMMEDIATE_HC_FAIL;
    const type = failure.type === "network" ? "NETWORK" : "ACTIVE";
    const transition = this.#fail(type, failure.retriable === true, failure.status ?? 0);
    this.#interval.arm(this.#shared.interval(false, transition));
    this.#onChecked(this.#host.flags !== before || first, false);
  }

  #onTimeout(): void {
    if (!this.#take()) return;
    const before = this.#host.flags;
    const first = this.#first;
    this.#session?.onTimeout();
    const transition = this.#fail("NETWORK_TIMEOUT", false, 0);
    this.#interval.arm(this.#shared.interval(false, transition));
    this.#onChecked(this.#host.flags !== before || first, false);
  }

  /** Ends the current check; false if it has already ended. */
  #take(): boolean {
    if (!this.#checking || this.#closed) return false;
    this.#checking = false;
    this.#timeout.cancel();
    return true;
  }

  #fail(
    type: "ACTIVE" | "PASSIVE" | "NETWORK" | "NETWORK_TIMEOUT",
    retriable: boolean,
    status: number,
  ): Transition {
    const { config, events, failure, healthy, networkFailure, passiveFailure } = this.#shared;
    const host = this.#host;
    const network = type === "NETWORK" || type === "NETWORK_TIMEOUT";
    this.#healthyInRow = 0;
    let transition: Transition = "unchanged";
    if ((host.flags & FLAG.FAILED_ACTIVE_HC) === 0) {
      if ((!network && !retriable) || ++this.#unhealthyInRow === config.unhealthy_threshold) {
        host.flags |= FLAG.FAILED_ACTIVE_HC;
        healthy.dec();
        transition = "changed";
        events.write(host.spec, {
          eject_unhealthy_event: { failure_type: type, http_status_code: status },
        });
      } else transition = "pending";
    }
    if (type === "NETWORK_TIMEOUT" && (host.flags & FLAG.FAILED_ACTIVE_HC) !== 0)
      host.flags |= FLAG.ACTIVE_HC_TIMEOUT;
    else host.flags &= ~FLAG.ACTIVE_HC_TIMEOUT;
    transition = this.#endPending(transition);
    if (this.#first || config.always_log_health_check_failures) {
      events.write(host.spec, {
        health_check_failure_event: {
          failure_type: type,
          first_check: this.#first,
          http_status_code: status,
        },
      });
    }
    failure.inc();
    if (network) networkFailure.inc();
    else if (type === "PASSIVE") passiveFailure.inc();
    this.#first = false;
    return transition;
  }

  #endPending(transition: Transition): Transition {
    const host = this.#host;
    if ((host.flags & FLAG.PENDING_ACTIVE_HC) === 0) return transition;
    host.flags &= ~FLAG.PENDING_ACTIVE_HC;
    return "changed";
  }

  #setDegraded(degraded: boolean): void {
    const { events, degraded: gauge } = this.#shared;
    const host = this.#host;
    if (degraded) {
      host.flags |= FLAG.DEGRADED_ACTIVE_HC;
      gauge.inc();
      events.write(host.spec, { degraded_healthy_host: {} });
    } else {
      // As in Envoy, the gauge goes down only when a check of a degraded host ends.
      host.flags &= ~FLAG.DEGRADED_ACTIVE_HC;
      events.write(host.spec, { no_longer_degraded_host: {} });
    }
  }
}
