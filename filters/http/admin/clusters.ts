import type { ClusterStatus, HostStatus, Thresholds } from "@tsproxy/sdk";
import { type Answer, json, Refused, text } from "./answer.ts";
import type { CoreData } from "./core-data.ts";
import { HOST_COUNTERS, HOST_GAUGES, type HostCells, hostCells } from "./host-cells.ts";
import { addressJson, healthStatusOf, localityJson } from "./host-json.ts";
import type { Query } from "./query.ts";

const FIGURES = [...HOST_COUNTERS, ...HOST_GAUGES].sort();

/** `/clusters` */
export async function clusters(query: Query, core: CoreData): Promise<Answer> {
  const matches = query.matcher("filter", () => new Refused(400, "Invalid re2 regex"));
  const wanted = core.clusters.clusters
    .filter((c) => matches === undefined || matches(c.name))
    .filter(({ made }) => made?.warming !== true)
    .map((c) => ({ ...c, thresholds: presentThresholds(c, core) }));
  const cells = hostCells(await core.stats());
  if (query.wantsJson) {
    // Protobuf's JSON leaves an empty list out.
    if (wanted.length === 0) return json({});
    return json({ cluster_statuses: wanted.map((c) => clusterJson(c, cells)) });
  }

  function* body(): Generator<string> {
    for (const cluster of wanted) yield* clusterText(cluster, cells);
  }
  return text(body());
}

/** The limits as they are now: runtime may replace those of the config. */
function presentThresholds(cluster: ClusterStatus, core: CoreData): ClusterStatus["thresholds"] {
  const now = (limits: Thresholds, priority: string): Thresholds => {
    const limit = (what: string, configured: number) =>
      core.runtimeInteger(`circuit_breakers.${cluster.name}.${priority}.max_${what}`, configured);
    return {
      maxConnections: limit("connections", limits.maxConnections),
      maxPendingRequests: limit("pending_requests", limits.maxPendingRequests),
      maxRequests: limit("requests", limits.maxRequests),
      maxRetries: limit("retries", limits.maxRetries),
    };
  };
  const [normal, high] = cluster.thresholds;
  return [now(normal, "default"), now(high, "high")];
}

function* clusterText(cluster: ClusterStatus, cells: HostCells): Generator<string> {
  const name = cluster.name;
  yield `${name}::observability_name::${cluster.observabilityName}\n`;
  if (cluster.outlier !== undefined) {
    const { outlier } = cluster;
    yield `${name}::outlier::success_rate_average::${rateText(outlier.successRateAverage)}\n` +
      `${name}::outlier::success_rate_ejection_threshold::${rateText(outlier.successRateEjectionThreshold)}\n` +
      `${name}::outlier::local_origin_success_rate_average::${rateText(outlier.localOriginSuccessRateAverage)}\n` +
      `${name}::outlier::local_origin_success_rate_ejection_threshold::${rateText(outlier.localOriginSuccessRateEjectionThreshold)}\n`;
  }
  for (const [k, priority] of ["default", "high"].entries()) {
    const limits = cluster.thresholds[k]!;
    yield `${name}::${priority}_priority::max_connections::${limits.maxConnections}\n` +
      `${name}::${priority}_priority::max_pending_requests::${limits.maxPendingRequests}\n` +
      `${name}::${priority}_priority::max_requests::${limits.maxRequests}\n` +
      `${name}::${priority}_priority::max_retries::${limits.maxRetries}\n`;
  }
  yield `${name}::added_via_api::${cluster.addedViaApi}\n`;
  for (const host of cluster.hosts) {
    const facts: (readonly [string, string | number | boolean])[] = [
      ...FIGURES.map((stat) => [stat, cells(cluster, host, stat)?.[1] ?? 0] as const),
      ["hostname", host.hostname],
      ["health_flags", host.healthFlags],
      ["weight", host.weight],
      ["region", host.locality?.region ?? ""],
      ["zone", host.locality?.zone ?? ""],
      ["sub_zone", host.locality?.sub_zone ?? ""],
      ["canary", host.canary],
      ["priority", host.priority],
      // -1: nothing measures it.
      ["success_rate", host.successRate ?? -1],
      ["local_origin_success_rate", host.localOriginSuccessRate ?? -1],
    ];
    yield facts.map(([fact, value]) => `${name}::${host.key}::${fact}::${value}\n`).join("");
  }
}

/** A rate of the cluster; Envoy prints six digits of it, and all of a host's. */
function rateText(rate: number): string {
  return String(Number(rate.toPrecision(6)));
}

/** Protobuf's JSON leaves out what has its default value, and writes 64-bit numbers as strings. */
function clusterJson(cluster: ClusterStatus, cells: HostCells): unknown {
  return {
    name: cluster.name,
    ...(cluster.addedViaApi && { added_via_api: true }),
    ...(cluster.outlier !== undefined &&
      rateJson("success_rate_ejection_threshold", cluster.outlier.successRateEjectionThreshold)),
    ...(cluster.outlier !== undefined &&
      rateJson(
        "local_origin_success_rate_ejection_threshold",
        cluster.outlier.localOriginSuccessRateEjectionThreshold,
      )),
    ...(cluster.hosts.length > 0 && {
      host_statuses: cluster.hosts.map((host) => hostJson(cluster, host, cells)),
    }),
    circuit_breakers: {
      thresholds: [
        thresholdsJson(cluster.thresholds[0]),
        { priority: "HIGH", ...thresholdsJson(cluster.thresholds[1]) },
      ],
    },
    observability_name: cluster.observabilityName,
  };
}

/** Absent: not measured; empty: 0. */
function rateJson(name: string, rate: number | undefined): Record<string, { value?: number }> {
  return rate === undefined || rate < 0 ? {} : { [name]: rate === 0 ? {} : { value: rate } };
}

function thresholdsJson(limits: Thresholds): object {
  return {
    max_connections: limits.maxConnections,
    max_pending_requests: limits.maxPendingRequests,
    max_requests: limits.maxRequests,
    max_retries: limits.maxRetries,
  };
}

function hostJson(cluster: ClusterStatus, host: HostStatus, cells: HostCells): unknown {
  const stat = (name: string, type: "GAUGE" | undefined) => {
    const [, value = 0] = cells(cluster, host, name) ?? [];
    return { ...(type && { type }), ...(value !== 0 && { value: String(value) }), name };
  };
  return {
    address: addressJson(host),
    stats: [
      ...HOST_COUNTERS.map((name) => stat(name, undefined)),
      ...HOST_GAUGES.map((name) => stat(name, "GAUGE")),
    ],
    health_status: healthJson(host),
    ...rateJson("success_rate", host.successRate),
    weight: host.weight,
    ...(host.hostname !== "" && { hostname: host.hostname }),
    ...(host.priority !== 0 && { priority: host.priority }),
    ...rateJson("local_origin_success_rate", host.localOriginSuccessRate),
    locality: localityJson(host),
  };
}

const FLAGS: readonly (readonly [flag: string, field: string])[] = [
  ["/failed_active_hc", "failed_active_health_check"],
  ["/failed_outlier_check", "failed_outlier_check"],
  ["/degraded_active_hc", "failed_active_degraded_check"],
  ["/pending_dynamic_removal", "pending_dynamic_removal"],
  ["/pending_active_hc", "pending_active_hc"],
  ["/excluded_via_immediate_hc_fail", "excluded_via_immediate_hc_fail"],
  ["/active_hc_timeout", "active_hc_timeout"],
  ["/degraded_outlier_detection", "failed_degraded_outlier_detection"],
];

function healthJson(host: HostStatus): unknown {
  const flags = host.healthFlags;
  const health: Record<string, unknown> = {};
  for (const [flag, field] of FLAGS) if (flags.includes(flag)) health[field] = true;
  health.eds_health_status = healthStatusOf(host);
  return health;
}
