// Hot path: every datagram.
import {
  AccessLogs,
  type Address,
  type BalancerContext,
  type Chunk,
  type Cluster,
  ConfigError,
  compileMatcher,
  defineUdpFilter,
  type MatchSubject,
  type SetupContext,
  type StreamInfo,
  type UdpListenerFilter,
  type UdpSocket,
  xxHash64,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";
import { Session, type SessionOwner } from "./session.ts";
import { logProxy, logSession, ProxyCounts, UdpCounts } from "./session-log.ts";
import { ClusterUdpStats, DownstreamUdpStats } from "./stats.ts";

/** Limit of sessions per listener and worker, as client addresses can be forged. */
const MAX_SESSIONS = 16_384;
const DEFAULT_DATAGRAM = 1_500;
const LARGEST_DATAGRAM = 65_535;

/** Forwards the datagrams of each client to a host of a cluster, and the host's datagrams to the client. */
class UdpProxy implements UdpListenerFilter, SessionOwner {
  readonly cx: SetupContext;
  readonly stats: DownstreamUdpStats;
  readonly idleMs: number;
  readonly maxDatagram: number;
  readonly logs: AccessLogs;
  readonly logEveryMs: number;
  readonly counts = new ProxyCounts();
  readonly #perPacket: boolean;
  readonly #clusterOf: (client: Address, local: Address) => string | undefined;
  readonly #hash: (client: Address) => bigint | undefined;
  readonly #sessions = new Map<string, Session>();
  readonly #clusterStats = new WeakMap<Cluster, ClusterUdpStats>();

  constructor(config: Config, cx: SetupContext) {
    this.cx = cx;
    this.stats = new DownstreamUdpStats(cx.stats.scope(`udp.${config.stat_prefix}.`));
    this.idleMs = config.idle_timeout;
    const { max_rx_datagram_size: most = DEFAULT_DATAGRAM, prefer_gro: gro = true } =
      config.upstream_socket_config ?? {};
    // With `prefer_gro`, the default, Envoy reads several datagrams at once, into a buffer with room for any datagram.
    this.maxDatagram = gro ? LARGEST_DATAGRAM : most;
    this.#perPacket = config.use_per_packet_load_balancing;
    const choice = clusterChoice(config, cx);
    this.#clusterOf = choice.of;
    // As in Envoy, the stats of clusters that the config names are there from the start.
    for (const name of choice.names) {
      const cluster = cx.clusters.get(name);
      if (cluster !== undefined) this.#statsOf(cluster);
    }
    this.#hash = hashPolicy(config);
    this.logs = new AccessLogs(config.access_log, "access_log", cx);
    this.logEveryMs = config.access_log_options?.access_log_flush_interval ?? 0;
    const proxyLogs = new AccessLogs(config.proxy_access_log, "proxy_access_log", cx);
    const [startTime, beganMs] = [Date.now(), cx.now()];
    cx.onDispose(() => {
      for (const session of [...this.#sessions.values()]) session.end();
      if (proxyLogs.count > 0) logProxy(proxyLogs, this.counts, startTime, cx.now() - beganMs);
    });
  }

  onDatagram(bytes: Chunk, from: Address, socket: UdpSocket): void {
    const client = `${from.ip}|${from.port}`;
    const known = this.#perPacket ? undefined : this.#sessions.get(client);
    if (known !== undefined && this.#follows(known) && this.#isBest(known, from)) {
      known.forward(bytes);
      return;
    }
    known?.end();
    this.#begin(client, from, socket)?.forward(bytes);
  }

  /** False if the session's host is unhealthy and a healthy one can take its place. */
  #isBest({ host, cluster }: Session, from: Address): boolean {
    if (host.healthy) return true;
    const other = cluster.chooseHost?.({ hash: this.#hash(from) });
    return other === undefined || !other.healthy || other === host;
  }

  /** False if the session's cluster was removed, or no longer has the host. */
  #follows(session: Session): boolean {
    const cluster = this.cx.clusters.get(session.cluster.name);
    if (cluster === session.cluster) return cluster.hosts.includes(session.host);
    const host = cluster?.hosts.find(({ key }) => key === session.host.key);
    return host !== undefined && session.moveTo(cluster!, host);
  }

  #begin(client: string, from: Address, socket: UdpSocket): Session | undefined {
    const name = this.#clusterOf(from, socket.localAddress);
    const cluster = name === undefined ? undefined : this.cx.clusters.get(name);
    if (cluster === undefined) {
      this.stats.noRoute.inc();
      this.counts.noRoute++;
      return undefined;
    }
    const context: BalancerContext = { hash: this.#hash(from) };
    // If no host is available, `chooseHost` has counted that.
    const host = cluster.chooseHost?.(context);
    if (host === undefined) return undefined;
    const key = this.#perPacket ? `${client}|${cluster.name}|${host.key}` : client;
    const open = this.#sessions.get(key);
    if (open !== undefined && this.#follows(open)) return open;
    open?.end();
    const stats = this.#statsOf(cluster);
    if (this.#sessions.size >= MAX_SESSIONS || cluster.beginSession?.() === false) {
      stats.overflow.inc();
      // As in Envoy, a refused session counts in the total of sessions.
      this.stats.total.inc();
      const id = this.counts.sessions++;
      this.#logRefused(id, cluster.name, from, socket);
      return undefined;
    }
    const session = new Session(this, key, { cluster, host, stats }, from, socket);
    this.#sessions.set(key, session);
    return session;
  }

  #logRefused(id: number, clusterName: string, client: Address, listener: UdpSocket): void {
    if (this.logs.count === 0) return;
    const session = {
      id,
      startTime: Date.now(),
      client,
      listener,
      upstream: undefined,
      host: undefined,
      clusterName,
      counts: new UdpCounts(),
    };
    logSession(this.logs, session, 0, "UdpSessionEnd");
  }

  #statsOf(cluster: Cluster): ClusterUdpStats {
    let stats = this.#clusterStats.get(cluster);
    if (stats === undefined) {
      stats = new ClusterUdpStats(cluster.stats);
      this.#clusterStats.set(cluster, stats);
    }
    return stats;
  }

  onEnded(session: Session): void {
    this.#sessions.delete(session.key);
  }
}

/** Which cluster is for whom, and all that can be chosen. */
interface ClusterChoice {
  readonly of: (client: Address, local: Address) => string | undefined;
  readonly names: ReadonlySet<string>;
}

function clusterChoice(config: Config, cx: SetupContext): ClusterChoice {
  const { cluster, matcher } = config;
  if ((cluster === undefined) === (matcher === undefined))
    throw new ConfigError("", "give one of matcher and cluster");
  const names = new Set<string>();
  if (matcher === undefined) return { of: () => cluster, names: names.add(cluster!) };
  if (matcher.matcher_list === undefined && matcher.matcher_tree === undefined) {
    const always = matcher.on_no_match?.action?.typed_config.cluster;
    if (always !== undefined) names.add(always);
    return { of: () => always, names };
  }
  const tree = compileMatcher(matcher, "matcher", cx, (action) => {
    names.add(action.cluster);
    return action.cluster;
  });
  return { of: (client, local) => tree.match(subject(client, local)), names };
}

/** What a matcher tree can examine: a datagram has addresses only. */
function subject(client: Address, local: Address): MatchSubject {
  const info: Partial<StreamInfo> = {
    downstreamRemoteAddress: client,
    downstreamDirectAddress: client,
    downstreamLocalAddress: local,
  };
  return { info: info as StreamInfo };
}

function hashPolicy({ hash_policies: policies }: Config): (client: Address) => bigint | undefined {
  const policy = policies?.[0];
  if (policy?.key !== undefined) {
    const hash = xxHash64(policy.key);
    return () => hash;
  }
  return policy?.source_ip === true ? ({ ip }) => xxHash64(ip) : () => undefined;
}

export default defineUdpFilter({
  name: "envoy.filters.udp_listener.udp_proxy",
  types: ["envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig"],
  terminal: true,
  config: Config,
  setup: (config, cx) => new UdpProxy(config, cx),
});
