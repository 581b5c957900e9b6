import { isIPv4, isIPv6 } from "node:net";
import { type Static, Type } from "@sinclair/typebox";
import {
  AccessLogList,
  Duration,
  Enum,
  Extension,
  internalAddress,
  keepAliveOf,
  TcpKeepalive,
  UInt32,
} from "@tsproxy/sdk";
import type { AddressConfig, ListenerConfig, ListenerFilterRef } from "../protocol.ts";
import { chainConfig, checkMatches, FilterChain, Metadata } from "./filter-chains.ts";
import { type Maker, placeOf, written } from "./maker.ts";

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
      mode: Type.Integer({ default: 0, minimum: 0, maximum: 0o777, octal: true }),
    }),
  ),
  // Refused, with the advice to write internal_listener instead.
  envoy_internal_address: Type.Optional(Type.Unknown()),
});

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
  // Accepted without effect: every worker has a TCP listening socket of its own anyway.
  enable_reuse_port: Type.Optional(Type.Boolean()),
  reuse_port: Type.Optional(Type.Boolean()),
  // The kernel lowers the backlog to net.core.somaxconn, which is Envoy's default on Linux.
  tcp_backlog_size: UInt32({ default: 4096, maximum: 65535 }),
  tcp_keepalive: Type.Optional(TcpKeepalive),
  drain_type: Enum(["DEFAULT", "MODIFY_ONLY"], { default: "DEFAULT" }),
  traffic_direction: Enum(["UNSPECIFIED", "INBOUND", "OUTBOUND"], { default: "UNSPECIFIED" }),
});
export type Listener = Static<typeof Listener>;

/** Limits in the bootstrap that concern all listeners. */
export interface ProcessLimits {
  /** Bytes that may wait in a connection to an internal listener. Undefined: internal listeners are refused. */
  readonly internalBufferBytes?: number | undefined;
  /** How many connections all listeners together may have. Undefined: no limit. */
  readonly maxConnections?: number | undefined;
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
  const udp = isUdp(listener);
  checkChains(listener, maker);
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
  const listenerFilters = (listener.listener_filters ?? []).filter((f) => f !== undefined);
  checkTlsInspector(listenerFilters, listener, maker);
  checkFilters(listener, listenerFilters, maker);
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

const isUdp = (listener: Listener) => listener.address?.socket_address?.protocol === "UDP";

/** Reports a TCP listener without filter chains, and a UDP listener with some. */
function checkChains(listener: Listener, maker: Maker): void {
  const { name = "", filter_chains: chains = [], default_filter_chain: fallback } = listener;
  const node = maker.origin.get(listener)!;
  if (!isUdp(listener)) {
    if (chains.length === 0 && fallback === undefined && !written(node, "filter_chains"))
      maker.report.error(node.place, named(name, "has no filter_chains"));
  } else if (chains.some((chain) => chain !== undefined))
    maker.report.error(
      placeOf(maker, listener, "filter_chains"),
      "a UDP listener has no filter chains",
      "its filter stands in listener_filters",
    );
}

/** Reports UDP filters in a TCP listener and TCP filters in a UDP listener, which needs exactly one UDP filter. */
function checkFilters(
  listener: Listener,
  filters: readonly ListenerFilterRef[],
  { report, origin }: Maker,
): void {
  const { name = "" } = listener;
  const udp = isUdp(listener);
  if (udp && filters.length !== 1)
    report.error(
      origin.get(listener)!.place,
      named(name, "needs one UDP filter in listener_filters"),
    );
  for (const filter of filters)
    if (filter.package.startsWith("udp/") !== udp)
      report.error(
        origin.get(filter)!.place,
        udp ? `"${filter.name}" is no UDP filter` : `"${filter.name}" wants a UDP listener`,
      );
}

/** The bootstrap extension that internal listeners need. */
export const INTERNAL_LISTENERS =
  "envoy.extensions.bootstrap.internal_listener.v3.InternalListener";

/** Fields that configure a listener's socket: an internal listener must not have them. */
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

/** Checks an internal listener; answers its address and buffer size. Undefined: the listener is not an internal one. */
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
const HTTP_INSPECTOR = "listener/http_inspector";

/** Warns if a match needs the ClientHello and the listener has no filter that reads it: as in Envoy, it never matches. */
function checkTlsInspector(
  filters: readonly ListenerFilterRef[],
  listener: Listener,
  maker: Maker,
): void {
  const looks = (name: string) => filters.some((filter) => filter.package === name);
  if (looks(TLS_INSPECTOR)) return;
  const asking = (listener.filter_chains ?? []).find((chain) => {
    const {
      transport_protocol: transport,
      server_names: names = [],
      application_protocols: protocols = [],
    } = chain?.filter_chain_match ?? {};
    const asksProtocol = protocols.length > 0 && !looks(HTTP_INSPECTOR);
    return transport === "tls" || names.length > 0 || asksProtocol;
  });
  if (asking === undefined) return;
  maker.report.warn(
    placeOf(maker, asking, "filter_chain_match"),
    "this never matches, as nothing looks at the ClientHello",
    "add tls_inspector to the listener_filters",
  );
}

function named(name: string, what: string): string {
  return name === "" ? `the listener ${what}` : `listener "${name}" ${what}`;
}

// sockaddr_un has 108 bytes for the path, including the NUL at its end.
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
