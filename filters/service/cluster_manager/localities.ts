// Hot path: `choose` runs for every request of a cluster with locality weights or zone-aware routing.
import {
  type Counter,
  EdfScheduler,
  type LocalityPolicy,
  type SetupContext,
  type Stats,
} from "@tsproxy/sdk";
import type { UpstreamHost } from "./host.ts";

/** The hosts of one level that share a locality. */
export interface Locality {
  readonly key: string;
  readonly all: UpstreamHost[];
  readonly healthy: UpstreamHost[];
  readonly degraded: UpstreamHost[];
  excluded: number;
  weight: number;
}

/** Groups hosts by locality. As in Envoy, `own`, the locality of this proxy, is first; the others are sorted by name. */
export function localitiesOf(hosts: readonly UpstreamHost[], own: string): Locality[] {
  const byKey = new Map<string, Locality>();
  for (const host of hosts) {
    let locality = byKey.get(host.localityKey);
    if (locality === undefined) {
      const { localityKey: key } = host;
      locality = { key, all: [], healthy: [], degraded: [], excluded: 0, weight: 0 };
      byKey.set(key, locality);
    }
    locality.all.push(host);
    locality.weight = host.spec.localityWeight ?? 0;
    if (host.excluded) locality.excluded++;
    if (host.health !== "unhealthy") locality[host.health].push(host);
  }
  const rank = (key: string): number => (key === own && own !== NOWHERE ? 0 : 1);
  return [...byKey.values()].sort(
    (a, b) => rank(a.key) - rank(b.key) || (a.key < b.key ? -1 : a.key > b.key ? 1 : 0),
  );
}

/** Key of a locality. The parts are separated by NUL, which sorts before all other characters. */
export function localityKey(locality: SetupContext["node"]["locality"]): string {
  return `${locality?.region ?? ""}\0${locality?.zone ?? ""}\0${locality?.sub_zone ?? ""}`;
}
/** The key of an unknown locality. */
export const NOWHERE = localityKey(undefined);

/** Chooses a locality and returns its index in the level. */
export interface LocalityChoice {
  choose(): number;
}

/** Chooses by locality weights, each reduced by the part of its hosts that is not available. Undefined: no weights. */
export function weightedLocalities(
  localities: readonly Locality[],
  which: "healthy" | "degraded",
  overprovisioningFactor: number,
): LocalityChoice | undefined {
  const entries: { readonly index: number; readonly weight: number }[] = [];
  for (const [index, locality] of localities.entries()) {
    const total = locality.all.length - locality.excluded;
    const part = total === 0 ? 0 : locality[which].length / total;
    const weight = locality.weight * Math.min(1, (overprovisioningFactor / 100) * part);
    if (weight > 0) entries.push({ index, weight });
  }
  if (entries.length === 0) return undefined;
  if (entries.length === 1) return { choose: () => entries[0]!.index };
  const scheduler = new EdfScheduler(entries, (entry) => entry.weight);
  return { choose: () => scheduler.pick().index };
}

export type ZoneAwarePolicy = Extract<LocalityPolicy, { type: "zone_aware" }>;

/** The cluster that this proxy belongs to (`cluster_manager.local_cluster_name`), the origin of requests. */
export interface LocalCluster {
  /** Localities of its first priority level, this proxy's own first. */
  readonly localities: readonly Locality[];
  readonly hasOwn: boolean;
  readonly inPanic: boolean;
}

/** Envoy's counters of zone-aware routing. */
export class ZoneStats {
  readonly recalculated: Counter;
  readonly localClusterNotOk: Counter;
  readonly clusterTooSmall: Counter;
  readonly allDirectly: Counter;
  readonly sampled: Counter;
  readonly crossZone: Counter;
  readonly noCapacityLeft: Counter;

  constructor(stats: Stats) {
    this.recalculated = stats.counter("lb_recalculate_zone_structures");
    this.localClusterNotOk = stats.counter("lb_local_cluster_not_ok");
    this.clusterTooSmall = stats.counter("lb_zone_cluster_too_small");
    this.allDirectly = stats.counter("lb_zone_routing_all_directly");
    this.sampled = stats.counter("lb_zone_routing_sampled");
    this.crossZone = stats.counter("lb_zone_routing_cross_zone");
    this.noCapacityLeft = stats.counter("lb_zone_no_capacity_left");
  }
}

/**
 * Envoy's zone-aware routing: keeps requests in this proxy's zone as far as the zone's share of healthy hosts suffices for its
 * share of proxies (the local cluster). Shares are in 1/100 percent. Undefined: not applicable, for the same reasons as in Envoy.
 */
export function zoneAwareLocalities(
  localities: readonly Locality[],
  hasOwn: boolean,
  local: LocalCluster,
  policy: ZoneAwarePolicy,
  stats: ZoneStats,
): LocalityChoice | undefined {
  stats.recalculated.inc();
  const healthy = localities.reduce((n, locality) => n + locality.healthy.length, 0);
  if (localities.length < 2) return undefined;
  const { forceLocalZoneMinSize: enough, byWeight } = policy;
  if (local.localities.length < 2 && enough === undefined) return undefined;
  if (!local.hasOwn || local.localities[0]!.all.length === 0) {
    stats.localClusterNotOk.inc();
    return undefined;
  }
  if (healthy < policy.minClusterSize) {
    stats.clusterTooSmall.inc();
    return undefined;
  }
  const size = ({ healthy: hosts }: Locality): number =>
    byWeight ? hosts.reduce((sum, host) => sum + host.weight, 0) : hosts.length;
  const allOf = (list: readonly Locality[]): number => list.reduce((sum, l) => sum + size(l), 0);
  const [proxies, total] = [allOf(local.localities), allOf(localities)];
  const shares = localities.map((locality) => {
    if (locality.healthy.length === 0) return { local: 0, upstream: 0 };
    const there = local.localities.find(({ key }) => key === locality.key);
    return {
      local: proxies > 0 && there !== undefined ? Math.floor((10_000 * size(there)) / proxies) : 0,
      upstream: Math.floor((10_000 * size(locality)) / total),
    };
  });
  const own = shares[0]!;
  const direct = own.upstream > 0 && own.upstream >= own.local;
  const forced = enough !== undefined && localities[0]!.healthy.length >= enough;
  if (hasOwn && (direct || forced)) {
    return {
      choose: () => {
        stats.allDirectly.inc();
        return 0;
      },
    };
  }
  const toOwn = hasOwn && own.local > 0 ? Math.floor((own.upstream * 10_000) / own.local) : 0;
  let sum = 0;
  const residual = shares.map((share, k) => {
    if (!(k === 0 && hasOwn)) sum += Math.max(0, share.upstream - share.local);
    return sum;
  });
  return new ZoneChoice(toOwn, residual, stats);
}

class ZoneChoice implements LocalityChoice {
  /** Of 10,000 requests, how many stay in the own zone. */
  readonly #toOwn: number;
  /** Capacity of the localities beyond their own requests, as cumulative sums. */
  readonly #residual: readonly number[];
  readonly #stats: ZoneStats;

  constructor(toOwn: number, residual: readonly number[], stats: ZoneStats) {
    this.#toOwn = toOwn;
    this.#residual = residual;
    this.#stats = stats;
  }

  choose(): number {
    if (Math.random() * 10_000 < this.#toOwn) {
      this.#stats.sampled.inc();
      return 0;
    }
    this.#stats.crossZone.inc();
    const residual = this.#residual;
    const capacity = residual[residual.length - 1]!;
    if (capacity === 0) {
      this.#stats.noCapacityLeft.inc();
      return Math.floor(Math.random() * residual.length);
    }
    const ticket = Math.floor(Math.random() * capacity);
    let k = 0;
    while (ticket >= residual[k]!) k++;
    return k;
  }
}
