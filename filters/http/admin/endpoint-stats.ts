import type { ClusterManagerStatus } from "@tsproxy/sdk";
import type { NamedValue, StatsSnapshot } from "./core-data.ts";
import { HOST_COUNTERS, HOST_GAUGES, hostCells } from "./host-cells.ts";

/** Adds the stats of single hosts, for clusters that ask for them (`track_cluster_stats.per_endpoint_stats`). */
export function withEndpoints(
  snapshot: StatsSnapshot,
  { clusters }: ClusterManagerStatus,
): StatsSnapshot {
  const tracked = clusters.filter((cluster) => cluster.perEndpointStats === true);
  if (tracked.length === 0) return snapshot;
  const cells = hostCells(snapshot);
  const hosts = tracked.flatMap((cluster) =>
    cluster.hosts.map((host) => {
      const prefix = `cluster.${cluster.observabilityName}.endpoint.${host.key.replaceAll(":", "_")}.`;
      const read = (name: string): NamedValue => {
        const [, value = 0] = cells(cluster, host, name) ?? [];
        // As in Envoy, these count as used from the start.
        return [prefix + name, value, true];
      };
      const healthy: NamedValue = [
        `${prefix}healthy`,
        host.healthFlags === "healthy" ? 1 : 0,
        true,
      ];
      return { counters: HOST_COUNTERS.map(read), gauges: [...HOST_GAUGES.map(read), healthy] };
    }),
  );
  return { ...snapshot, hosts };
}
