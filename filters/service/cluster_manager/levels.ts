// Hot path: a host is chosen for every request.
import type {
  Balancer,
  BalancerContext,
  Host,
  HostSet,
  LevelPolicy,
  LocalityPolicy,
  Runtime,
  SpreadOptions,
} from "@tsproxy/sdk";
import { RuntimeInteger } from "@tsproxy/sdk";
import type { Balancing } from "./balancing.ts";
import type { UpstreamHost } from "./host.ts";
import {
  type LocalCluster,
  type Locality,
  type LocalityChoice,
  localitiesOf,
  NOWHERE,
  weightedLocalities,
  type ZoneAwarePolicy,
  ZoneStats,
  zoneAwareLocalities,
} from "./localities.ts";
import {
  type LevelHealth,
  type LevelLoads,
  levelLoads,
  loadsWithout,
  panicThreshold,
} from "./priority-loads.ts";

/** Passed instead of an attempt number: the choice is made ahead of a request. */
const AHEAD = -1;

/** The hosts of one priority level. */
interface Level {
  readonly all: UpstreamHost[];
  readonly healthy: UpstreamHost[];
  readonly degraded: UpstreamHost[];
  excluded: number;
  localities: Locality[];
}

/** The balancers of one priority level. */
interface Sources {
  readonly panic: boolean;
  readonly all: Source;
  readonly healthy: Source;
  readonly degraded: Source;
  /** By index of the locality; empty if localities do not count in this level. */
  readonly healthyIn: readonly Source[];
  readonly degradedIn: readonly Source[];
  readonly healthyLocality: LocalityChoice | undefined;
  readonly degradedLocality: LocalityChoice | undefined;
}

/** Spreads requests over priority levels by their health, and over localities, then asks the policy for a host. */
export class Levels implements Balancer {
  readonly #balancing: Balancing;
  readonly #policy: LevelPolicy;
  readonly #localities: LocalityPolicy | undefined;
  readonly #loads: LevelLoads;
  readonly #levels: readonly Sources[];
  readonly #hashing: boolean;
  readonly #failOnPanic: boolean;
  /** Percentage of requests with zone-aware routing; undefined: none. */
  readonly #zonePercent: RuntimeInteger | undefined;
  /** Number of healthy hosts in all levels. */
  readonly #healthy: number;
  /** Hosts chosen ahead, in the order in which requests get them. */
  readonly #ahead: Host[] = [];
  /** The only source of a cluster with one level, no panic and no localities; undefined otherwise. */
  readonly #only: Source | undefined;

  constructor(
    balancing: Balancing,
    key: string,
    policy: LevelPolicy,
    hosts: readonly UpstreamHost[],
    options: SpreadOptions,
  ) {
    this.#balancing = balancing;
    this.#policy = policy;
    this.#localities = options.localities ?? policy.localities;
    this.#hashing = policy.hashing === true;
    const zones = this.#localities?.type === "zone_aware" ? this.#localities : undefined;
    this.#failOnPanic = zones?.failTrafficOnPanic ?? false;
    if (balancing.local() !== undefined && zones !== undefined) {
      const zone = {
        default_value: zones.routingEnabled,
        runtime_key: "upstream.zone_routing.enabled",
      };
      this.#zonePercent = new RuntimeInteger(zone, balancing.runtime);
    }
    const levels = levelsOf(hosts, balancing.ownLocality);
    this.#healthy = levels.reduce((sum, level) => sum + level.healthy.length, 0);
    if (options.localityWeights === "scaled") scaleWeights(levels, balancing.allHosts());
    const { weightedPriorityHealth } = balancing.options;
    this.#loads = levelLoads(
      levels.map((level) => healthOfLevel(level, weightedPriorityHealth)),
      {
        ...balancing.options,
        panicThreshold: panicThreshold(balancing.runtime, balancing.options.panicThreshold),
      },
    );
    this.#levels = levels.map((level, k) =>
      this.#sources(`${key}${k}`, k, level, this.#loads.panic[k]!, options),
    );
    this.#only = this.#simple();
    // The control thread has no requests but reports stats of what policies build, so it builds at once.
    if (this.#hashing && balancing.eager)
      for (const sources of this.#levels) void (sources.panic ? sources.all : sources.healthy).made;
  }

  choose(context: BalancerContext): Host | undefined {
    const asked = this.#policy.hash === undefined ? context : this.#hashed(context);
    let host = this.#ahead.length > 0 ? this.#nextOf(asked) : this.#chooseOnce(asked, 0);
    const retries = context.hostSelectionRetries ?? 0;
    for (let k = 1; k <= retries && host !== undefined && context.rejects?.(host); k++)
      host = this.#chooseOnce(asked, k);
    return host;
  }

  /** Chooses a host ahead of a request; as in Envoy, at most as many as there are healthy hosts. */
  peek(context: BalancerContext): Host | undefined {
    if (this.#hashing || this.#ahead.length >= this.#healthy) return undefined;
    const host = this.#chooseOnce(context, AHEAD);
    if (host !== undefined) this.#ahead.push(host);
    return host;
  }

  /** A host chosen ahead if the request may use any level, else a new choice. */
  #nextOf(context: BalancerContext): Host | undefined {
    const anyLevel = context.excludedPriorities === undefined && context.level === undefined;
    return anyLevel ? this.#ahead.shift() : this.#chooseOnce(context, 0);
  }

  /** The context for a policy that computes its own hash, with that hash. */
  #hashed(context: BalancerContext): BalancerContext {
    const { level, stream } = context;
    return { hash: this.#policy.hash?.(context), level, stream };
  }

  dispose(): void {
    for (const { all, healthy, degraded, healthyIn, degradedIn } of this.#levels)
      for (const source of [all, healthy, degraded, ...healthyIn, ...degradedIn]) source.dispose();
  }

  /** Chooses a priority level by the loads, then a host of it. `attempt`: counts host selection retries, or AHEAD. */
  #chooseOnce(context: BalancerContext, attempt: number): Host | undefined {
    if (this.#only !== undefined) return this.#only.choose(context, attempt);
    const { excludedPriorities, level: given } = context;
    if (given !== undefined) {
      const level = this.#levels[given.priority];
      return level && this.#chooseFrom(level, given.degraded, context, attempt);
    }
    const loads =
      excludedPriorities === undefined || this.#hashing
        ? this.#loads
        : loadsWithout(this.#loads, excludedPriorities);
    let ticket = this.#ticket(context);
    let level = 0;
    let degraded = false;
    for (; level < loads.healthy.length; level++) {
      ticket -= loads.healthy[level]!;
      if (ticket < 0) break;
    }
    if (ticket >= 0) {
      degraded = true;
      for (level = 0; level < loads.degraded.length - 1; level++) {
        ticket -= loads.degraded[level]!;
        if (ticket < 0) break;
      }
    }
    return this.#chooseFrom(this.#levels[level]!, degraded, context, attempt);
  }

  /** 0 to 99, from the hash if the policy uses one, else random. */
  #ticket(context: BalancerContext): number {
    const { hash } = context;
    if (!this.#hashing || hash === undefined) return Math.floor(Math.random() * 100);
    return Number(hash % 100n);
  }

  #chooseFrom(
    level: Sources,
    degraded: boolean,
    context: BalancerContext,
    attempt: number,
  ): Host | undefined {
    if (level.panic) {
      this.#balancing.panics.inc();
      return this.#failOnPanic ? undefined : level.all.choose(context, attempt);
    }
    // Hash-based policies choose among healthy hosts even if the load was meant for degraded ones.
    if (this.#hashing) return level.healthy.choose(context, attempt);
    const choice = degraded ? level.degradedLocality : level.healthyLocality;
    const whole = degraded ? level.degraded : level.healthy;
    if (choice === undefined) return whole.choose(context, attempt);
    if (this.#zonePercent !== undefined) {
      const percent = this.#zonePercent.value;
      if (percent < 100 && Math.random() * 100 >= percent) return whole.choose(context, attempt);
      if (this.#balancing.local()?.inPanic === true) {
        this.#balancing.stats.counter("lb_local_cluster_not_ok").inc();
        return this.#failOnPanic ? undefined : whole.choose(context, attempt);
      }
    }
    const sources = degraded ? level.degradedIn : level.healthyIn;
    return sources[choice.choose()]?.choose(context, attempt);
  }

  /** Computes `#only`. */
  #simple(): Source | undefined {
    const level = this.#levels[0]!;
    const plain =
      this.#levels.length === 1 &&
      !level.panic &&
      level.healthyLocality === undefined &&
      this.#loads.healthy[0] === 100;
    return plain ? level.healthy : undefined;
  }

  #sources(
    key: string,
    priority: number,
    level: Level,
    panic: boolean,
    options: SpreadOptions,
  ): Sources {
    const policy = this.#policy;
    const weighted = this.#localities?.type === "weighted" && options.localityWeights !== "none";
    const source = (name: string, which: "all" | "healthy" | "degraded"): Source =>
      this.#hashing && weighted
        ? new Source(policy, `${key}|${name}`, ...inLocalities(level.localities, which))
        : new Source(policy, `${key}|${name}`, level[which], undefined);
    const sources = {
      panic,
      all: source("all", "all"),
      healthy: source("healthy", "healthy"),
      degraded: source("degraded", "degraded"),
    };
    const [healthyLocality, degradedLocality] = this.#hashing
      ? []
      : this.#localityChoices(priority, level, weighted);
    const inside = (which: "healthy" | "degraded", choice: LocalityChoice | undefined): Source[] =>
      choice === undefined
        ? []
        : level.localities.map(
            (locality, k) => new Source(policy, `${key}|${which}|${k}`, locality[which], undefined),
          );
    return {
      ...sources,
      healthyLocality,
      degradedLocality,
      healthyIn: inside("healthy", healthyLocality),
      degradedIn: inside("degraded", degradedLocality),
    };
  }

  /** How localities are chosen in a level, for healthy and for degraded hosts; undefined: localities do not count. */
  #localityChoices(
    priority: number,
    level: Level,
    weighted: boolean,
  ): readonly [LocalityChoice?, LocalityChoice?] {
    const { localities } = level;
    const { overprovisioningFactor } = this.#balancing.options;
    if (weighted) {
      const healthy = weightedLocalities(localities, "healthy", overprovisioningFactor);
      const degraded = weightedLocalities(localities, "degraded", overprovisioningFactor);
      return [healthy, degraded] as readonly [LocalityChoice?, LocalityChoice?];
    }
    const local = this.#balancing.local();
    const policy = this.#localities;
    // Zone-aware routing applies only to the first level.
    if (local === undefined || policy?.type !== "zone_aware" || priority > 0) return [];
    const hasOwn = localities[0]?.key === this.#balancing.ownLocality;
    const zoneStats = new ZoneStats(this.#balancing.stats);
    const zones = zonesBy(this.#balancing.runtime, policy);
    const choice = zoneAwareLocalities(localities, hasOwn, local, zones, zoneStats);
    return choice === undefined ? [] : [choice, choice];
  }
}

/** Applies runtime overrides to the zone-aware policy. */
function zonesBy(runtime: Runtime, policy: ZoneAwarePolicy): ZoneAwarePolicy {
  const { minClusterSize } = policy;
  const forced = runtime.integer("upstream.zone_routing.force_local_zone.min_size", 0);
  return {
    ...policy,
    minClusterSize: runtime.integer("upstream.zone_routing.min_cluster_size", minClusterSize),
    ...(forced > 0 && { forceLocalZoneMinSize: forced }),
  };
}

/** A set of hosts with its balancer, which is created on first use. */
class Source implements HostSet {
  readonly key: string;
  readonly hosts: readonly UpstreamHost[];
  readonly #policy: LevelPolicy;
  #shares: readonly number[] | undefined;
  #balancer: Balancer | undefined = undefined;

  constructor(
    policy: LevelPolicy,
    key: string,
    hosts: readonly UpstreamHost[],
    shares: readonly number[] | undefined,
  ) {
    this.#policy = policy;
    this.key = key;
    this.hosts = hosts;
    this.#shares = shares;
  }

  get shares(): readonly number[] {
    this.#shares ??= sharesOf(this.hosts, 1);
    return this.#shares;
  }

  get made(): Balancer {
    this.#balancer ??= this.#policy.create(this);
    return this.#balancer;
  }

  choose(context: BalancerContext, attempt: number): Host | undefined {
    return attempt === AHEAD ? this.made.peek?.(context) : this.made.choose(context, attempt);
  }

  dispose(): void {
    this.#balancer?.dispose?.();
  }
}

/** Each host's share of `whole`, by weight. */
function sharesOf(hosts: readonly UpstreamHost[], whole: number): number[] {
  let sum = 0;
  for (const host of hosts) sum += host.weight;
  return hosts.map((host) => (host.weight * whole) / sum);
}

/** The hosts of all localities that have a weight, and their shares in the level. */
function inLocalities(
  localities: readonly Locality[],
  which: "all" | "healthy" | "degraded",
): [UpstreamHost[], number[]] {
  const sum = localities.reduce((total, locality) => total + locality.weight, 0);
  const hosts: UpstreamHost[] = [];
  const shares: number[] = [];
  for (const locality of localities) {
    if (locality.weight === 0) continue;
    hosts.push(...locality[which]);
    shares.push(...sharesOf(locality[which], locality.weight / sum));
  }
  return [hosts, shares];
}

/** Groups hosts by priority level; the first level always exists, perhaps empty. */
function levelsOf(hosts: readonly UpstreamHost[], ownLocality: string): Level[] {
  const levels: Level[] = [];
  const upTo = (priority: number): void => {
    while (levels.length <= priority)
      levels.push({ all: [], healthy: [], degraded: [], excluded: 0, localities: [] });
  };
  upTo(0);
  for (const host of hosts) {
    upTo(host.spec.priority);
    const level = levels[host.spec.priority]!;
    level.all.push(host);
    if (host.excluded) level.excluded++;
    if (host.health !== "unhealthy") level[host.health].push(host);
  }
  for (const level of levels) level.localities = localitiesOf(level.all, ownLocality);
  return levels;
}

/** Scales each locality's weight by the part of its hosts that is in this subset. */
function scaleWeights(levels: readonly Level[], all: readonly UpstreamHost[]): void {
  const counts = new Map<string, number>();
  const keyOf = (priority: number, locality: string): string => `${priority}|${locality}`;
  for (const host of all) {
    const key = keyOf(host.spec.priority, host.localityKey);
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  for (const [priority, level] of levels.entries()) {
    for (const locality of level.localities) {
      const whole = counts.get(keyOf(priority, locality.key)) ?? locality.all.length;
      locality.weight = Math.round((locality.weight * locality.all.length) / whole);
    }
  }
}

function healthOfLevel(level: Level, weighted: boolean): LevelHealth {
  const health = {
    total: level.all.length - level.excluded,
    healthy: level.healthy.length,
    degraded: level.degraded.length,
    hosts: level.all.length,
  };
  if (!weighted) return health;
  const weightOf = (hosts: readonly UpstreamHost[]): number =>
    hosts.reduce((sum, host) => sum + host.weight, 0);
  const weights = {
    total: weightOf(level.all.filter((host) => !host.excluded)),
    healthy: weightOf(level.healthy),
    degraded: weightOf(level.degraded),
  };
  return { ...health, weights };
}

/** Health of a cluster's levels, for an aggregate cluster that contains it. */
export function levelHealths(
  hosts: readonly UpstreamHost[],
  options: { readonly overprovisioningFactor: number; readonly weightedPriorityHealth: boolean },
): LevelHealth[] {
  const { overprovisioningFactor } = options;
  return levelsOf(hosts, NOWHERE).map((level) => ({
    ...healthOfLevel(level, options.weightedPriorityHealth),
    overprovisioningFactor,
  }));
}

/** The local cluster in the form that zone-aware routing needs. */
export function localClusterOf(
  hosts: readonly UpstreamHost[],
  ownLocality: string,
  inPanic: boolean,
): LocalCluster {
  const first = hosts.filter((host) => host.spec.priority === 0);
  const localities = localitiesOf(first, ownLocality);
  const hasOwn = localities[0]?.key === ownLocality && ownLocality !== NOWHERE;
  return { localities, hasOwn, inPanic };
}
