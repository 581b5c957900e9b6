import type { ClusterUse, Priority, SetupContext, SharedCount } from "@tsproxy/sdk";
import { CircuitBreaker, Limit, type UsedLimits } from "./circuit-breaker.ts";
import type { ClusterConfig } from "./config.ts";
import type { UpstreamHost } from "./host.ts";
import type { Pool } from "./pool.ts";
import { Starvation } from "./starvation.ts";

/** The circuit breakers of one cluster, those of its hosts, and the pools that wait for room under them. */
export class ClusterLimits {
  readonly #config: ClusterConfig;
  readonly #cx: SetupContext;
  readonly #used: UsedLimits;
  readonly #starvation: Starvation;
  /** Created on first use, as in large configs most clusters have no traffic. */
  #breaker: CircuitBreaker | undefined = undefined;
  #highBreaker: CircuitBreaker | undefined = undefined;

  /** `pools`: the cluster's pools on this worker. */
  constructor(
    config: ClusterConfig,
    cx: SetupContext,
    used: UsedLimits,
    pools: () => readonly Pool[],
  ) {
    this.#config = config;
    this.#cx = cx;
    this.#used = used;
    this.#starvation = new Starvation(config.name, cx, pools);
    const isLimited = config.circuit_breakers?.thresholds.some(
      (entry) => entry.max_connections !== undefined,
    );
    // Only workers have pools.
    if (isLimited && cx.role === "worker") this.#starvation.listen();
  }

  breaker(priority: Priority): CircuitBreaker {
    if (priority === "default") return (this.#breaker ??= this.#begin(priority));
    return (this.#highBreaker ??= this.#begin(priority));
  }

  #begin(priority: Priority): CircuitBreaker {
    return new CircuitBreaker(this.#config, priority, this.#cx, this.#used).begin();
  }

  /** The connection limit for a host in `per_host_thresholds`; undefined if there is none. */
  ofHost(host: UpstreamHost, priority: Priority): Limit | undefined {
    const name = priority === "high" ? "HIGH" : "DEFAULT";
    const most = this.#config.circuit_breakers?.per_host_thresholds.find(
      (entry) => entry.priority === name,
    )?.max_connections;
    if (most === undefined) return undefined;
    return new Limit(this.#cx.sharedCount(`${this.#nameOf(host, priority)}|limit`), {
      value: most,
    });
  }

  /** Number of connections to a host, over all workers; undefined if the config does not set `max_connections`. */
  connectionsTo(host: UpstreamHost, priority: Priority): SharedCount | undefined {
    if (!this.breaker(priority).exact) return undefined;
    return this.#cx.sharedCount(this.#nameOf(host, priority));
  }

  #nameOf(host: UpstreamHost, priority: Priority): string {
    return `host_connections|${this.#config.name}|${priority}|${host.key}`;
  }

  /** Gives the counts back. */
  dispose(): void {
    this.#breaker?.dispose();
    this.#highBreaker?.dispose();
  }

  /** Connections and requests over all workers, both priorities together. */
  get inUse(): ClusterUse {
    const breakers = [this.breaker("default"), this.#highBreaker].filter(
      (found) => found !== undefined,
    );
    const sum = (of: (breaker: CircuitBreaker) => Limit) =>
      breakers.reduce((total, breaker) => total + of(breaker).count.value, 0);
    return {
      connections: sum(({ connections }) => connections),
      requests: sum(({ requests }) => requests),
      pendingRequests: sum(({ pending }) => pending),
    };
  }

  /** Called when a pool begins (true) or ceases (false) to need a connection that it must not open. */
  onStarving(pool: Pool, starving: boolean): void {
    this.#starvation.note(pool, starving);
  }

  /** Called when a connection has closed, so that a starving pool may open one. */
  onRoom(): void {
    this.#starvation.onRoom();
  }
}
