// Hot path: `newStream` runs for every request.
import type {
  Address,
  BalancerContext,
  BalancerPolicy,
  Cluster,
  ClusterType,
  ClusterUse,
  CodecFactory,
  CodecOptions,
  Connection,
  ConnectionHandler,
  ConnectOptions,
  Host,
  HostNames,
  HostSpec,
  PoolCallbacks,
  PoolFailure,
  PoolHandle,
  Priority,
  ProvidedBalancer,
  ProvidedHosts,
  SetupContext,
  SharedCount,
  SharedCounter,
  Slot,
  Stats,
  Timer,
  TrackedStats,
  TransportOptions,
  UpstreamFilter,
} from "@tsproxy/sdk";
import { counter, formatAddress, openUpstreamFilters } from "@tsproxy/sdk";
import { Aggregate } from "./aggregate.ts";
import { type Balancing, Spread } from "./balancing.ts";
import { CircuitBreaker, Limit } from "./circuit-breaker.ts";
import { firstFlags, type HealthList, openOutlierTable } from "./cluster-health.ts";
import type { ClusterConfig, ClusterOptions } from "./config.ts";
import { dropOverloadOf, HTTP_PROTOCOL_OPTIONS, optionsOf, tracksOf } from "./config.ts";
import type { Connectivity } from "./connectivity.ts";
import { fingerprintOf, type Heir } from "./handover.ts";
import { familyOf, interleave, Race } from "./happy-eyeballs.ts";
import type { HealthCheck } from "./health-config.ts";
import { type HealthReport, report } from "./health-desk.ts";
import { idOf, type Load, type PoolMaker, UpstreamHost } from "./host.ts";
import { levelHealths, localClusterOf } from "./levels.ts";
import type { LocalCluster } from "./localities.ts";
import { OutlierMonitor, type OutlierTable } from "./outlier-monitor.ts";
import type { PeerNames } from "./peer-names.ts";
import { Pool, type PoolOwner, type PoolProtocol } from "./pool.ts";
import { type ConnectionFacts, PooledConnection } from "./pooled-connection.ts";
import { type LevelHealth, levelLoads, panicThreshold } from "./priority-loads.ts";
import { Starvation } from "./starvation.ts";
import { CLUSTER_STATS, ClusterCells, HostCells } from "./stats.ts";
import { TrackedConnection } from "./tracked-connection.ts";
import { Transports, throughTransport } from "./transports.ts";

const NO_HOST: PoolFailure = Object.freeze({
  reason: "no_host",
  host: undefined,
  transportFailure: "",
});
/** Addresses come and go with DNS, and a cell is never given back; hosts beyond these share theirs. */
const MAX_HOST_NAMES = 16_384;
/** Clients that have connections of their own at one host (`connection_pool_per_downstream_connection`, PROXY protocol). */
const MAX_CLIENTS = 8_192;

/** The codecs that pools may need; packages are only asked for where a config wants them. */
export interface Codecs {
  readonly http1: Slot<CodecFactory>;
  readonly http2: () => Slot<CodecFactory>;
}

export interface UpstreamClusterParts {
  readonly cx: SetupContext;
  readonly config: ClusterConfig;
  /** Undefined: the type of the cluster chooses. */
  readonly balancer: Slot<BalancerPolicy> | undefined;
  readonly type: ClusterType;
  readonly clusterOf: (name: string) => UpstreamCluster | undefined;
  readonly codecs: Codecs;
  readonly ownLocality: string;
  readonly local: () => LocalCluster | undefined;
  /** Its hosts or their health are others now. */
  readonly onChanged: () => void;
  /** Requests in progress that generations before this one count. */
  readonly loadOf: (cluster: string, hostId: string) => Load | undefined;
  readonly hostNames: Set<string>;
  /** Undefined: no cluster looks ahead. */
  readonly connectivity: Connectivity | undefined;
}

/** A cluster on this worker: its hosts, who of them is chosen, and the connections to them. */
export class UpstreamCluster implements Cluster, PoolOwner {
  readonly name: string;
  readonly observabilityName: string;
  readonly metadata: unknown;
  readonly fingerprint: string;
  readonly stats: Stats;
  #cells: ClusterCells | undefined = undefined;
  readonly cx: SetupContext;
  readonly codecOptions: CodecOptions;
  readonly connectOptions: ConnectOptions;
  readonly maxConnectionDurationMs: number;
  readonly maxRequestsPerConnection: number;
  readonly preconnectRatio: number;
  readonly connectivity: Connectivity | undefined;
  /** 1: connections are not made for requests that may come to other hosts. */
  readonly #lookAheadRatio: number;
  readonly #config: ClusterConfig;
  /** Most of a thousand clusters have no traffic. */
  #breaker: CircuitBreaker | undefined = undefined;
  #highBreaker: CircuitBreaker | undefined = undefined;
  readonly #starvation: Starvation;
  readonly #transports: Transports;
  readonly #options: ClusterOptions;
  readonly #protocols: readonly PoolProtocol[];
  readonly #loadOf: UpstreamClusterParts["loadOf"];
  readonly #hostNames: Set<string>;
  readonly #ownLocality: string;
  readonly #onChanged: () => void;
  readonly #spread: Spread | undefined;
  readonly #provided: ProvidedBalancer | undefined;
  readonly #aggregate: Aggregate | undefined = undefined;
  readonly #choosesByStream: boolean;
  readonly #poolsByClient: boolean;
  readonly dropOverload: number;
  readonly tracks: TrackedStats | undefined;
  readonly httpFilters: readonly UpstreamFilter[] | undefined;
  /** Another number after every change of hosts or of their health. */
  changes = 0;
  readonly #sweep: Timer;
  #sweeping = false;
  #byId = new Map<string, UpstreamHost>();
  /** What the control thread says of the health of hosts; undefined: nothing yet. */
  #health: HealthList | undefined = undefined;
  readonly #outliers: OutlierTable | undefined;
  /** Whether any worker has ever had a request for it; undefined: nobody wants to know. */
  readonly #traffic: SharedCounter | undefined;
  #hadTraffic = false;
  /** On the control thread: workers know its hosts. */
  served = false;
  #hosts: readonly UpstreamHost[] = [];
  /** Made for the first request that asks for a host by its address. */
  #byAddress: { readonly of: unknown; readonly hosts: Map<string, UpstreamHost> } | undefined =
    undefined;
  /** Hosts that are gone and still have connections. */
  readonly #leaving = new Set<Pool>();
  readonly #tracked = new Set<TrackedConnection>();
  /** Set at the end of this generation: who goes on with this cluster. */
  #heir: Heir | undefined = undefined;
  #retired = false;

  constructor(parts: UpstreamClusterParts) {
    const { cx, config, balancer, codecs, loadOf, hostNames } = parts;
    this.cx = cx;
    this.name = config.name;
    this.observabilityName = config.alt_stat_name || config.name;
    this.metadata = config.metadata;
    this.#config = config;
    this.#outliers =
      config.outlier_detection === undefined || cx.role === "canary"
        ? undefined
        : openOutlierTable(cx, config);
    this.#traffic =
      (config.health_checks ?? []).length === 0
        ? undefined
        : cx.cell(`traffic ${config.name}`, counter());
    this.fingerprint = fingerprintOf(config);
    this.#options = optionsOf(config);
    this.#starvation = new Starvation(config.name, cx, () => this.#pools());
    if (config.circuit_breakers?.thresholds.some((entry) => entry.max_connections !== undefined)) {
      this.#starvation.listen();
    }
    this.#loadOf = loadOf;
    this.#hostNames = hostNames;
    this.#ownLocality = parts.ownLocality;
    this.#onChanged = parts.onChanged;
    this.maxConnectionDurationMs = this.#options.maxConnectionDurationMs;
    this.maxRequestsPerConnection = this.#options.maxRequestsPerConnection;
    this.dropOverload = dropOverloadOf(
      config,
      cx.runtime.integer("load_balancing_policy.drop_overload_limit", 100),
    );
    this.tracks = tracksOf(config);
    this.preconnectRatio = config.preconnect_policy?.per_upstream_preconnect_ratio ?? 1;
    this.#lookAheadRatio = config.preconnect_policy?.predictive_preconnect_ratio ?? 1;
    this.connectivity = parts.connectivity;
    const statPrefix = `cluster.${config.alt_stat_name || config.name}.`;
    this.stats = cx.stats.scope(statPrefix);
    // The control thread sends no requests.
    this.httpFilters =
      cx.role === "control"
        ? undefined
        : openUpstreamFilters(
            config.typed_extension_protocol_options?.[HTTP_PROTOCOL_OPTIONS]?.http_filters,
            `typed_extension_protocol_options["${HTTP_PROTOCOL_OPTIONS}"].http_filters`,
            cx,
            statPrefix,
          );
    this.#transports = new Transports(cx, config, statPrefix);
    // One thread lists all names; others make their cells when there is something to count.
    if (cx.role === "control") this.stats.list?.(CLUSTER_STATS);
    this.connectOptions = {
      timeoutMs: this.#options.connectTimeoutMs,
      keepAlive: this.#options.keepAlive,
      ...(config.per_connection_buffer_limit_bytes !== undefined && {
        bufferBytes: config.per_connection_buffer_limit_bytes,
      }),
    };
    this.codecOptions = codecOptions(this.#options, this.stats);
    this.#protocols = protocolsOf(this.#options, codecs);
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
    this.#poolsByClient = config.connection_pool_per_downstream_connection === true;
    this.#choosesByStream =
      this.#poolsByClient ||
      type.provide !== undefined ||
      this.#options.peerNaming !== undefined ||
      policy?.byStream === true;
    if (cx.role === "canary") this.#provided = undefined;
    else if (type.clusters !== undefined) {
      const threshold = () => this.#panicThreshold();
      this.#aggregate = new Aggregate(type.clusters, parts.clusterOf, threshold);
      this.#provided = this.#aggregate;
    } else this.#provided = type.provide?.(this.#ownHosts());
    this.#sweep = cx.timer(() => this.#onSweep());
  }

  get traffic(): ClusterCells {
    this.#cells ??= new ClusterCells(this.stats);
    return this.#cells;
  }
  get cells(): ClusterCells {
    return this.traffic;
  }
  /** For a check of a host: through its transport, or the one that the checks name. */
  connectOptionsForCheck(spec: HostSpec, address: Address, check: HealthCheck): ConnectOptions {
    const criteria = check.transport_socket_match_criteria;
    const transport =
      criteria === undefined ? this.#transports.choose(spec) : this.#transports.chooseBy(criteria);
    const alpn = check.tls_options?.alpn_protocols;
    const options = throughTransport(this.connectOptions, transport, {
      hostname: spec.hostname,
      ...(alpn !== undefined && { alpn }),
    });
    return this.#bound(options, address);
  }
  connectTo(
    host: UpstreamHost,
    handler: ConnectionHandler,
    pool?: Pool,
    downstream?: TransportOptions["downstream"],
  ): Connection | Race {
    const options = throughTransport(this.connectOptions, host.transport, {
      hostname: host.hostname,
      hostMetadata: filterMetadata(host.metadata),
      clusterMetadata: filterMetadata(this.metadata),
      ...(pool !== undefined && { alpn: ALPN[pool.protocol.name], ...pool.peer?.options }),
      ...(downstream !== undefined && { downstream }),
    });
    const optionsFor = (address: Address) => this.#bound(options, address);
    const { address } = host;
    const others = host.spec.additionalAddresses ?? [];
    if (others.length === 0) return this.cx.connect(address, handler, optionsFor(address));
    const addresses = interleave([address, ...others], this.#options.happyEyeballs);
    return new Race(this.cx, addresses, handler, {
      timeoutMs: options.timeoutMs,
      optionsFor,
      onFurtherAttempt: () => {
        this.cells.cxTotal.inc();
        host.cells.cxTotal.inc();
      },
    });
  }
  sourceFor(to: Address): Address | undefined {
    const { sources } = this.#options;
    if (sources.length === 0 || to.path !== undefined) return undefined;
    const family = familyOf(to);
    return sources.find((source) => familyOf(source) === family) ?? sources[0];
  }
  #bound(options: ConnectOptions, to: Address): ConnectOptions {
    const source = this.sourceFor(to);
    return source === undefined ? options : { ...options, bind: source };
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
  /** By id. */
  specs(): ReadonlyMap<string, HostSpec> {
    return new Map([...this.#byId].map(([id, host]) => [id, host.spec]));
  }
  get hadTraffic(): boolean {
    return this.#traffic !== undefined && this.#traffic.value > 0;
  }
  load(hostId: string): Load | undefined {
    return this.#byId.get(hostId)?.load;
  }

  // ---- limits

  get inUse(): ClusterUse {
    const breakers = [this.breaker("default"), this.#highBreaker].filter(
      (found) => found !== undefined,
    );
    const sum = (of: (breaker: CircuitBreaker) => Limit) =>
      breakers.reduce((total, breaker) => total + of(breaker).count.value, 0);
    return {
      connections: sum(({ connections }) => connections),
      requests: sum(({ requests }) => requests),
      pendingRequests: sum(({ pending }) => pending),
    };
  }

  breaker(priority: Priority): CircuitBreaker {
    if (priority === "default") {
      this.#breaker ??= new CircuitBreaker(this.#config, priority, this.cx);
      return this.#breaker;
    }
    this.#highBreaker ??= new CircuitBreaker(this.#config, priority, this.cx);
    return this.#highBreaker;
  }

  hostLimit(host: UpstreamHost, priority: Priority): Limit | undefined {
    const name = priority === "high" ? "HIGH" : "DEFAULT";
    const most = this.#config.circuit_breakers?.per_host_thresholds.find(
      (entry) => entry.priority === name,
    )?.max_connections;
    if (most === undefined) return undefined;
    const count = this.cx.sharedCount(
      `host_connections|${this.name}|${priority}|${host.key}|limit`,
    );
    return new Limit(count, { value: most });
  }

  hostConnections(host: UpstreamHost, priority: Priority): SharedCount | undefined {
    if (!this.breaker(priority).exact) return undefined;
    return this.cx.sharedCount(`host_connections|${this.name}|${priority}|${host.key}`);
  }

  onStarving(pool: Pool, starving: boolean): void {
    this.#starvation.note(pool, starving);
  }
  onRoom(): void {
    this.#starvation.onRoom();
  }

  #pools(): readonly Pool[] {
    return this.#hosts.flatMap((host) => host.pools);
  }

  // ---- requests

  beginRetry(priority: Priority): boolean {
    return this.breaker(priority).retries.tryAcquire();
  }
  endRetry(priority: Priority): void {
    this.breaker(priority).retries.release();
  }

  get choosesByStream(): boolean {
    return (
      this.#choosesByStream ||
      this.#transports.nameClients ||
      this.#aggregate?.choosesByStream === true
    );
  }

  newStream(callbacks: PoolCallbacks, context: BalancerContext): PoolHandle | undefined {
    const host = this.#choose(context);
    if (host !== undefined) {
      const pool = this.#poolFor(host, context);
      if (this.#lookAheadRatio > 1) this.#lookAhead(context);
      if (pool !== undefined) return pool.newStream(callbacks);
      this.cells.cxPoolOverflow.inc();
      callbacks.onPoolFailure({ reason: "overflow", host: undefined, transportFailure: "" });
      return undefined;
    }
    const successor = this.#heir?.clusters.get(this.name);
    if (successor !== undefined) return successor.newStream(callbacks, context);
    this.traffic.cxNoneHealthy.inc();
    callbacks.onPoolFailure(NO_HOST);
    return undefined;
  }

  /** Connections for requests to come, to the hosts that they will go to: at most three for each that comes, as in Envoy. */
  #lookAhead(context: BalancerContext): void {
    const ratio = this.#lookAheadRatio;
    for (let k = 0; k < 3 && this.connectivity?.wants(ratio) === true; k++) {
      const host = this.#peek(context);
      const pool = host && this.#poolFor(host, context);
      if (pool?.lookAhead(ratio) !== true) return;
    }
  }

  #peek(context: BalancerContext): UpstreamHost | undefined {
    const { overrideHost } = context;
    const host = overrideHost && this.#hostAt(overrideHost.address);
    return host ?? this.#spread?.peek(context);
  }

  #poolFor(host: UpstreamHost, context: BalancerContext): Pool | undefined {
    const { downstreamProtocol, priority } = context;
    const { peerNaming } = this.#options;
    const peer =
      peerNaming !== undefined && host.transport?.current.value.secure === true
        ? peerNaming.of(context.head ?? context.stream?.request)
        : undefined;
    const own = this.#ownOf(host, context, peer) ?? peer;
    if (own === undefined) return host.poolFor(downstreamProtocol, priority);
    return host.namedPoolFor(downstreamProtocol, priority ?? "default", own);
  }

  /** Where clients do not share connections: what those of this one are made for. */
  #ownOf(
    host: UpstreamHost,
    context: BalancerContext,
    peer: PeerNames | undefined,
  ): PeerNames | undefined {
    const downstream =
      host.transport?.current.value.namesClients === true ? clientOf(context) : undefined;
    const id = this.#poolsByClient ? context.stream?.info.connectionId : undefined;
    if (downstream === undefined && id === undefined) return undefined;
    const { remoteAddress, localAddress } = downstream ?? {};
    const addresses = [remoteAddress, localAddress].map((a) => (a ? formatAddress(a) : ""));
    return {
      key: `${id ?? ""} ${addresses.join(" ")} ${peer?.key ?? ""}`,
      options: { ...peer?.options, ...(downstream !== undefined && { downstream }) },
      most: MAX_CLIENTS,
    };
  }

  chooseHost(context: BalancerContext): UpstreamHost | undefined {
    const host = this.#choose(context);
    if (host === undefined) this.traffic.cxNoneHealthy.inc();
    return host;
  }

  beginSession(): boolean {
    return this.breaker("default").connections.tryAcquire();
  }
  endSession(): void {
    this.breaker("default").connections.release();
  }

  connect(handler: ConnectionHandler, context: BalancerContext): ReturnType<Cluster["connect"]> {
    const host = this.#choose(context);
    if (host === undefined) {
      const successor = this.#heir?.clusters.get(this.name);
      if (successor !== undefined) return successor.connect(handler, context);
      this.traffic.cxNoneHealthy.inc();
      return "no_host";
    }
    if (!this.breaker("default").connections.tryAcquire()) {
      this.traffic.cxOverflow.inc();
      return "overflow";
    }
    const tracked = new TrackedConnection(this, host, handler, this.#onTrackedGone);
    this.#tracked.add(tracked);
    return { connection: tracked.open(context.downstream ?? clientOf(context)), host };
  }

  #choose(context: BalancerContext): UpstreamHost | undefined {
    if (!this.#hadTraffic && this.#traffic !== undefined) {
      this.#hadTraffic = true;
      this.#traffic.set(1);
    }
    return this.hostFor(context);
  }

  /** The choice alone, nothing is counted. */
  hostFor(context: BalancerContext): UpstreamHost | undefined {
    const { overrideHost } = context;
    if (overrideHost !== undefined) {
      const host = this.#hostAt(overrideHost.address);
      if (host !== undefined || overrideHost.strict) return host;
    }
    if (this.#spread !== undefined) return this.#spread.choose(context);
    const host = this.#retired ? undefined : this.#provided?.choose(context);
    return host instanceof UpstreamHost ? host : undefined;
  }

  /** Undefined: there is none, or its health is not one of `override_host_status`. */
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

  /** Its levels, for a cluster that is made of this one. */
  levels(): LevelHealth[] {
    return levelHealths(this.#hosts, this.#options);
  }

  #changed(): void {
    this.changes++;
    this.#spread?.update(this.#hosts);
    this.#onChanged();
  }

  /** The cluster that this proxy is a member of has other hosts: the parts of zones are other ones. */
  onLocalChanged(): void {
    if (!this.#retired) this.#spread?.update(this.#hosts);
  }

  /** As the cluster that this proxy is a member of. */
  asLocal(): LocalCluster {
    const loads = levelLoads(this.levels(), {
      ...this.#options,
      panicThreshold: this.#panicThreshold(),
    });
    return localClusterOf(this.#hosts, this.#ownLocality, loads.panic[0] === true);
  }

  /** Level of priority of one of the hosts that this cluster has given. */
  priorityOf(host: Host): number {
    return this.#aggregate?.priorityOf(host) ?? host.priority ?? 0;
  }

  #panicThreshold(): number {
    return panicThreshold(this.cx.runtime, this.#options.panicThreshold);
  }

  /** Hosts that the cluster's type makes for requests. */
  #ownHosts(): ProvidedHosts {
    const lastUsed = new Map<string, number>();
    return {
      stats: this.stats,
      at: (address, hostname) => {
        const id = formatAddress(address);
        const known = this.#byId.get(id);
        if (known === undefined && this.#byId.size >= MAX_HOST_NAMES) return undefined;
        lastUsed.set(id, this.cx.now());
        if (known !== undefined) return known;
        const { ip, port } = address;
        const spec = { ip, port, hostname, weight: 1, priority: 0, healthStatus: "UNKNOWN" };
        const host = this.#makeHost(spec, id);
        this.#byId.set(id, host);
        this.#hosts = [...this.#byId.values()];
        this.#watch(id, host);
        return host;
      },
      find: (id) => this.#byId.get(id),
      defaultPort: this.#config.transport_socket?.package === "transport/tls" ? 443 : 80,
      sweep: (sinceMs) => {
        for (const [id, host] of this.#byId) {
          const used = lastUsed.get(id) ?? 0;
          if (used > sinceMs || host.pools.some((pool) => pool.connections.size > 0)) continue;
          for (const pool of host.pools) this.#drain(pool);
          this.#byId.delete(id);
          lastUsed.delete(id);
        }
        this.#hosts = [...this.#byId.values()];
      },
    };
  }

  readonly #onTrackedGone = (tracked: TrackedConnection): void => {
    this.#tracked.delete(tracked);
  };

  // ---- hosts

  /** The list is all there is now. Hosts that it still names go on as they are; others drain. */
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
      else if (known.update(spec)) changed = true;
      const host = known ?? this.#makeHost(spec, id);
      now.set(id, host);
      if (known === undefined) this.#watch(id, host);
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

  #makeHost(spec: HostSpec, id: string): UpstreamHost {
    const load = this.#loadOf(this.name, id) ?? { active: 0 };
    const host = new UpstreamHost(
      spec,
      () => this.#cellsOf(spec),
      load,
      this.#poolMaker,
      () => this.cx.now(),
      this.#flagsOf(id, spec),
    );
    host.transport = this.#transports.choose(spec);
    return host;
  }

  #flagsOf(id: string, spec: HostSpec): number {
    return this.#health === undefined
      ? firstFlags(this.#config, spec)
      : (this.#health.flags[id] ?? 0);
  }

  /** The control thread has found out how the hosts are. */
  setHealth(health: HealthList): void {
    if (this.#retired) return;
    this.#health = health;
    let changed = false;
    for (const [id, host] of this.#byId) {
      const was = host.healthy;
      if (host.setFlags(this.#flagsOf(id, host.spec))) changed = true;
      if (was && !host.healthy) this.#onHostFailed(host);
      this.#watch(id, host);
    }
    if (changed) this.#changed();
  }

  /** Another connection may take another way. Connections of the caller's own are cut where the config says so. */
  #onHostFailed(host: UpstreamHost): void {
    for (const pool of host.pools) pool.renew();
    if (this.#config.close_connections_on_host_health_failure !== true) return;
    for (const tracked of [...this.#tracked])
      if (tracked.host === host) tracked.socket?.close("abort");
  }

  /** What becomes of requests to the host is counted where the control thread says. */
  #watch(id: string, host: UpstreamHost): void {
    const slot = this.#health?.slots[id];
    const table = this.#outliers;
    const config = this.#config.outlier_detection;
    if (slot === undefined || table === undefined || config === undefined) {
      host.outlier = undefined;
    } else if (host.outlier?.slot !== slot) {
      host.outlier = new OutlierMonitor(table, slot, config, this.cx.runtime, (row) =>
        this.#report(id, row),
      );
    }
    if ((this.#config.health_checks ?? []).length > 0)
      host.onImmediateHealthCheckFail = () => this.#report(id, "IMMEDIATE_HEALTH_CHECK_FAIL");
  }

  #report(host: string, what: HealthReport["what"]): void {
    report(this.cx, { cluster: this.name, config: this.fingerprint, host, what });
  }

  #cellsOf(spec: HostSpec): HostCells {
    const key = idOf(spec);
    const name = `${this.name}|${key}`;
    if (this.#hostNames.size >= MAX_HOST_NAMES && !this.#hostNames.has(name)) {
      return new HostCells(this.cx.stats, this.name, "others");
    }
    this.#hostNames.add(name);
    return new HostCells(this.cx.stats, this.name, key);
  }

  #drain(pool: Pool): void {
    pool.drain();
    for (const leaving of this.#leaving)
      if (leaving.connections.size === 0) this.#leaving.delete(leaving);
    if (pool.connections.size > 0) this.#leaving.add(pool);
  }

  // ---- idle connections

  onIdle(): void {
    if (this.#sweeping || this.#options.idleTimeoutMs === 0) return;
    this.#sweeping = true;
    this.#sweep.arm(this.#options.idleTimeoutMs);
  }

  #onSweep(): void {
    const { idleTimeoutMs } = this.#options;
    const now = this.cx.now();
    let next = -1;
    for (const host of this.#hosts) {
      for (const pool of host.pools) {
        const since = pool.sweep(now - idleTimeoutMs);
        if (since >= 0 && (next < 0 || since < next)) next = since;
      }
    }
    this.#sweeping = next >= 0;
    if (next >= 0) this.#sweep.arm(Math.max(1, next + idleTimeoutMs - now));
  }

  // ---- the end of a generation

  /** Another generation goes on; without one everything drains. May be called again: with the heir's own heir. */
  retire(heir: Heir | undefined): void {
    this.#heir = heir;
    if (heir !== undefined) {
      for (const [connection, handler] of this.sockets()) heir.adopt(connection, handler);
    }
    if (this.#retired) return;
    this.#retired = true;
    this.#sweep.cancel();
    this.#starvation.end();
    for (const host of this.#hosts) for (const pool of host.pools) pool.drain();
    this.#spread?.dispose();
    this.#provided?.dispose?.();
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

  /** False: that host is not here. */
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

  open(): number {
    let n = this.#tracked.size;
    for (const host of this.#hosts) for (const pool of host.pools) n += pool.connections.size;
    for (const pool of this.#leaving) n += pool.connections.size;
    return n;
  }
}

/** What core has to call for a connection, and which: while several addresses are tried, each of those. */
function socketsOf(
  owner: PooledConnection | TrackedConnection,
): Iterable<readonly [Connection, ConnectionHandler]> {
  const { socket } = owner;
  if (socket === undefined) return [];
  return socket instanceof Race ? socket.sockets() : [[socket, owner]];
}

/** An address that a config lists twice is two hosts, as in Envoy. */
function freeId(taken: ReadonlyMap<string, unknown>, key: string): string {
  if (!taken.has(key)) return key;
  let n = 2;
  while (taken.has(`${key}#${n}`)) n++;
  return `${key}#${n}`;
}

/** What a pool offers in TLS where the transport's config offers nothing. */
const ALPN: Readonly<Record<PoolProtocol["name"], readonly string[]>> = {
  "HTTP/1.1": ["http/1.1"],
  "HTTP/2": ["h2"],
  ALPN: ["h2", "http/1.1"],
};

/** Nobody negotiates on a connection without TLS: it speaks HTTP/1.1 then, as Envoy's does. */
function protocolsOf(options: ClusterOptions, codecs: Codecs): readonly PoolProtocol[] {
  const expectedCapacity = options.http2.maxConcurrentStreams;
  const http1: PoolProtocol = { name: "HTTP/1.1", expectedCapacity: 1, codec: () => codecs.http1 };
  if (options.protocol === "HTTP1") return [http1];
  const codec = codecs.http2();
  const http2: PoolProtocol = { name: "HTTP/2", expectedCapacity, codec: () => codec };
  switch (options.protocol) {
    case "HTTP2":
      return [http2];
    case "DOWNSTREAM":
      return [http1, http2];
    case "ALPN":
      return [
        {
          name: "ALPN",
          expectedCapacity,
          codec: (connection) => (negotiated(connection) === "h2" ? codec : codecs.http1),
        },
      ];
  }
}

function filterMetadata(metadata: unknown): Readonly<Record<string, unknown>> | undefined {
  return (metadata as { readonly filter_metadata?: Readonly<Record<string, unknown>> } | undefined)
    ?.filter_metadata;
}

/** The client of a request, for a transport that names it. */
function clientOf({ stream }: BalancerContext): TransportOptions["downstream"] {
  const { remoteAddress, localAddress, metadata } = stream?.downstreamConnection ?? {};
  if (remoteAddress === undefined || localAddress === undefined) return undefined;
  return { remoteAddress, localAddress, metadata };
}

/** What the TLS handshake has settled on; "" on a connection without TLS. */
function negotiated(connection: Connection): string {
  return connection.tls?.alpn ?? "";
}

/** The same, from the address that the config has for upstreams of that family. */
function codecOptions(options: ClusterOptions, stats: Stats): CodecOptions {
  return {
    maxHeadBytes: options.maxHeadBytes,
    maxHeaders: options.maxHeaders,
    enableTrailers: options.enableTrailers,
    acceptHttp10: true,
    defaultHostForHttp10: "",
    allowAbsoluteUrl: true,
    allowChunkedLength: options.allowChunkedLength,
    allowCustomMethods: true,
    headersWithUnderscores: "ALLOW",
    headerKeyFormat: options.headerKeyFormat,
    sendsAbsoluteUrl: options.sendsAbsoluteUrl,
    http2: options.http2,
    stats,
  };
}
