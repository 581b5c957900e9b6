import type { ClusterStatus, HostStatus } from "@tsproxy/sdk";
import type { NamedValue, StatsSnapshot } from "./core-data.ts";

/** Envoy's figures of a host, which the cluster manager counts in cells of these names. */
export const HOST_COUNTERS = [
  "cx_connect_fail",
  "cx_total",
  "rq_error",
  "rq_success",
  "rq_timeout",
  "rq_total",
];
export const HOST_GAUGES = ["cx_active", "rq_active", "rq_pending_active"];

/** The cell of that name of a host; undefined: nobody has made it yet. */
export type HostCells = (
  cluster: ClusterStatus,
  host: HostStatus,
  name: string,
) => NamedValue | undefined;

/** Cells of hosts stand among the stats as `@host|<cluster>|<address>|<name>`. */
export function hostCells({ counters, gauges }: StatsSnapshot): HostCells {
  const cells = new Map<string, NamedValue>();
  for (const list of [counters, gauges])
    for (const cell of list) if (cell[0].startsWith("@host|")) cells.set(cell[0], cell);
  return (cluster, host, name) =>
    cells.get(`@host|${cluster.name}|${host.cells ?? host.key}|${name}`);
}
