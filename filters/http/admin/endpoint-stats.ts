import type { ClusterManagerStatus } from "@tsproxy/sdk";
import type { NamedValue, StatsSnapshot } from "./core-data.ts";

const COUNTERS = [
  "cx_connect_fail",
  "cx_total",
  "rq_error",
  "rq_success",
  "rq_timeout",
  "rq_total",
];
const GAUGES = ["cx_active", "rq_active", "rq_pending_active"];

/** Beside all stats those of single hosts, of clusters that ask for them (`track_cluster_stats.per_endpoint_stats`). */
export function withEndpoints(
  snapshot: StatsSnapshot,
  { clusters }: ClusterManagerStatus,
): StatsSnapshot {
  const tracked = clusters.filter((cluster) => cluster.perEndpointStats === true);
  if (tracked.length === 0) return snapshot;
  const cells = new Map<string, NamedValue>();
  for (const list of [snapshot.counters, snapshot.gauges])
    for (const entry of list) if (entry[0].startsWith("@host|")) cells.set(entry[0], entry);
  const counters = [...snapshot.counters];
  const gauges = [...snapshot.gauges];
  for (const { name, observabilityName, hosts } of tracked) {
    for (const host of hosts) {
      const prefix = `cluster.${observabilityName}.endpoint.${host.key.replaceAll(":", "_")}.`;
      const read = (cell: string): NamedValue => {
        const [, value = 0, used = false] =
          cells.get(`@host|${name}|${host.cells ?? host.key}|${cell}`) ?? [];
        return [prefix + cell, value, used];
      };
      counters.push(...COUNTERS.map(read));
      gauges.push(...GAUGES.map(read));
      gauges.push([`${prefix}healthy`, host.healthFlags === "healthy" ? 1 : 0, true]);
    }
  }
  return { ...snapshot, counters, gauges };
}
