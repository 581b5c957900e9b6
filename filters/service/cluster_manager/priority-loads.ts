import type { Runtime } from "@tsproxy/sdk";

/** `healthy_panic_threshold` in percent, with the runtime override, read whenever loads are computed. */
export function panicThreshold(runtime: Pick<Runtime, "integer">, configured: number): number {
  return Math.min(100, runtime.integer("upstream.healthy_panic_threshold", configured));
}

/** Health of one priority level, from which its load is computed. */
export interface LevelHealth {
  /** Number of hosts, without excluded ones. */
  readonly total: number;
  readonly healthy: number;
  readonly degraded: number;
  /** Number of hosts, including excluded ones. */
  readonly hosts: number;
  /** Replaces the factor of the options. */
  readonly overprovisioningFactor?: number;
  /** With `weighted_priority_health`: sums of weights, used instead of the numbers of hosts. */
  readonly weights?: {
    readonly total: number;
    readonly healthy: number;
    readonly degraded: number;
  };
}

export interface LoadOptions {
  /** Percentage of available hosts below which a level panics, i.e. health is ignored; 0: never. */
  readonly panicThreshold: number;
  /** In percent; with 140 a level can lose 28 % of its hosts before others get a part of its load. */
  readonly overprovisioningFactor: number;
}

/** Percentages of requests by level; their sum is 100 unless no host can be chosen. */
export interface PriorityLoads {
  readonly healthy: readonly number[];
  readonly degraded: readonly number[];
}

/** The loads together with the values from which a retry's loads are computed. */
export interface LevelLoads extends PriorityLoads {
  /** Percentage of the load that each level could take. */
  readonly available: PriorityLoads;
  /** True for levels in panic, in which hosts are chosen regardless of health. */
  readonly panic: readonly boolean[];
}

/** Computes the loads by Envoy's rules for priorities and panic, in whole percents. `levels` must not be empty. */
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
  // No host is available and panic is off: the first level gets all load and no host is found there.
  if (total === 0)
    return { healthy: levels.map((_, k) => (k === 0 ? 100 : 0)), degraded, panic, available };
  return { ...byAvailability(available, total), panic, available };
}

/** The loads without levels that a retry has already tried; the full loads if all have been tried. */
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

/** Distributes all requests by availability: first to healthy, then to degraded hosts. */
function byAvailability({ healthy, degraded }: PriorityLoads, total: number): PriorityLoads {
  const first = distribute(healthy, 100, total);
  const second = distribute(degraded, first.rest, total);
  // The rest is due to rounding.
  const firstHealthy = healthy.findIndex((available) => available > 0);
  if (firstHealthy >= 0) first.loads[firstHealthy]! += second.rest;
  else second.loads[degraded.findIndex((available) => available > 0)]! += second.rest;
  return { healthy: first.loads, degraded: second.loads };
}

/** Percentage of the load that a level can take by its healthy or degraded hosts. */
function availability(level: LevelHealth, which: "healthy" | "degraded", factor: number): number {
  if (level.total === 0) return 0;
  const { total, [which]: available } = level.weights ?? level;
  return Math.min(100, Math.floor(((level.overprovisioningFactor ?? factor) * available) / total));
}

function availablePercent(level: LevelHealth): number {
  return level.total === 0 ? 0 : (100 * (level.healthy + level.degraded)) / level.total;
}

/** Loads if all levels panic: by number of hosts; the first level with hosts also gets the rest from rounding. */
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

/** Gives each level load by its availability, in order, until nothing of `load` is left. */
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
