import type { Runtime } from "@tsproxy/sdk";

/** Runtime has the last word on `healthy_panic_threshold`, whenever loads are computed. */
export function panicThreshold(runtime: Pick<Runtime, "integer">, configured: number): number {
  return Math.min(100, runtime.integer("upstream.healthy_panic_threshold", configured));
}

/** What the loads of a priority level are computed from. */
export interface LevelHealth {
  /** Numbers of hosts; `total` without those that are excluded. */
  readonly total: number;
  readonly healthy: number;
  readonly degraded: number;
  /** Hosts of the level, excluded ones too. */
  readonly hosts: number;
  /** In the place of that of the options. */
  readonly overprovisioningFactor?: number;
  /** The same as the first three in weights, where the cluster says `weighted_priority_health`. */
  readonly weights?: {
    readonly total: number;
    readonly healthy: number;
    readonly degraded: number;
  };
}

export interface LoadOptions {
  /** Percent of a level's hosts; below it health is not trusted. 0: it always is. */
  readonly panicThreshold: number;
  /** Percent; 140 lets a level lose 28 % of its hosts before others get a share of its load. */
  readonly overprovisioningFactor: number;
}

/** Percents of the requests, by level. They add up to 100 unless there is nobody to choose. */
export interface PriorityLoads {
  readonly healthy: readonly number[];
  readonly degraded: readonly number[];
}

export interface LevelLoads extends PriorityLoads {
  /** How much of the load each level could take, in percents. */
  readonly available: PriorityLoads;
  /** Levels whose health is not trusted: all of their hosts are chosen from. */
  readonly panic: readonly boolean[];
}

/** Envoy's arithmetic of priorities and panic, in whole percents. `levels` has one at least. */
export function levelLoads(levels: readonly LevelHealth[], options: LoadOptions): LevelLoads {
  const factor = options.overprovisioningFactor;
  const healthy = levels.map((level) => availability(level, "healthy", factor));
  const degraded = levels.map((level) => availability(level, "degraded", factor));
  const available = { healthy, degraded };
  const total = totalOf(available);
  const panic = levels.map(
    (level) => total < 100 && availablePercent(level) < options.panicThreshold,
  );
  if (panic.every(Boolean)) return { ...byHosts(levels), panic, available };
  // Nobody is healthy and panic is off: the first level gets everything, and has nobody.
  if (total === 0)
    return { healthy: levels.map((_, k) => (k === 0 ? 100 : 0)), degraded, panic, available };
  return { ...byAvailability(available, total), panic, available };
}

/** The loads of a retry that has tried some levels before. Once all have been tried they begin anew. */
export function loadsWithout(loads: LevelLoads, excluded: ReadonlySet<number>): PriorityLoads {
  const rest = (available: readonly number[]): number[] =>
    available.map((percent, k) => (excluded.has(k) ? 0 : percent));
  const available = {
    healthy: rest(loads.available.healthy),
    degraded: rest(loads.available.degraded),
  };
  const total = totalOf(available);
  return total === 0 ? loads : byAvailability(available, total);
}

function totalOf({ healthy, degraded }: PriorityLoads): number {
  return Math.min(100, sum(healthy) + sum(degraded));
}

function byAvailability({ healthy, degraded }: PriorityLoads, total: number): PriorityLoads {
  const first = distribute(healthy, 100, total);
  const second = distribute(degraded, first.rest, total);
  // What is left is rounding.
  const firstHealthy = healthy.findIndex((available) => available > 0);
  if (firstHealthy >= 0) first.loads[firstHealthy]! += second.rest;
  else second.loads[degraded.findIndex((available) => available > 0)]! += second.rest;
  return { healthy: first.loads, degraded: second.loads };
}

function availability(level: LevelHealth, which: "healthy" | "degraded", factor: number): number {
  if (level.total === 0) return 0;
  const { total, [which]: available } = level.weights ?? level;
  return Math.min(100, Math.floor(((level.overprovisioningFactor ?? factor) * available) / total));
}

function availablePercent(level: LevelHealth): number {
  return level.total === 0 ? 0 : (100 * (level.healthy + level.degraded)) / level.total;
}

/** Nobody's health is trusted: each level gets load by the number of its hosts, the rounding goes to the first that has any. */
function byHosts(levels: readonly LevelHealth[]): PriorityLoads {
  const hosts = sum(levels.map((level) => level.hosts));
  const healthy = levels.map((level) =>
    hosts === 0 ? 0 : Math.floor((100 * level.hosts) / hosts),
  );
  const first = Math.max(
    0,
    levels.findIndex((level) => level.hosts > 0),
  );
  healthy[first]! += 100 - sum(healthy);
  return { healthy, degraded: levels.map(() => 0) };
}

/** Each level takes what its availability allows, in order, until nothing of `load` is left. */
function distribute(
  available: readonly number[],
  load: number,
  total: number,
): { loads: number[]; rest: number } {
  let rest = load;
  const loads = available.map((a) => {
    const taken = Math.min(rest, Math.floor((a * 100) / total));
    rest -= taken;
    return taken;
  });
  return { loads, rest };
}

const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);
