// Hot path: `newStream` runs for every request.
import type {
  BalancerContext,
  BalancerPolicy,
  Cluster,
  ClusterType,
  ClusterUse,
  CodecFactory,
  CodecOptions,
  Connection,
  ConnectionHandler,
  Host,
  HostNames,
  HostSpec,
  PoolCallbacks,
  PoolFailure,
  PoolHandle,
  Priority,
  ProvidedBalancer,
  ProvidedHosts,
  ReadyClusters,
  SetupContext,
  SharedCounter,
  Slot,
  Stats,
  TrackedStats,
  UpstreamFilter,
} from "@tsproxy/sdk";
import { counter, formatAddress, openUpstreamFilters, Roster } from "@tsproxy/sdk";
import { Aggregate } from "./aggregate.ts";
import { AwaitedHost } from "./awaited-host.ts";
import { type Balancing, Spread } from "./balancing.ts";
import type { UsedLimits } from "./circuit-breaker.ts";
import type { HealthList } from "./cluster-health.ts";
import { ClusterLimits } from "./cluster-limits.ts";
import type { ClusterConfig, ClusterOptions } from "./config.ts";
import { HTTP_PROTOCOL_OPTIONS, optionsOf, tracksOf } from "./config.ts";
import type { Connectivity } from "./connectivity.ts";
import { Connector } from "./connector.ts";
import { DropOverload } from "./drop-overload.ts";
import { fingerprintOf, type Heir } from "./handover.ts";
import { Race } from "./happy-eyeballs.ts";
import { idOf, type Load, type PoolMaker, UpstreamHost } from "./host.ts";
import { HostMaker, MAX_HOST_NAMES } from "./host-maker.ts";
import { IdleSweep } from "./idle-sweep.ts";
import { levelHealths, localClusterOf } from "./levels.ts";
import type { LocalCluster } from "./localities.ts";
import { Pool, type PoolOwner, type PoolProtocol } from "./pool.ts";
import { clientOptions, PoolChoice } from "./pool-choice.ts";
import { type ConnectionFacts, PooledConnection } from "./pooled-connection.ts";
import { type LevelHealth, levelLoads, panicThreshold } from "./priority-loads.ts";
import { type Codecs, codecOptions, protocolsOf } from "./protocols.ts";
import { CLUSTER_STATS, ClusterCells, listTracked } from "./stats.ts";
import { TrackedConnection } from "./tracked-connection.ts";

const NO_HOST: PoolFailure = Object.freeze({
  reason: "no_host",
  host: undefined,
  transportFailure: "",
});

/** Parameters of UpstreamCluster. */
export interface UpstreamClusterParts {
  readonly cx: SetupContext;
  readonly config: ClusterConfig;
  /** Undefined: the cluster's type chooses hosts. */
  readonly balancer: Slot<BalancerPolicy> | undefined;
  readonly type: ClusterType;
  readonly clusterOf: (name: string) => UpstreamCluster | undefined;
  readonly codecs: Codecs;
  readonly ownLocality: string;
  readonly local: () => LocalCluster | undefined;
  /** Called when hosts or their health have changed. */
  readonly onChanged: () => void;
  /** Returns the object in which earlier generations count a host's requests in progress; undefined if they lack the host. */
  readonly loadOf: (cluster: string, hostId: string) => Load | undefined;
  readonly hostNames: Set<string>;
  readonly usedLimits: UsedLimits;
  /** Clusters that its type has made. */
  readonly made: ReadyClusters;
  /** Undefined if no cluster uses predictive preconnect. */
  readonly connectivity: Connectivity | undefined;
}

/** A cluster on one thread: its hosts, the choice among them, and the connections to them. */
export class UpstreamCluster implements Cluster, PoolOwner {
  readonly name: string;
  readonly observabilityName: string;
  readonly metadata: unknown;
  readonly fingerprint: string;
  readonly stats: Stats;
  #cells: ClusterCells | undefined = undefined;
  readonly cx: SetupContext;
  readonly codecOptions: Readonly<Record<CodecFactory["protocol"], CodecOptions>>;
  readonly limits: ClusterLimits;
  readonly connector: Connector;
  readonly maxConnectionDurationMs: number;
  readonly maxRequestsPerConnection: number;
  readonly preconnectRatio: number;
  readonly connectivity: Connectivity | undefined;
  /** `predictive_preconnect_ratio`; 1: off. */
  readonly #lookAheadRatio: number;
  readonly #config: ClusterConfig;
  readonly #options: ClusterOptions;
  readonly #protocols: readonly PoolProtocol[];
  readonly #maker: HostMaker;
  readonly #poolChoice: PoolChoice;
  readonly #ownLocality: string;
  readonly #onChanged: () => void;
  readonly #spread: Spread | undefined;
  readonly #provided: ProvidedBalancer | undefined;
  readonly #aggregate: Aggregate | undefined = undefined;
  readonly #choosesByStream: boolean;
  /** Called when hosts that the cluster's type makes have come or gone. */
  onOwnHosts: (() => void) | undefined = undefined;
  readonly #drop: DropOverload;
  readonly tracks: TrackedStats | undefined;
  readonly httpFilters: readonly UpstreamFilter[] | undefined;
  /** Number of changes of hosts or of their health. */
  changes = 0;
  readonly #sweep: IdleSweep;
  #byId = new Map<string, UpstreamHost>();
  /** Above 0 once any worker has had a request for the cluster; only health checks need this, undefined without them. */
  readonly #traffic: SharedCounter | undefined;
  #hadTraffic = false;
  /** On the control thread: complete health of the hosts has been published to the workers. */
  served = false;
  #hosts: readonly UpstreamHost[] = [];
  /** Hosts by address; built for the first request with an override host. */
  #byAddress: { readonly of: unknown; readonly hosts: Map<string, UpstreamHost> } | undefined =
    undefined;
  /** Pools of removed hosts that still have connections. */
  readonly #leaving = new Set<Pool>();
  readonly #tracked = new Roster<TrackedConnection>();
  /** The generation that takes over; set when this one ends. */
  #heir: Heir | undefined = undefined;
  #retired = false;
  readonly #made: ReadyClusters;
  /** Changes of health within this time of the last are told together. */
  readonly mergeMs: number;
  /** When the control thread last told an update of the hosts' health. */
  #toldMs = Number.NEGATIVE_INFINITY;

  constructor(parts: UpstreamClusterParts) {
    const { cx, config, balancer, loadOf, hostNames, usedLimits } = parts;
    this.cx = cx;
    this.#made = parts.made;
    this.mergeMs = config.common_lb_config?.update_merge_window ?? 1_000;
    this.name = config.name;
    this.observabilityName = config.alt_stat_name || config.name;
    this.metadata = config.metadata;
    this.#config = config;
    this.#traffic =
      (config.health_checks ?? []).length === 0
        ? undefined
        : cx.cell(`traffic ${config.name}`, counter());
    this.fingerprint = fingerprintOf(config);
    this.#options = optionsOf(config, parts.type.peerNames);
    const pools = () => this.#hosts.flatMap((host) => host.pools);
    this.limits = new ClusterLimits(config, cx, usedLimits, pools);
    this.#ownLocality = parts.ownLocality;
    this.#onChanged = parts.onChanged;
    this.maxConnectionDurationMs = this.#options.maxConnectionDurationMs;
    this.maxRequestsPerConnection = this.#options.maxRequestsPerConnection;
    this.#drop = new DropOverload(config, cx.runtime);
    this.tracks = tracksOf(config);
    this.preconnectRatio = config.preconnect_policy?.per_upstream_preconnect_ratio ?? 1;
    this.#lookAheadRatio = config.preconnect_policy?.predictive_preconnect_ratio ?? 1;
    this.connectivity = parts.connectivity;
    const statPrefix = `cluster.${config.alt_stat_name || config.name}.`;
    this.stats = cx.stats.scope(statPrefix);
    if (this.tracks !== undefined) listTracked(this.stats, this.tracks);
    // The control thread sends no requests, so it needs no filters.
    this.httpFilters =
      cx.role === "control"
        ? undefined
        : openUpstreamFilters(
            config.typed_extension_protocol_options?.[HTTP_PROTOCOL_OPTIONS]?.http_filters,
            `typed_extension_protocol_options["${HTTP_PROTOCOL_OPTIONS}"].http_filters`,
            cx,
            statPrefix,
          );
    this.connector = new Connector(cx, config, this.#options, statPrefix, () => this.cells);
    const { transports } = this.connector;
    this.#maker = new HostMaker({
      cx,
      config,
      transports,
      pools: this.#poolMaker,
      loadOf,
      hostNames,
      hosts: () => this.#hosts,
      flagAhead: (host, flags) => this.#flagAhead(host, flags),
    });
    // The control thread lists all names; other threads create cells when there is something to count.
    if (cx.role === "control") this.stats.list?.(CLUSTER_STATS);
    this.codecOptions = {
      "HTTP/1.1": codecOptions(this.#options, "HTTP/1.1", this.stats),
      "HTTP/2": codecOptions(this.#options, "HTTP/2", this.stats),
    };
    this.#protocols = protocolsOf(this.#options, parts.codecs);
    const balancing: Balancing = {
      stats: this.stats,
      runtime: cx.runtime,
      panics: { inc: () => this.traffic.healthyPanic.inc() },
      options: this.#options,
      eager: cx.role === "control",
      ownLocality: parts.ownLocality,
      allHosts: () => this.#hosts,
      local: parts.local,
    };
    this.#spread = balancer && new Spread(balancing, "", balancer);
    this.#spread?.update([]);
    const { type } = parts;
    const policy = balancer?.current.value;
    this.#poolChoice = new PoolChoice(
      this.#options.peerNaming,
      config.connection_pool_per_downstream_connection === true,
    );
    this.#choosesByStream =
      this.#poolChoice.byClient ||
      type.provide !== undefined ||
      this.#options.peerNaming !== undefined ||
      policy?.byStream === true;
    if (cx.role === "canary") this.#provided = undefined;
    else if (type.clusters !== undefined) {
      const threshold = () => this.#panicThreshold();
      this.#aggregate = new Aggregate(type.clusters, parts.clusterOf, threshold);
      this.#provided = this.#aggregate;
    } else this.#provided = type.provide?.(this.#ownHosts());
    this.#sweep = new IdleSweep(cx, this.#options.idleTimeoutMs, () => this.#hosts);
  }

  get traffic(): ClusterCells {
    this.#cells ??= new ClusterCells(this.stats);
    return this.#cells;
  }
  get cells(): ClusterCells {
    return this.traffic;
  }
  get dropOverload(): number {
    return this.#drop.value;
  }
  get connectTimeoutMs(): number {
    return this.#options.connectTimeoutMs;
  }
  get maxStreamDurationMs(): number | undefined {
    return this.#options.maxStreamDurationMs;
  }
  get hosts(): readonly UpstreamHost[] {
    return this.#hosts;
  }
  /** Specs of the hosts by id. */
  specs(): ReadonlyMap<string, HostSpec> {
    return new Map([...this.#byId].map(([id, host]) => [id, host.spec]));
  }
  get hadTraffic(): boolean {
    return this.#traffic !== undefined && this.#traffic.value > 0;
  }
  /** The count of requests in progress at a host, for the next generation. */
  load(hostId: string): Load | undefined {
    return this.#byId.get(hostId)?.load;
  }

  get inUse(): ClusterUse {
    return this.limits.inUse;
  }
  // ---- requests

  beginRetry(priority: Priority): boolean {
    return this.limits.breaker(priority).tryAcquireRetry();
  }
  endRetry(priority: Priority): void {
    this.limits.breaker(priority).retries.release();
  }

  get choosesByStream(): boolean {
    return (
      this.#choosesByStream ||
      this.connector.transports.nameClients ||
      this.#aggregate?.choosesByStream === true
    );
  }

  newStream(callbacks: PoolCallbacks, context: BalancerContext): PoolHandle | undefined {
    const host = this.#choose(context);
    if (host !== undefined) return this.#streamTo(host, callbacks, context);
    const named = this.#retired ? undefined : this.#provided?.whenNamed?.(context);
    if (named === undefined) return this.#streamWithoutHost(callbacks, context, { counted: true });
    return new AwaitedHost(named, () => {
      const found = this.hostFor(context);
      // As in Envoy, a host that was waited for in vain is not counted.
      return found === undefined
        ? this.#streamWithoutHost(callbacks, context, { counted: false })
        : this.#streamTo(found, callbacks, context);
    });
  }

  #streamTo(
    host: UpstreamHost,
    callbacks: PoolCallbacks,
    context: BalancerContext,
  ): PoolHandle | undefined {
    const pool = this.#poolChoice.poolFor(host, context);
    if (this.#lookAheadRatio > 1) this.#lookAhead(context);
    if (pool !== undefined) return pool.newStream(callbacks);
    this.cells.cxPoolOverflow.inc();
    callbacks.onPoolFailure({ reason: "overflow", host: undefined, transportFailure: "" });
    return undefined;
  }

  #streamWithoutHost(
    callbacks: PoolCallbacks,
    context: BalancerContext,
    { counted }: { readonly counted: boolean },
  ): PoolHandle | undefined {
    const successor = this.#heir?.clusters.get(this.name);
    if (successor !== undefined) return successor.newStream(callbacks, context);
    if (counted) this.traffic.cxNoneHealthy.inc();
    callbacks.onPoolFailure(NO_HOST);
    return undefined;
  }

  /** Predictive preconnect: opens connections to the hosts of future requests; as in Envoy, at most three per request. */
  #lookAhead(context: BalancerContext): void {
    const ratio = this.#lookAheadRatio;
    for (let k = 0; k < 3 && this.connectivity?.wants(ratio) === true; k++) {
      const host = this.#peek(context);
      const pool = host && this.#poolChoice.poolFor(host, context);
      if (pool?.lookAhead(ratio) !== true) return;
    }
  }

  #peek(context: BalancerContext): UpstreamHost | undefined {
    const { overrideHost } = context;
    const host = overrideHost && this.#hostAt(overrideHost.address);
    return host ?? this.#spread?.peek(context);
  }

  chooseHost(context: BalancerContext): UpstreamHost | undefined {
    const host = this.#choose(context);
    if (host === undefined) this.traffic.cxNoneHealthy.inc();
    return host;
  }

  beginSession(): boolean {
    return this.limits.breaker("default").connections.tryAcquire();
  }
  endSession(): void {
    this.limits.breaker("default").connections.release();
  }

  connect(handler: ConnectionHandler, context: BalancerContext): ReturnType<Cluster["connect"]> {
    const host = this.#choose(context);
    if (host === undefined) {
      const successor = this.#heir?.clusters.get(this.name);
      if (successor !== undefined) return successor.connect(handler, context);
      this.traffic.cxNoneHealthy.inc();
      return "no_host";
    }
    const { connections, pending } = this.limits.breaker("default");
    if (!connections.tryAcquire()) {
      this.traffic.cxOverflow.inc();
      return "overflow";
    }
    if (!pending.tryAcquire()) {
      connections.release();
      this.traffic.rqPendingOverflow.inc();
      return { connection: undefined, host };
    }
    const tracked = new TrackedConnection(this, host, handler, this.#onTrackedGone);
    this.#tracked.add(tracked);
    return { connection: tracked.open(clientOptions(context)), host };
  }

  #choose(context: BalancerContext): UpstreamHost | undefined {
    if (!this.#hadTraffic && this.#traffic !== undefined) {
      this.#hadTraffic = true;
      this.#traffic.set(1);
    }
    return this.hostFor(context);
  }

  /** Chooses a host without counting anything. Undefined once this generation has ended: its hosts' pools drain. */
  hostFor(context: BalancerContext): UpstreamHost | undefined {
    if (this.#retired) return undefined;
    const { overrideHost } = context;
    if (overrideHost !== undefined) {
      const host = this.#hostAt(overrideHost.address);
      if (host !== undefined || overrideHost.strict) return host;
    }
    if (this.#spread !== undefined) return this.#spread.choose(context);
    const host = this.#provided?.choose(context);
    return host instanceof UpstreamHost ? host : undefined;
  }

  /** The host with that address; undefined if there is none or its status is not in `override_host_status`. */
  #hostAt(address: string): UpstreamHost | undefined {
    if (this.#byAddress?.of !== this.#hosts)
      this.#byAddress = {
        of: this.#hosts,
        hosts: new Map(this.#hosts.map((host) => [host.key, host])),
      };
    const host = this.#byAddress.hosts.get(address);
    return host !== undefined && this.#options.overrideStatuses.has(host.status) ? host : undefined;
  }

  get names(): HostNames | undefined {
    return this.#provided?.names;
  }

  /** Health of its priority levels, for aggregate clusters that contain it. */
  levels(): LevelHealth[] {
    return levelHealths(this.#hosts, this.#options);
  }

  #changed(): void {
    this.changes++;
    this.#spread?.update(this.#hosts);
    this.#onChanged();
  }

  /** Called when the local cluster has changed: rebuilds the balancer, as the zones' shares depend on it. */
  onLocalChanged(): void {
    if (!this.#retired) this.#spread?.update(this.#hosts);
  }

  /** This cluster as the local cluster, for zone-aware routing. */
  asLocal(): LocalCluster {
    const loads = levelLoads(this.levels(), {
      ...this.#options,
      panicThreshold: this.#panicThreshold(),
    });
    return localClusterOf(this.#hosts, this.#ownLocality, loads.panic[0] === true);
  }

  /** Priority level of a host that this cluster has chosen. */
  priorityOf(host: Host): number {
    return this.#aggregate?.priorityOf(host) ?? host.priority ?? 0;
  }

  #panicThreshold(): number {
    return panicThreshold(this.cx.runtime, this.#options.panicThreshold);
  }

  /** The interface for cluster types that create hosts on request. */
  #ownHosts(): ProvidedHosts {
    const lastUsed = new Map<string, number>();
    const list = (): void => {
      this.#hosts = [...this.#byId.values()];
      this.onOwnHosts?.();
    };
    const hosts = () => this.#hosts;
    return {
      get hosts() {
        return hosts();
      },
      stats: this.stats,
      made: this.#made,
      at: (address, hostname) => {
        const id = formatAddress(address);
        const known = this.#byId.get(id);
        if (known === undefined && this.#byId.size >= MAX_HOST_NAMES) return undefined;
        lastUsed.set(id, this.cx.now());
        if (known !== undefined) return known;
        const { ip, port } = address;
        const spec = { ip, port, hostname, weight: 1, priority: 0, healthStatus: "UNKNOWN" };
        const host = this.#maker.make(spec, id);
        this.#byId.set(id, host);
        list();
        this.#maker.watch(id, host);
        return host;
      },
      find: (id) => this.#byId.get(id),
      defaultPort: this.#config.transport_socket?.package === "transport/tls" ? 443 : 80,
      sweep: (sinceMs) => {
        const before = this.#byId.size;
        for (const [id, host] of this.#byId) {
          const used = lastUsed.get(id) ?? 0;
          if (used > sinceMs || host.pools.some((pool) => pool.connections.size > 0)) continue;
          for (const pool of host.pools) this.#drain(pool);
          this.#byId.delete(id);
          lastUsed.delete(id);
        }
        if (this.#byId.size < before) list();
      },
    };
  }

  readonly #onTrackedGone = (tracked: TrackedConnection): void => {
    this.#tracked.delete(tracked);
  };

  // ---- hosts

  /** Sets the complete list of hosts. Known hosts remain the same objects; hosts that are not listed drain. */
  update(specs: readonly HostSpec[]): void {
    if (this.#retired) return;
    const before = this.#byId;
    const now = new Map<string, UpstreamHost>();
    let changed = false;
    let joined = false;
    for (const spec of specs) {
      const id = freeId(now, idOf(spec));
      const known = before.get(id);
      if (known === undefined) joined = changed = true;
      else if (this.#maker.update(known, spec)) changed = true;
      const host = known ?? this.#maker.make(spec, id);
      now.set(id, host);
      if (known === undefined) this.#maker.watch(id, host);
    }
    let left = false;
    for (const [id, host] of before) {
      if (now.has(id)) continue;
      left = changed = true;
      for (const pool of host.pools) this.#drain(pool);
    }
    if (
      (joined || left) &&
      this.#config.common_lb_config?.close_connections_on_host_set_change === true
    )
      for (const host of now.values()) for (const pool of host.pools) pool.renew();
    this.#byId = now;
    this.#hosts = [...now.values()];
    if (changed) this.#changed();
  }

  readonly #poolMaker: PoolMaker = {
    make: (host, priority, peer) =>
      this.#protocols.map((protocol) => new Pool(this, host, protocol, priority, peer)),
    drop: (pool) => this.#drain(pool),
  };

  /** Applies the health published by the control thread. */
  setHealth(health: HealthList): void {
    if (this.#retired) return;
    // As for the control thread, what leads to the first complete list is no update.
    if (this.#maker.health?.warm === true) this.#toldMs = this.cx.now();
    this.#maker.health = health;
    let changed = false;
    for (const [id, host] of this.#byId) {
      const was = host.healthy;
      if (host.setFlags(this.#maker.flagsOf(id, host.spec))) changed = true;
      if (was && !host.healthy) this.#onHostFailed(host);
      this.#maker.watch(id, host);
    }
    if (changed) this.#changed();
  }

  /**
   * Sets flags that the control thread is about to set, so that the next request on this worker heeds them. As in Envoy a change
   * within `update_merge_window` of another waits: false. The next list replaces the flags, whatever they are.
   */
  #flagAhead(host: UpstreamHost, flags: number): boolean {
    if (this.mergeMs > 0 && this.cx.now() - this.#toldMs <= this.mergeMs) return false;
    const was = host.healthy;
    if (!host.addFlags(flags)) return true;
    // The host's connections are in the middle of the events that have shown the failure.
    void Promise.resolve().then(() => {
      if (this.#retired) return;
      if (was && !host.healthy) this.#onHostFailed(host);
      this.#changed();
    });
    return true;
  }

  /** Called when a host becomes unhealthy: retires its HTTP connections, and aborts TCP ones if the config says so. */
  #onHostFailed(host: UpstreamHost): void {
    for (const pool of host.pools) pool.renew();
    if (this.#config.close_connections_on_host_health_failure !== true) return;
    for (const tracked of [...this.#tracked])
      if (tracked.host === host) tracked.socket?.close("abort");
  }

  #drain(pool: Pool): void {
    pool.drain();
    for (const leaving of this.#leaving)
      if (leaving.connections.size === 0) this.#leaving.delete(leaving);
    if (pool.connections.size > 0) this.#leaving.add(pool);
  }

  onIdle(): void {
    this.#sweep.begin();
  }

  // ---- end of the generation

  /** Ends this generation: sockets go to the heir, pools drain. Called again with the heir's heir while connections are open. */
  retire(heir: Heir | undefined): void {
    this.#heir = heir;
    if (heir !== undefined) {
      for (const [connection, handler] of this.sockets()) heir.adopt(connection, handler);
    }
    if (this.#retired) return;
    this.#retired = true;
    this.#sweep.cancel();
    for (const host of this.#hosts) for (const pool of host.pools) pool.drain();
    this.#spread?.dispose();
    this.#provided?.dispose?.();
  }

  /** Its last connection has closed: gives back what all workers share. `isGone`: there is no cluster of its name any more. */
  dispose(isGone: boolean): void {
    this.limits.dispose();
    if (isGone) this.#maker.dispose();
  }

  giveAway(connection: PooledConnection): boolean {
    const heir = this.#heir;
    if (heir === undefined || heir.fingerprint(this.name) !== this.fingerprint) return false;
    const id = this.#idOf(connection.pool.host);
    if (id === undefined) return false;
    const facts = connection.facts();
    if (facts === undefined || !heir.takeIdle(this.name, id, facts)) return false;
    connection.forget();
    return true;
  }

  #idOf(host: UpstreamHost): string | undefined {
    for (const [id, other] of this.#byId) if (other === host) return id;
    return undefined;
  }

  /** Takes an idle connection of the previous generation; false if there is no such host or no pool for it. */
  takeIdle(hostId: string, facts: ConnectionFacts): boolean {
    const host = this.#byId.get(hostId);
    if (host === undefined || this.#retired) return false;
    const { protocol, priority, peer } = facts;
    const pool =
      peer === undefined
        ? host.poolFor(protocol, priority)
        : host.namedPoolFor(protocol, priority, peer);
    if (pool === undefined) return false;
    const connection = new PooledConnection(pool);
    connection.takeOver(facts);
    pool.take(connection);
    return true;
  }

  *sockets(): IterableIterator<readonly [Connection, ConnectionHandler]> {
    const pools = [...this.#hosts.flatMap((host) => host.pools), ...this.#leaving];
    for (const pool of pools) {
      for (const connection of pool.connections) yield* socketsOf(connection);
    }
    for (const tracked of this.#tracked) yield* socketsOf(tracked);
  }

  /** Number of open connections, including those of removed hosts. */
  open(): number {
    let n = this.#tracked.size;
    for (const host of this.#hosts) for (const pool of host.pools) n += pool.connections.size;
    for (const pool of this.#leaving) n += pool.connections.size;
    return n;
  }
}

/** Each socket of a connection with the handler that core must call; several while several addresses are tried. */
function socketsOf(
  owner: PooledConnection | TrackedConnection,
): Iterable<readonly [Connection, ConnectionHandler]> {
  const { socket } = owner;
  if (socket === undefined) return [];
  return socket instanceof Race ? socket.sockets() : [[socket, owner]];
}

/** A free id for a host: as in Envoy, an address that is listed twice is two hosts. */
function freeId(taken: ReadonlyMap<string, unknown>, key: string): string {
  if (!taken.has(key)) return key;
  let n = 2;
  while (taken.has(`${key}#${n}`)) n++;
  return `${key}#${n}`;
}
