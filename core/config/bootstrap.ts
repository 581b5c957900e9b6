import { isIPv4, isIPv6 } from "node:net";
import { type Static, Type } from "@sinclair/typebox";
import {
  AccessLogList,
  Duration,
  Enum,
  Extension,
  type ExtensionRef,
  internalAddress,
  keepAliveOf,
  TcpKeepalive,
  UInt32,
} from "@tsproxy/sdk";
import type {
  AddressConfig,
  CidrConfig,
  FilterChainConfig,
  FilterChainMatchConfig,
  ListenerConfig,
  ListenerFilterRef,
  PackageInfo,
  RuntimeConfig,
} from "../protocol.ts";
import { type StatsConfig, StatsConfigSchema, StatsFlushInterval } from "../stats-config.ts";
import type { Place, Report } from "./diagnostic.ts";
import { ListNode, MapNode, type Node } from "./document.ts";
import type { Registry } from "./registry.ts";
import type { Schema } from "./schema.ts";

// The fields of Envoy's Bootstrap and Listener that core itself implements. Fields that no schema lists are reported to the user.

const Address = Type.Object({
  socket_address: Type.Optional(
    Type.Object({
      protocol: Enum(["TCP", "UDP"], { default: "TCP" }),
      address: Type.String({ minLength: 1 }),
      port_value: UInt32({ maximum: 65535 }),
      ipv4_compat: Type.Optional(Type.Boolean()),
    }),
  ),
  pipe: Type.Optional(
    Type.Object({
      path: Type.String({ minLength: 1 }),
      mode: UInt32({ default: 0, maximum: 511 }),
    }),
  ),
  // Refused, with the advice to write internal_listener instead.
  envoy_internal_address: Type.Optional(Type.Unknown()),
});

const CidrRange = Type.Object({
  address_prefix: Type.String({ minLength: 1 }),
  prefix_len: UInt32({ default: 0, maximum: 128 }),
});

const FilterChainMatch = Type.Object({
  destination_port: Type.Optional(UInt32({ minimum: 1, maximum: 65535 })),
  prefix_ranges: Type.Optional(Type.Array(CidrRange)),
  server_names: Type.Optional(Type.Array(Type.String())),
  transport_protocol: Type.Optional(Type.String()),
  application_protocols: Type.Optional(Type.Array(Type.String())),
  direct_source_prefix_ranges: Type.Optional(Type.Array(CidrRange)),
  source_type: Type.Optional(Enum(["ANY", "SAME_IP_OR_LOOPBACK", "EXTERNAL"])),
  source_prefix_ranges: Type.Optional(Type.Array(CidrRange)),
  source_ports: Type.Optional(Type.Array(UInt32({ minimum: 1, maximum: 65535 }))),
});

/** Envoy's core.v3.Metadata; access logs can print it. */
const Metadata = Type.Optional(
  Type.Object({
    filter_metadata: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
    typed_filter_metadata: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  }),
);

const FilterChain = Type.Object({
  name: Type.Optional(Type.String()),
  filter_chain_match: Type.Optional(FilterChainMatch),
  transport_socket: Type.Optional(Extension("transport")),
  transport_socket_connect_timeout: Type.Optional(Duration()),
  filters: Type.Optional(Type.Array(Extension("network"))),
  metadata: Metadata,
});
type FilterChain = Static<typeof FilterChain>;

const ListenerPredicate = Type.Recursive((This) => {
  const Rules = Type.Object({ rules: Type.Array(This, { minItems: 2 }) });
  return Type.Object({
    any_match: Type.Optional(Type.Boolean()),
    destination_port_range: Type.Optional(
      Type.Object({ start: UInt32({ default: 0 }), end: UInt32({ default: 0 }) }),
    ),
    not_match: Type.Optional(This),
    or_match: Type.Optional(Rules),
    and_match: Type.Optional(Rules),
  });
});

export const Listener = Type.Object({
  name: Type.Optional(Type.String()),
  stat_prefix: Type.Optional(Type.String()),
  address: Type.Optional(Address),
  filter_chains: Type.Optional(Type.Array(FilterChain)),
  default_filter_chain: Type.Optional(FilterChain),
  additional_addresses: Type.Optional(Type.Array(Type.Object({ address: Address }))),
  /** An internal listener: it has no socket, and clusters of this proxy connect to it by its name. */
  internal_listener: Type.Optional(Type.Object({})),
  bind_to_port: Type.Boolean({ default: true }),
  use_original_dst: Type.Optional(Type.Boolean()),
  ignore_global_conn_limit: Type.Optional(Type.Boolean()),
  listener_filters: Type.Optional(
    Type.Array(
      Extension("listener", { fields: { filter_disabled: Type.Optional(ListenerPredicate) } }),
    ),
  ),
  access_log: AccessLogList(),
  /** Shown in access logs (%METADATA(LISTENER:…)%). */
  metadata: Metadata,
  listener_filters_timeout: Duration({ default: 15_000 }),
  continue_on_listener_filters_timeout: Type.Boolean({ default: false }),
  per_connection_buffer_limit_bytes: UInt32({ default: 1_048_576 }),
  udp_listener_config: Type.Optional(
    Type.Object({
      downstream_socket_config: Type.Optional(
        Type.Object({
          max_rx_datagram_size: Type.Optional(UInt32({ minimum: 1, maximum: 65_535 })),
          // Accepted without effect: Node always reads one datagram at a time.
          prefer_gro: Type.Optional(Type.Boolean()),
        }),
      ),
    }),
  ),
  // Accepted without effect: every worker always has a listening socket of its own.
  enable_reuse_port: Type.Optional(Type.Boolean()),
  reuse_port: Type.Optional(Type.Boolean()),
  // The kernel lowers it to somaxconn, which is Envoy's default on Linux.
  tcp_backlog_size: UInt32({ default: 4096, maximum: 65535 }),
  tcp_keepalive: Type.Optional(TcpKeepalive),
  drain_type: Enum(["DEFAULT", "MODIFY_ONLY"], { default: "DEFAULT" }),
  traffic_direction: Enum(["UNSPECIFIED", "INBOUND", "OUTBOUND"], { default: "UNSPECIFIED" }),
});
type Listener = Static<typeof Listener>;

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

/** Which of these extensions is implemented: see `internalBuffer`. */
const BootstrapExtension = Type.Object({
  name: Type.Optional(Type.String()),
  typed_config: Type.Optional(Type.Unknown()),
});
type BootstrapExtension = Static<typeof BootstrapExtension>;

/** Which of its monitors is implemented: see `maxConnections`. */
const OverloadManager = Type.Object({
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

/** Limits in the bootstrap that concern all listeners. */
interface ProcessLimits {
  readonly internalBufferBytes?: number | undefined;
  readonly maxConnections?: number | undefined;
}

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

/** What is needed to turn checked values into a RuntimeConfig. */
export interface Maker {
  readonly report: Report;
  readonly registry: Registry;
  /** Builds what a schema makes of a node that the user has not written. */
  readonly part: (schema: Schema, node: Node) => unknown;
  /** The node that each built object came from. */
  readonly origin: Map<object, Node>;
  /** Answers `file:line:column`. */
  readonly source: (place: Place) => string;
}

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

const INTERNAL_LISTENERS = "envoy.extensions.bootstrap.internal_listener.v3.InternalListener";
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

/** Turns checked listeners into ListenerConfigs. Errors are reported; a listener without a usable address is left out. */
export function listenerConfigs(
  listeners: readonly (Listener | undefined)[],
  maker: Maker,
  process: ProcessLimits = {},
): ListenerConfig[] {
  const made: ListenerConfig[] = [];
  const byAddress = new Map<string, string>();
  const names = new Set<string>();
  for (const listener of listeners) {
    const config = listener && listenerConfig(listener, maker, process);
    if (listener === undefined || config === undefined) continue;
    const key = `${config.address.udp === true ? "udp " : ""}${addressText(config.address)}`;
    const other = byAddress.get(key);
    const place = placeOf(maker, listener, "address");
    if (other !== undefined && config.address.port !== 0)
      maker.report.error(place, `${key} is the address of listener "${other}" already`);
    byAddress.set(key, config.name);
    let name = config.name;
    for (let n = 2; names.has(name); n++) name = `${config.name}#${n}`;
    if (name !== config.name && listener.name !== undefined)
      maker.report.warn(
        placeOf(maker, listener, "name"),
        `there is a listener "${config.name}" already`,
        `this one is called "${name}" in logs`,
      );
    names.add(name);
    const renamed = { ...config, name };
    maker.origin.set(renamed, maker.origin.get(listener)!);
    made.push(renamed);
  }
  return made;
}

function listenerConfig(
  listener: Listener,
  maker: Maker,
  process: ProcessLimits,
): ListenerConfig | undefined {
  const { report } = maker;
  const node = maker.origin.get(listener)!;
  const chains = (listener.filter_chains ?? []).filter((c) => c !== undefined);
  const name = listener.name ?? "";
  const internal = internalListener(listener, maker, process.internalBufferBytes);
  if (internal === undefined && listener.address === undefined) {
    if (!written(node, "address") && listener.internal_listener === undefined)
      report.error(node.place, named(name, "has no address"));
    return undefined;
  }
  const udp = listener.address?.socket_address?.protocol === "UDP";
  if (
    !udp &&
    chains.length === 0 &&
    listener.default_filter_chain === undefined &&
    !written(node, "filter_chains")
  )
    report.error(node.place, named(name, "has no filter_chains"));
  const address = internal?.address ?? addressConfig(listener.address!, maker);
  if (address === undefined) return undefined;
  const text = addressText(address);
  const filterChains = chains.map((chain) => chainConfig(chain, maker));
  checkMatches(chains, filterChains, maker);
  const fallback = listener.default_filter_chain;
  const accessLog = listener.access_log.filter((log) => log !== undefined);
  const additional = (listener.additional_addresses ?? []).flatMap(
    (more) => (more && addressConfig(more.address, maker)) ?? [],
  );
  const listenerFilters = withTlsInspector(
    (listener.listener_filters ?? []).filter((f) => f !== undefined),
    listener,
    maker,
  );
  if (udp && chains.length > 0)
    report.error(
      placeOf(maker, listener, "filter_chains"),
      "a UDP listener has no filter chains",
      "its filter stands in listener_filters",
    );
  if (udp && listenerFilters.length !== 1)
    report.error(node.place, named(name, "needs one UDP filter in listener_filters"));
  for (const filter of listenerFilters)
    if (filter.package.startsWith("udp/") !== udp)
      report.error(
        maker.origin.get(filter)!.place,
        udp ? `"${filter.name}" is no UDP filter` : `"${filter.name}" wants a UDP listener`,
      );
  const keepAlive = keepAliveOf(listener.tcp_keepalive);
  return {
    name: name === "" ? text : name,
    statPrefix:
      listener.stat_prefix ||
      (internal === undefined ? text.replaceAll(":", "_") : `envoy_internal_${name}`),
    address,
    ...(additional.length > 0 && { additionalAddresses: additional }),
    ...((!listener.bind_to_port || internal !== undefined) && { bindToPort: false }),
    ...(internal !== undefined && { internalBufferBytes: internal.bufferBytes }),
    ...(listener.use_original_dst === true && { useOriginalDst: true }),
    ...(listener.ignore_global_conn_limit === true && { ignoreGlobalConnectionLimit: true }),
    ...(process.maxConnections !== undefined && { globalConnectionLimit: process.maxConnections }),
    direction: listener.traffic_direction,
    ...(listener.drain_type === "MODIFY_ONLY" && { drainType: listener.drain_type }),
    listenerFilters,
    ...(accessLog.length > 0 && { accessLog }),
    ...(listener.metadata !== undefined && { metadata: listener.metadata }),
    listenerFiltersTimeoutMs: listener.listener_filters_timeout,
    continueOnListenerFiltersTimeout: listener.continue_on_listener_filters_timeout,
    filterChains,
    defaultFilterChain: fallback === undefined ? undefined : chainConfig(fallback, maker),
    perConnectionBufferLimitBytes: listener.per_connection_buffer_limit_bytes,
    backlog: listener.tcp_backlog_size,
    ...(keepAlive !== undefined && { keepAlive }),
    ...(udp && {
      maxDatagramBytes:
        listener.udp_listener_config?.downstream_socket_config?.max_rx_datagram_size ?? 1500,
    }),
    source: maker.source(node.place),
  };
}

/** Fields of a listener that need a socket. */
const TCP_ONLY = [
  "enable_mptcp",
  "enable_reuse_port",
  "freebind",
  "tcp_backlog_size",
  "tcp_fast_open_queue_length",
  "tcp_keepalive",
  "transparent",
  "socket_options",
];

/** Checks an internal listener; answers its address and buffer size. Undefined: the listener is none. */
function internalListener(
  listener: Listener,
  maker: Maker,
  bufferBytes: number | undefined,
): { readonly address: AddressConfig; readonly bufferBytes: number } | undefined {
  const { report } = maker;
  const { name = "" } = listener;
  const node = maker.origin.get(listener)!;
  if (listener.internal_listener === undefined) {
    if (listener.address?.envoy_internal_address !== undefined)
      report.error(
        placeOf(maker, listener, "address"),
        named(name, "has an internal address"),
        "write internal_listener: {} in the place of the address",
      );
    return undefined;
  }
  const place = placeOf(maker, listener, "internal_listener");
  if (listener.address !== undefined)
    report.error(
      placeOf(maker, listener, "address"),
      named(name, "is internal and has an address"),
      "leave out address, or internal_listener",
    );
  if (name === "")
    report.error(place, "an internal listener needs a name", "clusters connect to it by its name");
  for (const field of TCP_ONLY)
    if (written(node, field))
      report.error(placeOf(maker, listener, field), `an internal listener has no socket: ${field}`);
  if (bufferBytes === undefined)
    report.error(
      place,
      "internal listeners want a bootstrap extension",
      `add bootstrap_extensions: [{ name: envoy.bootstrap.internal_listener, typed_config: { "@type": type.googleapis.com/${INTERNAL_LISTENERS} } }]`,
    );
  return { address: internalAddress(name), bufferBytes: bufferBytes ?? 0 };
}

const TLS_INSPECTOR = "listener/tls_inspector";

/** Adds the TLS inspector if a filter chain match needs what is in the ClientHello, as Envoy does. */
function withTlsInspector(
  filters: readonly ListenerFilterRef[],
  listener: Listener,
  maker: Maker,
): readonly ListenerFilterRef[] {
  const asking = (listener.filter_chains ?? []).find((chain) => {
    const {
      transport_protocol: transport = "",
      server_names = [],
      application_protocols = [],
    } = chain?.filter_chain_match ?? {};
    const asks = server_names.length > 0 || application_protocols.length > 0;
    return transport === "tls" || (transport === "" && asks);
  });
  const found = maker.registry.packages.find((p) => p.package === TLS_INSPECTOR);
  const looks = ({ package: name }: ListenerFilterRef) => name === TLS_INSPECTOR;
  if (asking === undefined || found === undefined || filters.some(looks)) return filters;
  const place = placeOf(maker, asking, "filter_chain_match");
  maker.report.warn(
    place,
    "this match needs tls_inspector among the listener_filters",
    "it is put there now",
  );
  const config = maker.part(found.schema as Schema, new MapNode(place)) ?? {};
  const filter = { name: found.name, package: found.package, config };
  maker.origin.set(filter, new MapNode(place));
  return [...filters, filter];
}

function named(name: string, what: string): string {
  return name === "" ? `the listener ${what}` : `listener "${name}" ${what}`;
}

/** True if the user wrote that field, even if its value was refused. */
function written(node: Node, key: string): boolean {
  return node.kind === "map" && node.list(key).length > 0;
}

function placeOf(maker: Maker, value: object, key: string): Place {
  const node = maker.origin.get(value)!;
  return (node.kind === "map" ? node.get(key)?.place : undefined) ?? node.place;
}

// sockaddr_un holds 108 bytes, the last of which ends the path.
const MAX_PIPE_PATH = 107;

function addressConfig(address: Static<typeof Address>, maker: Maker): AddressConfig | undefined {
  const { pipe, socket_address: socket } = address;
  if (pipe?.path !== undefined) {
    const mode = pipe.mode > 0 ? { mode: pipe.mode } : {};
    if (Buffer.byteLength(pipe.path) <= MAX_PIPE_PATH)
      return { ip: "", port: 0, path: pipe.path, ...mode };
    const place = placeOf(maker, pipe, "path");
    maker.report.error(place, `the path has more than ${MAX_PIPE_PATH} bytes`);
    return undefined;
  }
  if (socket === undefined || socket.address === undefined || socket.port_value === undefined)
    return undefined;
  if (!isIPv4(socket.address) && !isIPv6(socket.address)) {
    const place = placeOf(maker, socket, "address");
    const help = "listeners take an IP address; names are not resolved";
    maker.report.error(place, `malformed IP address: ${socket.address}`, help);
    return undefined;
  }
  const config: AddressConfig = {
    ip: socket.address,
    port: socket.port_value,
    ...(socket.protocol === "UDP" && { udp: true }),
  };
  return socket.ipv4_compat === true ? { ...config, ipv4Compat: true } : config;
}

function addressText({ ip, port, path }: AddressConfig): string {
  if (path !== undefined) return path;
  return ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`;
}

function chainConfig(chain: FilterChain, maker: Maker): FilterChainConfig {
  const match: FilterChainMatchConfig = chain.filter_chain_match ?? {};
  checkCriteria(match, maker);
  const filters = (chain.filters ?? []).filter((f): f is ExtensionRef => f !== undefined);
  const config = {
    name: chain.name ?? "",
    match,
    ...(chain.transport_socket !== undefined && { transport: chain.transport_socket }),
    ...(chain.transport_socket_connect_timeout !== undefined && {
      transportTimeoutMs: chain.transport_socket_connect_timeout,
    }),
    ...(chain.metadata !== undefined && { metadata: chain.metadata }),
    filters,
  };
  maker.origin.set(config, maker.origin.get(chain)!);
  maker.origin.set(filters, maker.origin.get(chain.filters ?? chain)!);
  return config;
}

function checkCriteria(match: FilterChainMatchConfig, maker: Maker): void {
  const { report } = maker;
  const ranges = [
    ...(match.prefix_ranges ?? []),
    ...(match.direct_source_prefix_ranges ?? []),
    ...(match.source_prefix_ranges ?? []),
  ];
  for (const range of ranges) {
    if (range?.address_prefix === undefined) continue;
    const place = placeOf(maker, range, "address_prefix");
    const v4 = isIPv4(range.address_prefix);
    if (!v4 && !isIPv6(range.address_prefix))
      report.error(place, `malformed IP address: ${range.address_prefix}`);
    else if (v4 && range.prefix_len > 32)
      report.error(placeOf(maker, range, "prefix_len"), `${range.prefix_len} is more than 32`);
  }
  for (const [i, name] of (match.server_names ?? []).entries()) {
    const list = maker.origin.get(match.server_names!);
    const place =
      (list?.kind === "list" ? list.items[i]?.place : undefined) ??
      placeOf(maker, match, "server_names");
    if (name === "*")
      report.error(place, '"*" is not a server name', "leave server_names out to match every name");
    else if (name.replace(/^\*\./, "").includes("*"))
      report.error(
        place,
        `partial wildcard "${name}"`,
        'a wildcard is a whole first label: "*.example.com"',
      );
  }
}

// Matches are compared by all combinations of their values. One with more combinations is not compared.
const MAX_COMBINATIONS = 50_000;

/** Reports filter chains that claim the same connection by equal criteria: Envoy's tree has one place for each. */
function checkMatches(
  chains: readonly FilterChain[],
  configs: readonly FilterChainConfig[],
  maker: Maker,
): void {
  const owners = new Map<string, number>();
  configs.forEach((config, i) => {
    const keys = combinations(config.match);
    const taken = keys.map((key) => owners.get(key)).find((owner) => owner !== undefined);
    for (const key of keys) owners.set(key, i);
    if (taken === undefined) return;
    const node = maker.origin.get(chains[i]!)!;
    const match = node.kind === "map" ? node.get("filter_chain_match") : undefined;
    const other =
      configs[taken]!.name === "" ? `filter_chains[${taken}]` : `"${configs[taken]!.name}"`;
    const same = JSON.stringify(config.match) === JSON.stringify(configs[taken]!.match);
    maker.report.error(
      (match ?? node).place,
      same
        ? `this filter chain has the same matching rules as ${other}`
        : `this filter chain's matching rules overlap with those of ${other}`,
    );
  });
}

function combinations(match: FilterChainMatchConfig): string[] {
  const cidr = (ranges: readonly CidrConfig[] | undefined) =>
    ranges?.map((r) => `${r.address_prefix}/${r.prefix_len}`);
  const source = match.source_type === "ANY" ? undefined : match.source_type;
  const criteria: readonly (readonly (string | number)[] | undefined)[] = [
    match.destination_port === undefined ? undefined : [match.destination_port],
    cidr(match.prefix_ranges),
    match.server_names,
    match.transport_protocol === undefined ? undefined : [match.transport_protocol],
    match.application_protocols,
    cidr(match.direct_source_prefix_ranges),
    source === undefined ? undefined : [source],
    cidr(match.source_prefix_ranges),
    match.source_ports,
  ];
  let keys = [""];
  for (const values of criteria) {
    const each = values === undefined || values.length === 0 ? [""] : [...new Set(values)];
    if (keys.length * each.length > MAX_COMBINATIONS) return [];
    keys = keys.flatMap((key) => each.map((value) => `${key}|${value}`));
  }
  return keys;
}

/** Reports what Envoy itself refuses in a bootstrap, apart from all packages: runtime layers, the local cluster. */
export function checkBootstrap(root: MapNode, report: Report): void {
  const seen = new Set<string>();
  for (const layer of root.map("layered_runtime")?.list("layers") ?? []) {
    if (layer.kind !== "map") continue;
    const name = layer.string("name");
    if (name !== undefined && seen.has(name))
      report.error(layer.get("name")!.place, `duplicate runtime layer name "${name}"`);
    if (name !== undefined) seen.add(name);
    const values = layer.map("static_layer");
    if (values !== undefined) checkRuntime(values, report);
  }
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

function checkRuntime(values: MapNode, report: Report): void {
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
