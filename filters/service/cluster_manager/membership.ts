import {
  type ClusterManagerStatus,
  type ClusterStatus,
  type Counter,
  formatAddress,
  type Gauge,
  type HostSpec,
  type HostStatus,
  type HostWeights,
  type SetupContext,
  type Stats,
  WEIGHTS_TOPIC,
} from "@tsproxy/sdk";
import { BreakerDisplay, thresholdsOf, type UsedLimits } from "./circuit-breaker.ts";
import type { ClusterHealth } from "./cluster-health.ts";
import { type ClusterConfig, type Config, policyOf } from "./config.ts";
import { type Estate, fingerprintOf } from "./handover.ts";
import { excludedBy, flagsText, healthBy } from "./health-flags.ts";
import { addressOf, isCanary } from "./host.ts";
import type { Made } from "./made-clusters.ts";

interface Hosts {
  /** Hosts by id. */
  readonly specs: ReadonlyMap<string, HostSpec>;
  /** Undefined without checks and outlier detection. */
  readonly health: ClusterHealth | undefined;
  /** In how many updates Envoy would set these hosts (`changes` of `ClusterType.discover`). */
  readonly changes: number;
}

const NO_MEMBERS: ReadonlyMap<string, number> = new Map();

interface Cells {
  readonly total: Gauge;
  readonly healthy: Gauge;
  readonly degraded: Gauge;
  readonly excluded: Gauge;
  readonly change: Counter;
  readonly warming: Gauge;
}

/**
 * Tracks the hosts of all clusters, for stats and admin. Only on the control thread: values of gauges are added over threads,
 * and each host must count once.
 */
export class Membership {
  /** Priority of each host by id, for each cluster. */
  readonly members = new Map<string, ReadonlyMap<string, number>>();
  readonly #stats: Stats;
  readonly #updated: Counter;
  #previous: Estate | undefined;
  readonly #configs = new Map<string, ClusterConfig>();
  readonly #cells = new Map<string, Cells>();
  readonly #hosts = new Map<string, Hosts>();
  /** What hosts weigh by their own reports, by key. */
  readonly #weights = new Map<string, Map<string, number>>();
  readonly #breakers: BreakerDisplay;
  readonly #made = new Map<string, Made>();
  /** Made clusters that are not ready. */
  readonly #warming = new Set<string>();
  #active = false;

  /** `contextOf`: of a cluster of the config. */
  constructor(
    cx: SetupContext,
    contextOf: (cluster: string) => SetupContext,
    used: UsedLimits,
    config: Config,
    previous: Estate | undefined,
  ) {
    this.#stats = cx.stats.scope("cluster_manager.");
    this.#updated = this.#stats.counter("cluster_updated");
    for (const name of ["cluster_modified", "cluster_removed"]) this.#stats.counter(name);
    this.#previous = previous;
    this.#breakers = new BreakerDisplay(cx, used);
    for (const cluster of config) {
      const own = contextOf(cluster.name);
      this.#add(cluster, own);
      this.#breakers.add(cluster, own);
    }
    cx.subscribe(WEIGHTS_TOPIC, (value) => this.#weigh(value as HostWeights));
  }

  #add(cluster: ClusterConfig, cx: SetupContext): void {
    this.#configs.set(cluster.name, cluster);
    const stats = cx.stats.scope(`cluster.${cluster.alt_stat_name || cluster.name}.`);
    this.#cells.set(cluster.name, {
      total: stats.gauge("membership_total"),
      healthy: stats.gauge("membership_healthy"),
      degraded: stats.gauge("membership_degraded"),
      excluded: stats.gauge("membership_excluded"),
      change: stats.counter("membership_change"),
      warming: stats.gauge("warming_state"),
    });
    const members = this.#previous?.members.get(cluster.name);
    if (members !== undefined) this.members.set(cluster.name, members);
  }

  /** Adds a cluster that is made while others serve. `cx`: its own. */
  add(cluster: ClusterConfig, made: Made, cx: SetupContext): void {
    this.#add(cluster, cx);
    this.#made.set(cluster.name, made);
    this.#warming.add(cluster.name);
    this.#breakers.add(cluster, cx);
  }

  onAdded(cluster: string): void {
    if (!this.#active) return;
    this.#stats.counter("cluster_added").inc();
    this.#countClusters(cluster);
  }

  /** The first hosts of a made cluster are known, and checked. */
  onWarm(cluster: string): void {
    if (this.#warming.delete(cluster) && this.#active) this.#countClusters(cluster);
  }

  remove(cluster: string): void {
    if (!this.forget(cluster) || !this.#active) return;
    this.#stats.counter("cluster_removed").inc();
    this.#countClusters();
  }

  /** A made cluster is gone, or was refused. False: there was none. */
  forget(cluster: string): boolean {
    if (!this.#made.delete(cluster)) return false;
    this.#warming.delete(cluster);
    for (const map of [this.#configs, this.#cells, this.#hosts, this.#weights, this.members])
      map.delete(cluster);
    this.#breakers.remove(cluster);
    return true;
  }

  #countClusters(changed?: string): void {
    this.#stats.gauge("active_clusters").set(this.#configs.size - this.#warming.size);
    this.#stats.gauge("warming_clusters").set(this.#warming.size);
    if (changed !== undefined)
      this.#cells.get(changed)?.warming.set(this.#warming.has(changed) ? 1 : 0);
  }

  #weigh({ cluster, weights }: HostWeights): void {
    const hosts = this.#hosts.get(cluster);
    if (hosts === undefined) return;
    const known = this.#weights.get(cluster) ?? new Map<string, number>();
    this.#weights.set(cluster, known);
    for (const [key, weight] of weights) known.set(key, weight);
    if (known.size <= hosts.specs.size) return;
    const present = new Set(
      [...hosts.specs.values()].map((spec) => formatAddress(addressOf(spec))),
    );
    for (const key of known.keys()) if (!present.has(key)) known.delete(key);
  }

  update(
    cluster: string,
    specs: ReadonlyMap<string, HostSpec>,
    health: ClusterHealth | undefined,
    changes = 1,
  ): void {
    const uncounted = this.#active ? 1 : (this.#hosts.get(cluster)?.changes ?? 1);
    const hosts = { specs, health, changes: Math.max(changes, uncounted) };
    this.#hosts.set(cluster, hosts);
    if (this.#active) this.#count(cluster, hosts);
  }

  /** Called when this generation takes over service. */
  begin(): void {
    this.#active = true;
    const before = this.#previous?.fingerprints ?? new Map<string, string>();
    this.#previous = undefined;
    let added = 0;
    let modified = 0;
    for (const [name, config] of this.#configs) {
      const old = before.get(name);
      if (old === undefined) added++;
      else if (old !== fingerprintOf(config)) modified++;
    }
    const removed = [...before.keys()].filter((name) => !this.#configs.has(name)).length;
    this.#stats.counter("cluster_added").add(added);
    // A counter that something was added to counts as used, even if that was 0.
    if (modified > 0) this.#stats.counter("cluster_modified").add(modified);
    if (removed > 0) this.#stats.counter("cluster_removed").add(removed);
    this.#countClusters();
    for (const [name, { warming }] of this.#cells) warming.set(this.#warming.has(name) ? 1 : 0);
    for (const [cluster, hosts] of this.#hosts) this.#count(cluster, hosts);
    this.#breakers.begin();
  }

  /** This generation was prepared and never served. */
  dispose(): void {
    this.#breakers.dispose();
  }

  /** Called when another generation takes over; clears the gauges, as it may not have all these clusters. */
  end(): void {
    this.#active = false;
    this.#breakers.end();
    this.#stats.gauge("active_clusters").set(0);
    this.#stats.gauge("warming_clusters").set(0);
    for (const cells of this.#cells.values()) {
      cells.total.set(0);
      cells.healthy.set(0);
      cells.degraded.set(0);
      cells.excluded.set(0);
    }
  }

  #count(cluster: string, { specs, health, changes }: Hosts): void {
    const cells = this.#cells.get(cluster);
    if (cells === undefined) return;
    const flags = health?.flags();
    const counts = { healthy: 0, degraded: 0, unhealthy: 0 };
    let excluded = 0;
    for (const [id, spec] of specs) {
      const bits = flags?.get(id) ?? 0;
      counts[healthBy(spec, bits)]++;
      if (excludedBy(spec, bits)) excluded++;
    }
    cells.total.set(specs.size);
    cells.healthy.set(counts.healthy);
    cells.degraded.set(counts.degraded);
    cells.excluded.set(excluded);
    const before = this.members.get(cluster);
    const now = new Map([...specs].map(([id, spec]) => [id, spec.priority]));
    const changed = changedPriorities(before ?? NO_MEMBERS, now).size;
    const counted = changed === 0 ? 0 : Math.max(changed, changes);
    cells.change.add(counted);
    // As in Envoy, a cluster's first hosts are no update. The health desk counts those of clusters with health.
    const updates = health !== undefined ? 0 : before === undefined ? changes - 1 : counted;
    if (updates > 0) this.#updated.add(updates);
    this.members.set(cluster, now);
  }

  #madeStatus(name: string): Pick<ClusterStatus, "made"> {
    const made = this.#made.get(name);
    if (made === undefined) return {};
    const { parent, fields, at } = made;
    return { made: { parent, fields, at, warming: this.#warming.has(name) } };
  }

  /** Made when admin asks: it is long, and seldom read. */
  status(): ClusterManagerStatus {
    const clusters: ClusterStatus[] = [];
    for (const [name, config] of this.#configs) {
      clusters.push({
        name,
        observabilityName: config.alt_stat_name || name,
        addedViaApi: this.#made.has(name),
        ...this.#madeStatus(name),
        ...(config.track_cluster_stats?.per_endpoint_stats === true && { perEndpointStats: true }),
        policy: policyOf(config),
        thresholds: [thresholdsOf(config, "default"), thresholdsOf(config, "high")],
        ...outlierOf(this.#hosts.get(name)?.health),
        hosts: statusesOf(this.#hosts.get(name), this.#weights.get(name)),
      });
    }
    return { clusters };
  }
}

function outlierOf(health: ClusterHealth | undefined): Pick<ClusterStatus, "outlier"> {
  const rates = health?.rates();
  if (rates === undefined) return {};
  return {
    outlier: {
      successRateAverage: rates.external.average,
      successRateEjectionThreshold: rates.external.threshold,
      localOriginSuccessRateAverage: rates.local.average,
      localOriginSuccessRateEjectionThreshold: rates.local.threshold,
    },
  };
}

/** Priority levels in which hosts were added or removed; Envoy counts a change for each level. */
function changedPriorities(
  before: ReadonlyMap<string, number>,
  now: ReadonlyMap<string, number>,
): ReadonlySet<number> {
  const changed = new Set<number>();
  for (const [id, priority] of now) if (before.get(id) !== priority) changed.add(priority);
  for (const [id, priority] of before) if (now.get(id) !== priority) changed.add(priority);
  return changed;
}

function statusesOf(
  hosts: Hosts | undefined,
  weights: ReadonlyMap<string, number> | undefined,
): HostStatus[] {
  if (hosts === undefined) return [];
  const { specs, health } = hosts;
  const flags = health?.flags();
  // As in Envoy, level by level.
  const ordered = [...specs].sort(([, a], [, b]) => a.priority - b.priority);
  return ordered.map(([id, spec]) => {
    const rates = health?.successRates(id);
    const key = formatAddress(addressOf(spec));
    return {
      ...spec,
      key,
      weight: weights?.get(key) ?? spec.weight,
      ...(spec.id !== undefined && { cells: spec.id }),
      healthFlags: flagsText(spec, flags?.get(id) ?? 0),
      canary: isCanary(spec.metadata),
      ...(rates !== undefined && {
        successRate: rates.external,
        localOriginSuccessRate: rates.local,
      }),
    };
  });
}
