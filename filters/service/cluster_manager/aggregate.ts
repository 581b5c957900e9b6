// Hot path: `choose` runs for every request of an aggregate cluster.
import type { BalancerContext, Host, ProvidedBalancer } from "@tsproxy/sdk";
import { type LevelHealth, type LevelLoads, levelLoads, loadsWithout } from "./priority-loads.ts";
import type { UpstreamCluster } from "./upstream-cluster.ts";

const OVERPROVISIONING_FACTOR = 140;

/** One priority level of one of the clusters. */
interface Level {
  readonly cluster: UpstreamCluster;
  /** The level within its cluster, for healthy and for degraded hosts. */
  readonly healthy: NonNullable<BalancerContext["level"]>;
  readonly degraded: NonNullable<BalancerContext["level"]>;
}

/** Balancer of an aggregate cluster: uses the priority levels of its clusters, in their order, as levels of one cluster. */
export class Aggregate implements ProvidedBalancer {
  readonly #names: readonly string[];
  readonly #clusterOf: (name: string) => UpstreamCluster | undefined;
  readonly #panicThreshold: () => number;
  #seen = -1;
  #levels: readonly Level[] = [];
  #loads: LevelLoads | undefined = undefined;

  constructor(
    names: readonly string[],
    clusterOf: (name: string) => UpstreamCluster | undefined,
    panicThreshold: () => number,
  ) {
    this.#names = names;
    this.#clusterOf = clusterOf;
    this.#panicThreshold = panicThreshold;
  }

  get choosesByStream(): boolean {
    return this.#names.some((name) => this.#clusterOf(name)?.choosesByStream === true);
  }

  choose(context: BalancerContext): Host | undefined {
    this.#refresh();
    const all = this.#loads;
    if (all === undefined) return undefined;
    const { excludedPriorities: excluded } = context;
    const loads = excluded === undefined ? all : loadsWithout(all, excluded);
    let ticket = Math.floor(Math.random() * 100);
    for (const which of ["healthy", "degraded"] as const) {
      for (let k = 0; k < loads[which].length; k++) {
        ticket -= loads[which][k]!;
        if (ticket >= 0) continue;
        const { cluster, [which]: level } = this.#levels[k]!;
        return cluster.hostFor(new AtLevel(context, level));
      }
    }
    return undefined;
  }

  /** The host's priority level, numbered over all clusters; its own priority if it belongs to none of them. */
  priorityOf(host: Host): number {
    const own = host.priority ?? 0;
    const level = this.#levels.findIndex(
      ({ cluster, healthy }) =>
        healthy.priority === own && cluster.hosts.some((other) => other === host),
    );
    return level < 0 ? own : level;
  }

  /** Computes the loads again if hosts of any of the clusters, or their health, have changed. */
  #refresh(): void {
    let changes = 0;
    for (const name of this.#names) changes += (this.#clusterOf(name)?.changes ?? 0) + 1;
    if (changes === this.#seen) return;
    this.#seen = changes;
    const levels: Level[] = [];
    const healths: LevelHealth[] = [];
    for (const name of this.#names) {
      const cluster = this.#clusterOf(name);
      for (const [priority, health] of (cluster?.levels() ?? []).entries()) {
        healths.push(health);
        levels.push({
          cluster: cluster!,
          healthy: { priority, degraded: false },
          degraded: { priority, degraded: true },
        });
      }
    }
    this.#levels = levels;
    this.#loads =
      levels.length === 0
        ? undefined
        : levelLoads(healths, {
            panicThreshold: this.#panicThreshold(),
            overprovisioningFactor: OVERPROVISIONING_FACTOR,
          });
  }
}

/** The context of a request, limited to one level. */
class AtLevel implements BalancerContext {
  readonly metadataMatch: BalancerContext["metadataMatch"];
  readonly priority: BalancerContext["priority"];
  readonly hostSelectionRetries: BalancerContext["hostSelectionRetries"];
  readonly stream: BalancerContext["stream"];
  readonly downstream: BalancerContext["downstream"];
  readonly level: BalancerContext["level"];
  readonly #context: BalancerContext;

  constructor(context: BalancerContext, level: BalancerContext["level"]) {
    this.#context = context;
    this.metadataMatch = context.metadataMatch;
    this.priority = context.priority;
    this.hostSelectionRetries = context.hostSelectionRetries;
    this.stream = context.stream;
    this.downstream = context.downstream;
    this.level = level;
  }

  /** Computed only on demand, as that may give the client a cookie. */
  get hash(): BalancerContext["hash"] {
    return this.#context.hash;
  }

  giveCookie(cookie: string): void {
    this.#context.giveCookie?.(cookie);
  }

  rejects(host: Host): boolean {
    return this.#context.rejects?.(host) ?? false;
  }
}
