// Hot path: a host is chosen for every request.
import type { Balancer, BalancerContext, BalancerFactory, Counter, Slot } from "@tsproxy/sdk";
import { UpstreamHost } from "./host.ts";

export interface LevelOptions {
  /** Percent of a level's hosts; below it health is not trusted. 0: it always is. */
  readonly panicThreshold: number;
  /** Percent; 140 lets a level lose 28 % of its hosts before others get a share of its load. */
  readonly overprovisioningFactor: number;
}

/** The hosts of one priority. */
interface Level {
  readonly all: UpstreamHost[];
  readonly healthy: UpstreamHost[];
  readonly degraded: UpstreamHost[];
}

/** A set of hosts that gets `load` percent of the requests. */
interface Share {
  readonly key: string;
  readonly hosts: readonly UpstreamHost[];
  readonly load: number;
  readonly panic: boolean;
}

/** Spreads requests over priority levels by their health, and asks the balancer for a host of the level chosen. */
export class Levels {
  readonly #slot: Slot<BalancerFactory>;
  readonly #options: LevelOptions;
  readonly #panics: Counter;
  #generation: Slot<BalancerFactory>["current"];
  #shares: Share[] = [];
  #balancers: Balancer[] = [];
  #byKey = new Map<string, Balancer>();
  /** The balancer, if there is but one and no panic. */
  #only: Balancer | undefined = undefined;

  constructor(slot: Slot<BalancerFactory>, options: LevelOptions, panics: Counter) {
    this.#slot = slot;
    this.#options = options;
    this.#panics = panics;
    this.#generation = slot.current;
    this.#generation.acquire();
  }

  update(hosts: readonly UpstreamHost[]): void {
    this.#shares = sharesOf(hosts, this.#options);
    this.#build();
  }

  choose(context: BalancerContext): UpstreamHost | undefined {
    if (this.#slot.current !== this.#generation) this.#renew();
    let host = this.#chooseOnce(context, 0);
    const retries = context.hostSelectionRetries ?? 0;
    for (let k = 1; k <= retries && host !== undefined && context.rejects?.(host); k++) {
      host = this.#chooseOnce(context, k);
    }
    return host;
  }

  #chooseOnce(context: BalancerContext, attempt: number): UpstreamHost | undefined {
    const only = this.#only;
    const host =
      only !== undefined ? only.choose(context, attempt) : this.#chooseShare(context, attempt);
    return host instanceof UpstreamHost ? host : undefined;
  }

  /** Gives the balancer's generation back. No host from here on. */
  dispose(): void {
    this.update([]);
    this.#generation.release();
  }

  #chooseShare(context: BalancerContext, attempt: number): unknown {
    const shares = this.#shares;
    const { hash } = context;
    const n = hash === undefined ? Math.floor(Math.random() * 100) : Number(hash % 100n);
    let sum = 0;
    for (let k = 0; k < shares.length; k++) {
      sum += shares[k]!.load;
      if (n >= sum && k < shares.length - 1) continue;
      if (shares[k]!.panic) this.#panics.inc();
      return this.#balancers[k]!.choose(context, attempt);
    }
    return undefined;
  }

  /** The balancer's code has been replaced. */
  #renew(): void {
    this.#generation.release();
    this.#generation = this.#slot.current;
    this.#generation.acquire();
    this.#build();
  }

  #build(): void {
    const before = this.#byKey;
    const make = this.#generation.value;
    this.#byKey = new Map();
    this.#balancers = this.#shares.map((share) => {
      const balancer = make(share.hosts, before.get(share.key));
      this.#byKey.set(share.key, balancer);
      return balancer;
    });
    const first = this.#shares[0];
    this.#only =
      this.#shares.length === 1 && first?.panic === false ? this.#balancers[0] : undefined;
  }
}

/** Envoy's arithmetic of priorities and panic, in whole percents; the loads add up to 100 unless there is nobody to choose. */
export function sharesOf(hosts: readonly UpstreamHost[], options: LevelOptions): Share[] {
  const levels = levelsOf(hosts);
  const healthy = levels.map((level) =>
    availability(level.healthy.length, level.all.length, options),
  );
  const degraded = levels.map((level) =>
    availability(level.degraded.length, level.all.length, options),
  );
  const total = Math.min(100, sum(healthy) + sum(degraded));
  const threshold = options.panicThreshold;
  const panic = levels.map(
    (level) =>
      total < 100 &&
      percent(level.healthy.length + level.degraded.length, level.all.length) < threshold,
  );
  const shares: Share[] = [];
  const add = (
    k: number,
    source: "all" | "healthy" | "degraded",
    load: number,
    panicking: boolean,
  ): void => {
    const chosen = levels[k]![source];
    if (load > 0 && chosen.length > 0)
      shares.push({ key: `${k}|${source}`, hosts: chosen, load, panic: panicking });
  };
  if (levels.length > 0 && panic.every(Boolean)) {
    // Nobody's health is trusted: each level gets load by the number of its hosts.
    const loads = distribute(
      levels.map((level) => percent(level.all.length, hosts.length)),
      100,
      100,
    ).loads;
    giveRest(
      loads,
      levels.map((level) => level.all.length),
    );
    for (const [k, load] of loads.entries()) add(k, "all", load, true);
    return shares;
  }
  if (total === 0) return shares;
  const first = distribute(healthy, 100, total);
  const second = distribute(degraded, first.rest, total);
  const rounding = second.rest;
  const firstHealthy = healthy.findIndex((a) => a > 0);
  if (firstHealthy >= 0) first.loads[firstHealthy]! += rounding;
  else second.loads[degraded.findIndex((a) => a > 0)]! += rounding;
  for (const [k, load] of first.loads.entries())
    add(k, panic[k] === true ? "all" : "healthy", load, panic[k] === true);
  for (const [k, load] of second.loads.entries())
    add(k, panic[k] === true ? "all" : "degraded", load, panic[k] === true);
  return shares;
}

function levelsOf(hosts: readonly UpstreamHost[]): Level[] {
  const levels: Level[] = [];
  for (const host of hosts) {
    while (levels.length <= host.spec.priority) levels.push({ all: [], healthy: [], degraded: [] });
    const level = levels[host.spec.priority]!;
    level.all.push(host);
    if (host.health !== "unhealthy") level[host.health].push(host);
  }
  return levels;
}

function availability(available: number, total: number, options: LevelOptions): number {
  return total === 0
    ? 0
    : Math.min(100, Math.floor((options.overprovisioningFactor * available) / total));
}

const percent = (part: number, whole: number): number =>
  whole === 0 ? 0 : Math.floor((100 * part) / whole);
const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);

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

/** What rounding left goes to the first level that has hosts. */
function giveRest(loads: number[], counts: readonly number[]): void {
  const at = counts.findIndex((count) => count > 0);
  if (at >= 0) loads[at]! += 100 - sum(loads);
}
