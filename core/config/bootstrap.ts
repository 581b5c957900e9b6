import { type Static, Type } from "@sinclair/typebox";
import { Duration } from "@tsproxy/sdk";
import { type StatsConfig, StatsConfigSchema, StatsFlushInterval } from "../admin/stats-config.ts";
import type { PackageInfo, RuntimeConfig } from "../protocol.ts";
import type { Report } from "./diagnostic.ts";
import { ListNode, MapNode } from "./document.ts";
import { INTERNAL_LISTENERS, Listener, listenerConfigs } from "./listeners.ts";
import type { Maker } from "./maker.ts";
import { checkOutputFile, checkWatchedLink } from "./named-paths.ts";
import type { Schema } from "./schema.ts";

// The fields of Envoy's Bootstrap that core itself implements; those of listeners are in listeners.ts and filter-chains.ts.
// Fields that no schema lists are reported to the user.

const NodeSchema = Type.Object({
  id: Type.Optional(Type.String()),
  cluster: Type.Optional(Type.String()),
  /** Used by control planes, the config dump, and expressions (`xds.node.metadata`). */
  metadata: Type.Optional(Type.Unknown()),
  locality: Type.Optional(
    Type.Object({
      region: Type.Optional(Type.String()),
      zone: Type.Optional(Type.String()),
      sub_zone: Type.Optional(Type.String()),
    }),
  ),
  user_agent_name: Type.Optional(Type.Unknown()),
  user_agent_version: Type.Optional(Type.Unknown()),
});

const LayeredRuntime = Type.Object({
  layers: Type.Optional(
    Type.Array(
      Type.Object({
        name: Type.String({ minLength: 1 }),
        static_layer: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
        disk_layer: Type.Optional(
          Type.Object({
            symlink_root: Type.String({ default: "" }),
            subdirectory: Type.String({ default: "" }),
            append_service_cluster: Type.Boolean({ default: false }),
          }),
        ),
        admin_layer: Type.Optional(Type.Object({})),
      }),
    ),
  ),
});

/** A bootstrap extension. Only the one that `internalBuffer` reads is implemented. */
const BootstrapExtension = Type.Object({
  name: Type.Optional(Type.String()),
  typed_config: Type.Optional(Type.Unknown()),
});
type BootstrapExtension = Static<typeof BootstrapExtension>;

/** Only the resource monitor that `maxConnections` reads is implemented. */
const OverloadManager = Type.Object({
  // How often other monitors look at their resource. That one counts each connection as it comes.
  refresh_interval: Type.Optional(Duration()),
  resource_monitors: Type.Optional(
    Type.Array(
      Type.Object({
        name: Type.Optional(Type.String()),
        typed_config: Type.Optional(Type.Unknown()),
      }),
    ),
  ),
});
type ResourceMonitors = NonNullable<Static<typeof OverloadManager>["resource_monitors"]>;

const schemas = new Map<string, Schema>();

/**
 * The bootstrap's schema: core's own fields, and the sections that services own. The same services get the same object, since
 * what `check` prepares of a schema is kept by object.
 */
export function bootstrapSchema(packages: readonly PackageInfo[]): Schema {
  const key = JSON.stringify(services(packages).map((p) => [p.package, p.section]));
  let schema = schemas.get(key);
  if (schema === undefined) schemas.set(key, (schema = withSections(packages)));
  return schema;
}

function withSections(packages: readonly PackageInfo[]): Schema {
  const own = Type.Object({
    node: Type.Optional(NodeSchema),
    static_resources: Type.Optional(
      Type.Object({ listeners: Type.Optional(Type.Array(Listener)) }),
    ),
    cluster_manager: Type.Optional(
      Type.Object({
        local_cluster_name: Type.Optional(Type.String()),
        // The loader has copied its one field to the clusters.
        outlier_detection: Type.Optional(Type.Object({})),
      }),
    ),
    layered_runtime: Type.Optional(LayeredRuntime),
    stats_config: Type.Optional(StatsConfigSchema),
    stats_flush_interval: StatsFlushInterval,
    stats_server_version_override: Type.Optional(Type.Number()),
    bootstrap_extensions: Type.Optional(Type.Array(BootstrapExtension)),
    overload_manager: Type.Optional(OverloadManager),
  });
  const schema = structuredClone(own) as unknown as MutableSchema;
  for (const service of services(packages)) {
    let at = schema;
    const parts = service.section!.split(".");
    for (const part of parts.slice(0, -1))
      at = at.properties[part] ??= { type: "object", properties: {} };
    at.properties[parts.at(-1)!] = { section: service.package } as unknown as MutableSchema;
  }
  return schema as unknown as Schema;
}

interface MutableSchema {
  readonly type: string;
  readonly properties: Record<string, MutableSchema>;
}

function services(packages: readonly PackageInfo[]): PackageInfo[] {
  return packages.filter((p) => p.kind === "service" && isSection(p.section));
}
function isSection(section: string | undefined | null): section is string {
  return typeof section === "string" && section !== "";
}

const CLUSTERS = "static_resources.clusters";

/** Turns the checked bootstrap into what workers run. */
export function runtimeConfig(value: unknown, root: MapNode, maker: Maker): RuntimeConfig {
  const bootstrap = (value ?? {}) as {
    readonly node?: Static<typeof NodeSchema>;
    readonly cluster_manager?: { readonly local_cluster_name?: string };
    readonly layered_runtime?: Static<typeof LayeredRuntime>;
    readonly stats_config?: StatsConfig;
    readonly stats_flush_interval?: number;
    readonly stats_server_version_override?: number;
    readonly bootstrap_extensions?: readonly (BootstrapExtension | undefined)[];
    readonly overload_manager?: Static<typeof OverloadManager>;
    readonly static_resources?: { readonly listeners?: readonly (Listener | undefined)[] };
  };
  const listeners = listenerConfigs(bootstrap.static_resources?.listeners ?? [], maker, {
    internalBufferBytes: internalBuffer(bootstrap.bootstrap_extensions ?? [], maker),
    maxConnections: maxConnections(bootstrap.overload_manager?.resource_monitors ?? [], maker),
  });
  return {
    listeners,
    services: serviceConfigs(value, root, maker),
    node: nodeOf(bootstrap.node, bootstrap.cluster_manager?.local_cluster_name),
    runtime: bootstrap.layered_runtime?.layers ?? [],
    stats: bootstrap.stats_config,
    statsFlushMs: bootstrap.stats_flush_interval,
    statsVersion: bootstrap.stats_server_version_override,
  };
}

const INTERNAL_BUFFER_KB = 1024;

/**
 * Bytes that may wait in a connection to an internal listener. Undefined: the bootstrap extension that internal listeners need is
 * absent.
 */
function internalBuffer(
  extensions: readonly (BootstrapExtension | undefined)[],
  maker: Maker,
): number | undefined {
  let bytes: number | undefined;
  for (const extension of extensions) {
    const node = extension && maker.origin.get(extension);
    if (node?.kind !== "map") continue;
    const config = typedConfig(node, INTERNAL_LISTENERS, maker);
    if (config === undefined) continue;
    const size = config.get("buffer_size_kb");
    bytes = 1024 * (size?.kind === "scalar" ? Number(size.value) : INTERNAL_BUFFER_KB);
  }
  return bytes;
}

const MAX_CONNECTIONS =
  "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig";

/** How many connections all listeners together may have. Undefined: no monitor limits them. */
function maxConnections(
  monitors: readonly (ResourceMonitors[number] | undefined)[],
  maker: Maker,
): number | undefined {
  let most: number | undefined;
  for (const monitor of monitors) {
    const node = monitor && maker.origin.get(monitor);
    if (node?.kind !== "map") continue;
    const value = typedConfig(node, MAX_CONNECTIONS, maker)?.get(
      "max_active_downstream_connections",
    );
    if (value?.kind === "scalar") most = Number(value.value);
  }
  return most;
}

/** The config of an extension, if it is of that type; any other type is reported as not implemented. */
function typedConfig(node: MapNode, type: string, maker: Maker): MapNode | undefined {
  const config = node.map("typed_config");
  if (config?.string("@type")?.endsWith(`/${type}`) === true) return config;
  maker.report.unimplemented(node.place, "known to Envoy, not implemented here");
  return undefined;
}

function nodeOf(
  { id = "", cluster = "", locality, metadata }: Partial<Static<typeof NodeSchema>> = {},
  localCluster = "",
): RuntimeConfig["node"] {
  return {
    id,
    cluster,
    ...(locality !== undefined && { locality }),
    ...(metadata !== undefined && { metadata }),
    ...(localCluster !== "" && { localCluster }),
  };
}

function serviceConfigs(value: unknown, root: MapNode, maker: Maker): RuntimeConfig["services"] {
  const found: (RuntimeConfig["services"][number] & { readonly rank: number })[] = [];
  for (const service of maker.registry.packages) {
    if (service.kind !== "service") continue;
    const schema = service.schema as Schema;
    const rank = service.section === CLUSTERS ? 0 : 1;
    let config: unknown;
    if (isSection(service.section)) {
      config = service.section.split(".").reduce<unknown>(at, value);
      // A section that is absent: if it is a list, it counts as empty; if it is a map, the service is not wanted.
      if (config === undefined && schema.type === "array")
        config = maker.part(schema, new ListNode(root.place));
    } else config = maker.part(schema, new MapNode(root.place));
    if (config !== undefined)
      found.push({ package: service.package, config, rank, runs: service.runs });
  }
  found.sort((a, b) => a.rank - b.rank || (a.package < b.package ? -1 : 1));
  return found.map(({ rank: _, ...service }) => service);
}

function at(value: unknown, key: string): unknown {
  return (value as Record<string, unknown> | undefined)?.[key];
}

/** Reports what Envoy itself refuses in a bootstrap, apart from all packages: runtime layers, the log of ejections, the local cluster. */
export function checkBootstrap(root: MapNode, report: Report): void {
  const seen = new Set<string>();
  let hasAdmin = false;
  for (const layer of root.map("layered_runtime")?.list("layers") ?? []) {
    if (layer.kind !== "map") continue;
    const name = layer.string("name");
    if (name !== undefined && seen.has(name))
      report.error(layer.get("name")!.place, `duplicate runtime layer name "${name}"`);
    if (name !== undefined) seen.add(name);
    const admin = layer.get("admin_layer");
    if (admin !== undefined && hasAdmin)
      report.error(admin.place, "a second admin layer; at most one may be specified");
    hasAdmin ||= admin !== undefined;
    const link = layer.map("disk_layer")?.get("symlink_root");
    if (link?.kind === "scalar") checkWatchedLink(link, report);
    const values = layer.map("static_layer");
    if (values !== undefined) checkRuntime(values, report);
  }
  const ejections = root.map("cluster_manager")?.map("outlier_detection")?.get("event_log_path");
  if (ejections?.kind === "scalar") checkOutputFile(ejections, report);
  checkLocalCluster(root, report);
}

function checkLocalCluster(root: MapNode, report: Report): void {
  const manager = root.map("cluster_manager");
  const local = manager?.string("local_cluster_name") ?? "";
  const clusters = root.map("static_resources")?.list("clusters") ?? [];
  if (local === "" || clusters.some((c) => c.kind === "map" && c.string("name") === local)) return;
  const { place } = manager!.get("local_cluster_name")!;
  report.error(place, `local cluster "${local}" must be defined`, "add it to static_resources");
}

/** As in Envoy, what a map says that is a FractionalPercent by its fields is not looked at: it may be none, and counts for nothing then. */
function checkRuntime(values: MapNode, report: Report): void {
  if (values.get("numerator") !== undefined || values.get("denominator") !== undefined) return;
  for (const [key, entry] of values.entries) {
    if (entry.value.kind === "map") checkRuntime(entry.value, report);
    else if (entry.value.kind === "list" || entry.value.value === undefined)
      report.error(
        entry.value.place,
        `"${key}" is no runtime value`,
        "write a number, a string, true or false, or a map",
      );
  }
}
