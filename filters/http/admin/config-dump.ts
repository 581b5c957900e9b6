import type { ClusterStatus, HostStatus } from "@tsproxy/sdk";
import { type Answer, bareRefusal, json } from "./answer.ts";
import type { ConfigSnapshot, CoreData } from "./core-data.ts";
import { allTrimmed, fieldMask, type Json, type Mask, names, trimmed } from "./field-mask.ts";
import { addressJson, localityJson } from "./host-json.ts";
import type { Matcher, Query } from "./query.ts";
import { shownNode } from "./server.ts";

const ADMIN = "type.googleapis.com/envoy.admin.v3.";
const CONFIG = "type.googleapis.com/envoy.config.";

/** Fields of a dump that are lists, and the message that one entry of each is. */
const RESOURCES: Readonly<Record<string, string>> = {
  dynamic_active_clusters: "ClustersConfigDump.DynamicCluster",
  dynamic_active_secrets: "SecretsConfigDump.DynamicSecret",
  dynamic_listeners: "ListenersConfigDump.DynamicListener",
  dynamic_route_configs: "RoutesConfigDump.DynamicRouteConfig",
  dynamic_scoped_route_configs: "ScopedRoutesConfigDump.DynamicScopedRouteConfigs",
  dynamic_warming_clusters: "ClustersConfigDump.DynamicCluster",
  dynamic_warming_secrets: "SecretsConfigDump.DynamicSecret",
  inline_scoped_route_configs: "ScopedRoutesConfigDump.InlineScopedRouteConfigs",
  static_clusters: "ClustersConfigDump.StaticCluster",
  static_listeners: "ListenersConfigDump.StaticListener",
  static_route_configs: "RoutesConfigDump.StaticRouteConfig",
  static_secrets: "SecretsConfigDump.StaticSecret",
};
/** The same for the dump of hosts, which is made only with `include_eds`. */
const ENDPOINT_RESOURCES: typeof RESOURCES = {
  dynamic_endpoint_configs: "EndpointsConfigDump.DynamicEndpointConfig",
  static_endpoint_configs: "EndpointsConfigDump.StaticEndpointConfig",
};
/** Fields of dumps that are not lists. */
const SINGLE = ["bootstrap", "last_updated", "version_info"];
/** The dumps that have a `version_info`, which only a control plane sets. */
const VERSIONED = ["ClustersConfigDump", "ListenersConfigDump"];

/** `/config_dump` */
export async function configDump(query: Query, core: CoreData): Promise<Answer> {
  const named = query.matcher("name_regex", (fault, pattern) =>
    bareRefusal(400, `INVALID_ARGUMENT: Error while parsing name_regex from ${pattern}: ${fault}`),
  );
  const mask = fieldMask(query.get("mask"));
  const [config, server, packages] = await Promise.all([
    core.config(),
    core.server(),
    core.packages(),
  ]);
  const { locality } = server.node;
  const node = { ...shownNode(server, packages), ...(locality !== undefined && { locality }) };
  const dumps = allDumps(config, core.clusters.clusters, node, named);
  const resource = query.get("resource");
  const withHosts = query.has("include_eds");
  if (withHosts) dumps.splice(2, 0, endpoints(core, named));

  if (resource === undefined || resource === "") {
    const configs = mask === undefined ? dumps : masked(dumps, mask);
    if (configs.length === 0)
      throw bareRefusal(
        400,
        `FieldMask ${query.get("mask")} could not be successfully applied to any configs.`,
      );
    return json({ configs });
  }
  if (SINGLE.includes(resource)) {
    throw bareRefusal(
      400,
      `${resource} is not a repeated field. Use ?mask=${resource} to get only this field`,
    );
  }
  const known = withHosts ? { ...RESOURCES, ...ENDPOINT_RESOURCES } : RESOURCES;
  if (!Object.hasOwn(known, resource))
    throw bareRefusal(404, `${resource} not found in config dump`);
  const entries = (dumps.find((d) => Object.hasOwn(d, resource))?.[resource] ?? []) as Json[];
  const typed = entries.map((entry) => ({ "@type": ADMIN + known[resource], ...entry }));
  const configs = mask === undefined || typed.length === 0 ? typed : allTrimmed(typed, mask);
  if (configs === undefined)
    throw bareRefusal(400, `FieldMask ${query.get("mask")} could not be successfully used.`);
  // Protobuf's JSON has no key for an empty list.
  return json(configs.length === 0 ? {} : { configs });
}

/** What the mask keeps of the dumps. As in Envoy, one that cannot have all that it names is left out, others stay though empty. */
function masked(dumps: readonly Json[], mask: Mask): Json[] {
  const fits = (dump: Json) =>
    mask.every(([field]) => canHave(dump, field!)) &&
    mask.some((path) => path.length === 1 || names(dump, path));
  return dumps.filter(fits).map((dump) => trimmed(dump, mask));
}

function canHave(dump: Json, field: string): boolean {
  const type = String(dump["@type"]).slice(ADMIN.length);
  if (field === "version_info") return VERSIONED.includes(type);
  const list = RESOURCES[field] ?? ENDPOINT_RESOURCES[field];
  if (list !== undefined) return list.startsWith(`${type}.`);
  return field !== "@type" && Object.hasOwn(dump, field);
}

function allDumps(
  config: ConfigSnapshot,
  status: readonly ClusterStatus[],
  node: Json,
  named: Matcher | undefined,
): Json[] {
  const bootstrap = redacted({ ...config.bootstrap, node }) as Json;
  const resources = (bootstrap.static_resources ?? {}) as Json;
  const updated = config.clustersUpdatedAt ?? config.loadedAt;
  // Envoy keeps clusters by name, and listeners as they came.
  const clusters = byName(
    listOf(resources.clusters).filter((c) => isWanted(c.name, named)),
    (cluster) => cluster.name,
  );
  const listeners = listOf(resources.listeners).filter((l) => isWanted(l.name, named));
  const allRoutes = inManagers(resources.listeners, "route_config");
  const routes = allRoutes.filter((r) => isWanted(r.name, named));
  const allScopes = inManagers(resources.listeners, "scoped_routes");
  // Each connection manager has one of the two; Envoy has no dump of routes until it has made one.
  const hasManager = allRoutes.length > 0 || allScopes.length > 0;
  const scopes = allScopes.filter(
    (scoped) => scopedConfigs(scoped).length > 0 && isWanted(scoped.name, named),
  );
  const scopeDump = dump(
    "ScopedRoutesConfigDump",
    "inline_scoped_route_configs",
    scopes,
    (scoped) => ({
      name: scoped.name,
      scoped_route_configs: scopedConfigs(scoped).map((one) => ({
        "@type": `${CONFIG}route.v3.ScopedRouteConfiguration`,
        ...one,
      })),
      last_updated: config.loadedAt,
    }),
  );
  const routeDump = dump("RoutesConfigDump", "static_route_configs", routes, (route_config) => ({
    route_config: { "@type": `${CONFIG}route.v3.RouteConfiguration`, ...route_config },
    last_updated: config.loadedAt,
  }));
  const secrets = listOf(resources.secrets).filter((s) => isWanted(s.name, named));
  return [
    { "@type": `${ADMIN}BootstrapConfigDump`, bootstrap, last_updated: config.loadedAt },
    {
      ...dump("ClustersConfigDump", "static_clusters", clusters, (cluster) => ({
        cluster: { "@type": `${CONFIG}cluster.v3.Cluster`, ...cluster },
        last_updated: updated,
      })),
      ...madeClusters(
        status.filter(({ name }) => isWanted(name, named)),
        listOf(resources.clusters),
      ),
    },
    dump("ListenersConfigDump", "static_listeners", listeners, (listener) => ({
      listener: { "@type": `${CONFIG}listener.v3.Listener`, ...listener },
      last_updated: config.loadedAt,
    })),
    ...(hasManager ? [scopeDump, routeDump] : []),
    dump("SecretsConfigDump", "static_secrets", secrets, (secret) => ({
      name: secret.name,
      secret: {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        ...secret,
      },
    })),
  ];
}

/** Clusters that were made while the proxy serves: like the one that has made them, but for some fields. */
function madeClusters(status: readonly ClusterStatus[], configs: readonly Json[]): Json {
  const lists: Record<string, Json[]> = {};
  for (const { name, made } of byName(status, (cluster) => cluster.name)) {
    if (made === undefined) continue;
    const parent = configs.find((config) => config.name === made.parent) ?? {};
    const { name: _, cluster_type, lb_policy, ...inherited } = parent;
    const { type, lb_policy: policy, ...fields } = made.fields;
    const cluster = {
      "@type": `${CONFIG}cluster.v3.Cluster`,
      name,
      type,
      ...(policy !== "ROUND_ROBIN" && { lb_policy: policy }),
      ...inherited,
      ...fields,
      // Envoy fills them in before it hands its config on.
      upstream_http_protocol_options: parent.upstream_http_protocol_options ?? {
        auto_sni: true,
        auto_san_validation: true,
      },
    };
    const list = made.warming ? "dynamic_warming_clusters" : "dynamic_active_clusters";
    lists[list] ??= [];
    lists[list].push({ cluster, last_updated: made.at });
  }
  return lists;
}

/** Protobuf's JSON has no key for an empty list. */
function dump(
  message: string,
  field: string,
  list: readonly Json[],
  entry: (item: Json) => Json,
): Json {
  const type = { "@type": ADMIN + message };
  return list.length === 0 ? type : { ...type, [field]: list.map(entry) };
}

function byName<T>(list: readonly T[], nameOf: (item: T) => unknown): T[] {
  const key = (item: T): string => String(nameOf(item));
  return list.toSorted((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
}

function listOf(value: unknown): readonly Json[] {
  return Array.isArray(value) ? (value as readonly Json[]) : [];
}

function isWanted(name: unknown, named: Matcher | undefined): boolean {
  return named === undefined || named(typeof name === "string" ? name : "");
}

/** Collects a field of all connection managers in listeners, however deep they are nested. */
function inManagers(value: unknown, field: "route_config" | "scoped_routes"): readonly Json[] {
  if (Array.isArray(value)) return value.flatMap((item) => inManagers(item, field));
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) =>
    key === field && typeof inner === "object" && inner !== null
      ? [inner as Json]
      : inManagers(inner, field),
  );
}

function scopedConfigs(scoped: Json): readonly Json[] {
  const list = scoped.scoped_route_configurations_list as Json | undefined;
  return listOf(list?.scoped_route_configurations);
}

/** Hosts as ClusterLoadAssignments, an endpoint group for each locality and priority. */
function endpoints(core: CoreData, named: Matcher | undefined): Json {
  const wanted = byName(
    core.clusters.clusters.filter(
      ({ name, made }) => isWanted(name, named) && made?.warming !== true,
    ),
    (cluster) => cluster.name,
  );
  const assignmentOf = (cluster: ClusterStatus): Json => {
    const groups = new Map<string, EndpointGroup>();
    for (const host of cluster.hosts) {
      const locality = localityJson(host);
      const key = JSON.stringify([locality, host.priority]);
      const { priority, localityWeight = 0 } = host;
      const group = groups.get(key) ?? { locality, priority, localityWeight, lb_endpoints: [] };
      groups.set(key, group);
      group.lb_endpoints.push({
        endpoint: {
          address: addressJson(host),
          health_check_config: {},
          ...(host.hostname !== "" && { hostname: host.hostname }),
        },
        health_status: coarseHealthOf(host),
        ...(host.metadata !== undefined && { metadata: host.metadata }),
        load_balancing_weight: host.weight,
      });
    }
    const assignment = {
      "@type": `${CONFIG}endpoint.v3.ClusterLoadAssignment`,
      cluster_name: cluster.name,
      ...(groups.size > 0 && { endpoints: [...groups.values()].map(groupJson) }),
      policy: cluster.policy,
    };
    return { endpoint_config: assignment };
  };
  const isMade = ({ made }: ClusterStatus): boolean => made !== undefined;
  const fixed = wanted.filter((cluster) => !isMade(cluster));
  return {
    ...dump("EndpointsConfigDump", "static_endpoint_configs", fixed.map(assignmentOf), same),
    ...dump(
      "EndpointsConfigDump",
      "dynamic_endpoint_configs",
      wanted.filter(isMade).map(assignmentOf),
      same,
    ),
  };
}

const same = (entry: Json): Json => entry;

interface EndpointGroup {
  readonly locality: Json;
  readonly priority: number;
  readonly localityWeight: number;
  readonly lb_endpoints: Json[];
}

function groupJson({ priority, localityWeight, ...group }: EndpointGroup): Json {
  return {
    ...group,
    load_balancing_weight: localityWeight,
    ...(priority !== 0 && { priority }),
  };
}

/** The health that follows from all flags of a host. */
function coarseHealthOf({ healthFlags, healthStatus }: HostStatus): string {
  if (healthStatus === "DRAINING" || healthFlags.includes("/failed_")) return "UNHEALTHY";
  return healthFlags.includes("/degraded_") ? "DEGRADED" : "HEALTHY";
}

/** Fields that Envoy marks as sensitive: every string below them is blanked. */
const SENSITIVE = new Set([
  "private_key",
  "private_key_provider",
  "pkcs12",
  "password",
  "session_ticket_keys",
  "generic_secret",
  "auth_password",
  "auth_username",
]);

function redacted(value: unknown, sensitive = false): unknown {
  if (Array.isArray(value)) return value.map((item) => redacted(item, sensitive));
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(
      Object.entries(value).map(([key, inner]) => [
        key,
        redacted(inner, sensitive || SENSITIVE.has(key)),
      ]),
    );
  }
  return sensitive && typeof value === "string" ? "[redacted]" : value;
}
