import type { RequestEncoder, ResponseDecoder } from "./codec.ts";
import type { SetupContext, Slot } from "./extension.ts";
import type { HeaderMap, RequestHeaders } from "./headers.ts";
import type { HttpFilterFactory, HttpStream } from "./http.ts";
import type { Address, Connection, ConnectionHandler, DownstreamConnection } from "./network.ts";
import type { Counter, Gauge, Stats } from "./stats.ts";
import type { OverrideHost } from "./stream-wishes.ts";

/** Envoy's RoutingPriority: each has limits of its own in a cluster. */
export type Priority = "default" | "high";

/** A key of `envoy.lb` that the chosen host's metadata should have with this value (JSON). */
export interface MetadataCriterion {
  readonly key: string;
  readonly value: unknown;
}

/** The request as balancers and their callers see it. */
export interface BalancerContext {
  /** The request's hash by the policies of its route: 64 bits, unsigned (`xxHash64`). Undefined: they found nothing to hash. */
  readonly hash?: bigint | undefined;
  /** For subsets: sorted by key; requests for the same subset have the same array. Undefined or empty: no subset is asked for. */
  readonly metadataMatch?: readonly MetadataCriterion[] | undefined;
  /** Undefined: DEFAULT. */
  readonly priority?: Priority | undefined;
  /**
   * A retry: true if it should not go to that host (`retry_host_predicate`). After `hostSelectionRetries` further choices any
   * host will do.
   */
  rejects?(host: Host): boolean;
  /** How often another host is chosen in the place of a rejected one. Undefined: never. */
  readonly hostSelectionRetries?: number | undefined;
  /** A retry: levels of priority that get no load (`retry_priority`), unless no other level has any. */
  readonly excludedPriorities?: ReadonlySet<number> | undefined;
  /** An aggregate cluster has chosen the level already, among the levels of all its clusters. */
  readonly level?: { readonly priority: number; readonly degraded: boolean } | undefined;
  /** If there is no `stream`: the request's head as it goes to the upstream. Some clusters connect to the host that it names. */
  readonly head?: RequestHeaders | undefined;
  /** The request itself, for clusters that choose by it (`Cluster.choosesByStream`). */
  readonly stream?:
    | Pick<
        HttpStream,
        "request" | "info" | "metadata" | "filterState" | "hasFilterState" | "downstreamConnection"
      >
    | undefined;
  /** The host that a filter wants (`WISH.UPSTREAM_HOST`), before any balancer is asked. */
  readonly overrideHost?: OverrideHost | undefined;
  /** Called by a balancer that hashes cookies, with a `set-cookie` line for the client; the last one counts. */
  giveCookie?(cookie: string): void;
  /** The protocol that the request came in, for clusters that pass it on in the same one (`use_downstream_protocol_config`). */
  readonly downstreamProtocol?: "HTTP/1.0" | "HTTP/1.1" | "HTTP/2" | undefined;
  /** `Cluster.connect`: the client whose bytes the connection will carry, for a PROXY header and the like. */
  readonly downstream?: DownstreamConnection | undefined;
}

/** The filter state that a choice goes by: the request's, or that of the connection whose bytes are carried. */
export function contextState({
  stream,
  downstream,
}: BalancerContext): ReadonlyMap<string, unknown> | undefined {
  if (stream === undefined) return downstream?.filterState;
  return stream.hasFilterState === false ? undefined : stream.filterState;
}

/** An endpoint that is alive in a cluster. */
export interface Host {
  readonly address: Address;
  /** `ip:port`, the key in stats and admin. */
  readonly key: string;
  readonly hostname: string;
  /** The zone of its locality; absent or empty: none is given. */
  readonly zone?: string;
  readonly locality?: HostSpec["locality"] | undefined;
  /** True: its metadata has `canary: true` under `envoy.lb`. */
  readonly canary?: boolean;
  readonly weight: number;
  /** Level of priority, 0 the first (also if absent). */
  readonly priority?: number;
  /** `metadata` of the endpoint as the config or discovery gave it: `{ filter_metadata: { "envoy.lb": { … } } }`. */
  readonly metadata?: unknown;
  readonly health?: HostHealth;
  /** `health` is not `unhealthy`. */
  readonly healthy: boolean;
  /** When it first was healthy, or active checks last found it healthy again, on the clock of `cx.now()`; slow start counts from here. */
  readonly healthySince?: number | undefined;
  /** Requests in progress on this worker; counted by the pool. */
  activeRequests: number;
  /**
   * Whoever made an attempt on this host (the router, a fetch) reports how it went, by one of the next three methods; this one: a
   * response with that status came. The methods count `rq_success`, `rq_error` and `rq_timeout`. A `retried` response counts as
   * an error, whatever its status. A `deferred` one is counted later, by `onDeferredEnd`.
   */
  onResponse(status: number, retried?: boolean, deferred?: boolean): void;
  /**
   * No complete response came in time. `begun`: its head did come, so the timeout is not held against the host. `told`: `onSlow`
   * has told outlier detection of it.
   */
  onTimeout(begun?: boolean, told?: boolean): void;
  /** No response has come yet, and another attempt may begin beside this one: for outlier detection that is a timeout. */
  onSlow?(): void;
  /** No answer came at all: a reset, or a PoolFailure that names this host. */
  onReset(): void;
  /** After a `deferred` response, once at most: whether it counts as a success. */
  onDeferredEnd?(ok: boolean): void;
  /** Called when a response has `x-envoy-immediate-health-check-fail`. Undefined: such responses have no effect. */
  readonly onImmediateHealthCheckFail?: (() => void) | undefined;
  /** Called when a response that is no error of the host has `x-envoy-degraded`. Undefined: such responses have no effect. */
  readonly onDegraded?: (() => void) | undefined;
  /** Called with the head and the trailers of each response, which may report the host's load. Set by balancers that use that. */
  onLoadReport?: ((lines: HeaderMap) => void) | undefined;
}

/** What health checks and outlier detection make of a host: "degraded" ones are used where healthy ones do not suffice. */
export type HostHealth = "healthy" | "degraded" | "unhealthy";

/** A host as configuration or discovery names it; plain JSON, so that it can be published. */
export interface HostSpec {
  /** What identifies the host, where its address does not: it may move to another one. Absent: the address does. */
  readonly id?: string;
  readonly ip: string;
  readonly port: number;
  readonly path?: string;
  /** Further addresses of it (`additional_addresses`, or what else its name resolves to): the first that answers is used. */
  readonly additionalAddresses?: readonly Address[];
  readonly hostname: string;
  readonly weight: number;
  readonly priority: number;
  readonly healthStatus: string;
  readonly locality?: {
    readonly region?: string;
    readonly zone?: string;
    readonly sub_zone?: string;
  };
  /** `load_balancing_weight` of its locality; absent: none is given. */
  readonly localityWeight?: number;
  /** `{ filter_metadata: { "envoy.lb": {…} } }` */
  readonly metadata?: unknown;
  /** `health_check_config`: how checks of this host differ from those of its cluster; absent: not at all. */
  readonly healthCheck?: {
    readonly disabled: boolean;
    /** 0: the host's own. */
    readonly port: number;
    readonly ip?: string;
    readonly hostname: string;
  };
}

/** A cluster package's setup returns this. Config: the whole cluster, Envoy's v3 fields. */
export interface ClusterType {
  /** Hosts that are known from the config alone. */
  readonly initialHosts: readonly HostSpec[];
  /**
   * Finds hosts, on the control thread alone; updates reach every worker, and the first one ends the cluster's warming. The
   * function that is returned stops it when the package's code is replaced; otherwise it stops with `cx`. `changes`: in how
   * many updates Envoy would make this change, which `membership_change` counts; absent: one. `heard` false: nobody has answered yet;
   * a start waits no longer, but a cluster that was made while others serve does.
   */
  discover?(
    update: (hosts: readonly HostSpec[], changes?: number, heard?: boolean) => void,
    cx: SetupContext,
    made: MadeClusters,
  ): void | (() => void);
  /** Names of the clusters that this one is made of (aggregate): their levels of priority follow each other in this order. */
  readonly clusters?: readonly string[];
  /**
   * Present where requests name the hosts, so that TLS has to ask for that name and to find it in the certificate (`auto_sni`,
   * `auto_san_validation`). Both are on where the config has no HTTP options. "verified": a config without them is refused.
   */
  readonly peerNames?: "verified" | "any";
  /** CLUSTER_PROVIDED: the type itself says which host a request goes to, on every worker. */
  provide?(own: ProvidedHosts): ProvidedBalancer;
}

/**
 * Clusters that a cluster's type makes while the proxy serves, on the control thread: all threads set them up. They live on over
 * reloads, for as long as the cluster that made them stays as it is in the config.
 */
export interface MadeClusters {
  /** False: this generation is only prepared, or has ended, and changes nothing. */
  readonly serves: boolean;
  /** The cluster that makes them. */
  readonly parent: string;
  /** Those that it has made. */
  readonly names: ReadonlySet<string>;
  /**
   * Adds a cluster, or puts another config in the place of one that was made so: that of the cluster itself with other `fields`
   * (Envoy's). False: it was not added. One whose config is refused, as the log says then, never gets ready.
   */
  put(name: string, fields: Readonly<Record<string, unknown>>): boolean;
  /** Its requests end as they would have; new ones do not find it. */
  remove(name: string): void;
}

/** The same on any thread, for those who send requests. */
export interface ReadyClusters {
  /** The cluster that makes them. */
  readonly parent: string;
  /** It is set up here, its first hosts are known and their first checks done. */
  has(name: string): boolean;
  /** The host that its balancer chooses. Undefined: it is not ready or has none. */
  choose(name: string, context: BalancerContext): Host | undefined;
  /** Called for each that gets ready on this thread. */
  onReady: ((name: string) => void) | undefined;
}

/** Chooses hosts in the place of a policy, for a cluster type that knows better (`CLUSTER_PROVIDED`). */
export interface ProvidedBalancer {
  /** Undefined: none. */
  choose(context: BalancerContext): Host | undefined;
  /** Asked when `choose` found none: settles once the request's host may be there. Undefined: there will be none. */
  whenNamed?(context: BalancerContext): Promise<unknown> | undefined;
  /** Present in clusters whose hosts are named by requests. */
  readonly names?: HostNames;
  dispose?(): void;
}

/** A cluster that looks up a host's address when a request names the host. */
export interface HostNames {
  /** True: even an empty authority may be asked for. */
  readonly takesEmpty?: boolean;
  /**
   * `known`: `choose` will find the host that `state` names (`STATE.DYNAMIC_HOST`), or else the authority. `waitMs`: how long it may
   * take until the host's own cluster is ready, if each has one.
   */
  resolve(
    authority: string,
    state: ReadonlyMap<string, unknown> | undefined,
    waitMs: number,
  ): NameOutcome | Promise<NameOutcome>;
}
/**
 * `failed`: why the host has no address. `overflow`: too many hosts. `pending_overflow`: too many requests wait for one.
 * `sub_cluster_overflow`: each host has a cluster of its own, and there are too many. `sub_cluster_timeout`: the host's is not ready in
 * time. `again`: another generation has taken over, which may be asked.
 */
export type NameOutcome =
  | "known"
  | "overflow"
  | "pending_overflow"
  | "sub_cluster_overflow"
  | "sub_cluster_timeout"
  | "again"
  | { readonly failed: string };

/** Hosts that a worker makes as requests ask for them. */
export interface ProvidedHosts {
  /** `cluster.<name>.` */
  readonly stats: Stats;
  /** The host of that address, made when it is first asked for. Undefined: there are as many hosts as there may be. */
  at(address: Address, hostname: string): Host | undefined;
  /** A host that discovery has named, by its id. */
  find(id: string): Host | undefined;
  /** Clusters that the type has made. */
  readonly made: ReadyClusters;
  /** All that there are. On the control thread stats and admin go by them. */
  readonly hosts: readonly Host[];
  /** Where an authority names no port: 443 if connections are encrypted, else 80. */
  readonly defaultPort: number;
  /** Drops idle hosts that no request has named since `sinceMs` on the clock of `cx.now()`. */
  sweep(sinceMs: number): void;
}

/**
 * Hosts of one priority level that may be chosen now: its healthy ones, or its degraded ones, or in panic all of the level; where
 * the policy counts localities, those of one locality. Each set has a balancer, made anew with every change of the hosts.
 */
export interface HostSet {
  /** The same set before and after an update has the same key: `0|healthy`. */
  readonly key: string;
  /** May be empty. */
  readonly hosts: readonly Host[];
  /** Each host's part in the weight of all, with the weights of localities where the policy counts those. The sum is 1. */
  readonly shares: readonly number[];
}

/** Chooses a host for each request, out of those that its policy was given. */
export interface Balancer {
  /**
   * Undefined: there is no host. `attempt` counts the hosts that `context.rejects` has turned down so far, for balancers that
   * choose by hash: they have to answer another host each time.
   */
  choose(context: BalancerContext, attempt?: number): Host | undefined;
  /**
   * A choice made ahead, to open a connection before a request needs it; that request then gets this host without another choice.
   * Absent: the policy depends on the request or the moment.
   */
  peek?(context: BalancerContext): Host | undefined;
  /** Another balancer has taken its place. */
  dispose?(): void;
}

/** What a balancer package's setup returns: a policy for each set of hosts, or one for the whole cluster. */
export type BalancerPolicy = LevelPolicy | ClusterPolicy;

/** Makes a balancer for each set of hosts: those of one priority, locality or subset. */
export interface LevelPolicy {
  create(set: HostSet): Balancer;
  /** Undefined: localities do not count. */
  readonly localities?: LocalityPolicy | undefined;
  /** The hash of a request chooses its level too. No locality is chosen first; the weights of localities are in `shares`. */
  readonly hashing?: boolean;
  /** A hash of the policy's own, in the place of `BalancerContext.hash`. */
  hash?(context: BalancerContext): bigint | undefined;
  /** It looks at the request itself (`BalancerContext.stream`). */
  readonly byStream?: boolean;
  /** A policy in a sandbox is set up there: `call` runs once, when its `localities` and `hashing` are known. */
  onKnown?(call: () => void): void;
}

/** Envoy's LocalityLbConfig. */
export type LocalityPolicy =
  | { readonly type: "weighted" }
  | {
      readonly type: "zone_aware";
      /** Percent of the requests. */
      readonly routingEnabled: number;
      readonly minClusterSize: number;
      readonly failTrafficOnPanic: boolean;
      /** With this many healthy hosts in the own zone, all requests stay in it; undefined: no such rule. */
      readonly forceLocalZoneMinSize?: number | undefined;
      /** Zones count by the weights of their healthy hosts, not by how many they are. */
      readonly byWeight: boolean;
    };

/** A policy that stands above priorities and health: it divides the hosts, and leaves the choice to other policies. */
export interface ClusterPolicy {
  /** It looks at the request itself (`BalancerContext.stream`). */
  readonly byStream?: boolean;
  compose(cluster: BalancedCluster, previous: Balancer | undefined): Balancer;
}

/** What a policy for the whole cluster has to choose from. */
export interface BalancedCluster {
  /** All, whatever their health, in the order of the config. */
  readonly hosts: readonly Host[];
  /** `cluster.<name>.` */
  readonly stats: Stats;
  /**
   * Spreads requests over some of the hosts as if they were a cluster: by priorities, health, panic and localities, and then by
   * that policy. `key` keeps them apart from others of this cluster.
   */
  spread(
    key: string,
    hosts: readonly Host[],
    policy: Slot<BalancerPolicy>,
    options?: SpreadOptions,
  ): Balancer;
  /** The host of that address (`ip:port`). */
  find(address: string): Host | undefined;
}

/** How a policy that stands above others spreads requests over localities. */
export interface SpreadOptions {
  /** Weights of localities: as configured (default), scaled by how many of their hosts these are, or none. */
  readonly localityWeights?: "configured" | "scaled" | "none";
  /** Replaces what the policy itself says of localities. */
  readonly localities?: LocalityPolicy;
}

/** The cluster manager, reached as `cx.clusters`. */
export interface Clusters {
  get(name: string): Cluster | undefined;
  /** True if `get` would answer a cluster. Spares the setup of clusters that wait for their first use. */
  has?(name: string): boolean;
  /** What /clusters and /config_dump show besides figures. Undefined anywhere but on the control thread. */
  status?(): ClusterManagerStatus | undefined;
}

/** Stats of a cluster (`cluster.<name>.upstream_…`) that are counted by those that send requests. */
export interface ClusterStats {
  /** These two are counted by the pool, the others by the router. */
  readonly rqTotal: Counter;
  readonly rqActive: Gauge;
  readonly rqTimeout: Counter;
  readonly rqCompleted: Counter;
  /** `upstream_cx_protocol_error`: once for each `onDecodeError` of a response. */
  readonly cxProtocolError: Counter;
}

/** Why no exchange could be begun. */
export interface PoolFailure {
  readonly reason:
    | "no_host"
    | "connection_failed"
    /** Nothing was sent: its source address was not to be had. */
    | "local_connection_failed"
    | "connection_timeout"
    | "overflow";
  readonly host: Host | undefined;
  /** `delayed_connect_error: Connection refused`; "" if there is none. */
  readonly transportFailure: string;
}

/** Who waits for an exchange. Exactly one of the two methods is called, unless the handle is cancelled first. */
export interface PoolCallbacks {
  readonly decoder: ResponseDecoder;
  /** A connection is there, and the exchange may begin. May be called before `newStream` returns. */
  onPoolReady(encoder: RequestEncoder, host: Host, connection: Connection): void;
  onPoolFailure(failure: PoolFailure): void;
}

/** An exchange that waits for a connection. */
export interface PoolHandle {
  /** The host to which a connection is awaited; undefined: none is chosen yet. */
  readonly host?: Host | undefined;
  cancel(): void;
}

/** A filter of exchanges with hosts, behind the router. */
export interface UpstreamFilter {
  readonly name: string;
  readonly slot: Slot<HttpFilterFactory>;
}

/** Histograms that a cluster has only where its config asks for them. */
export interface TrackedStats {
  /** How much of their timeout requests and their attempts have used, in percent. */
  readonly timeoutBudgets: boolean;
  /** Bytes of heads and bodies of both directions, and fields of heads. */
  readonly requestResponseSizes: boolean;
}

/** How many of each a cluster has under way, over all workers. */
export interface ClusterUse {
  readonly connections: number;
  readonly requests: number;
  readonly pendingRequests: number;
}

/** One cluster of the config, which lends exchanges and connections with its hosts. `cx.fetch` is the simple way to ask it. */
export interface Cluster {
  readonly name: string;
  /** `alt_stat_name`, in logs and stats; absent: the name. */
  readonly observabilityName?: string;
  /** `{ filter_metadata: { … } }` */
  readonly metadata?: unknown;
  /** `cluster.<alt_stat_name or name>.` */
  readonly stats: Stats;
  readonly traffic: ClusterStats;
  readonly hosts: readonly Host[];
  /**
   * Its hosts or its connections depend on the request: `BalancerContext.stream` has to be given, or `head` if that is enough.
   */
  readonly choosesByStream?: boolean;
  /** Its hosts are those that requests name (`dynamic_forward_proxy`): a filter has to have the name resolved first. */
  readonly names?: HostNames | undefined;
  readonly connectTimeoutMs: number;
  /** How long an exchange may take at most; absent: as long as it likes. */
  readonly maxStreamDurationMs?: number | undefined;
  /** `drop_overloads`: the part of its requests that is turned away, 0 to 1. Absent: none. */
  readonly dropOverload?: number | undefined;
  /** `track_cluster_stats`: what the router measures of its exchanges. Absent: nothing. */
  readonly tracks?: TrackedStats | undefined;
  /** `http_filters` of its protocol options, in the order of the config. Absent: the router's own are used. */
  readonly httpFilters?: readonly UpstreamFilter[] | undefined;
  /** What its circuit breakers of both priorities count now, in all workers. */
  readonly inUse?: ClusterUse;
  /**
   * Asks the circuit breaker for retries (`max_retries`, or the retry budget). After true, `endRetry` is called once; false: too
   * many run.
   */
  beginRetry(priority: Priority): boolean;
  endRetry(priority: Priority): void;
  /** Chooses a host and begins an HTTP exchange on a pooled connection. Undefined: a callback has been called already. */
  newStream(callbacks: PoolCallbacks, context: BalancerContext): PoolHandle | undefined;
  /**
   * A UDP session counts as a connection in the circuit breaker. After true, `endSession` is called once; false: there are too
   * many.
   */
  beginSession?(): boolean;
  endSession?(): void;
  /** Priority of a host of this cluster. Absent: `Host.priority`. The two differ in a cluster that is made of other clusters. */
  priorityOf?(host: Host): number;
  /** Chooses a host and opens nothing (udp_proxy). Undefined: there is none. */
  chooseHost?(context: BalancerContext): Host | undefined;
  /**
   * Chooses a host and opens a connection that is the caller's own (tcp_proxy). "overflow": there are too many connections. Without
   * `connection` too many others wait for theirs (`max_pending_requests`).
   */
  connect(
    handler: ConnectionHandler,
    context: BalancerContext,
  ): { readonly connection: Connection | undefined; readonly host: Host } | "no_host" | "overflow";
}

/** Workers publish on it what hosts weigh for a balancer that does not go by the weights of the config; admin shows it. */
export const WEIGHTS_TOPIC = "host_weights";
/** The value of WEIGHTS_TOPIC: what the hosts of one cluster weigh from now on. */
export interface HostWeights {
  readonly cluster: string;
  /** By the host's key. */
  readonly weights: readonly (readonly [string, number])[];
}

/** Answered by `Clusters.status`. */
export interface ClusterManagerStatus {
  readonly clusters: readonly ClusterStatus[];
}
/** One cluster, as admin's `/clusters` and `/config_dump` tell of it. */
export interface ClusterStatus {
  readonly name: string;
  readonly observabilityName: string;
  readonly addedViaApi: boolean;
  /** It was made while the proxy serves: by which cluster, and how its config differs from that one's. `at`: in ISO 8601. */
  readonly made?: {
    readonly parent: string;
    readonly fields: Readonly<Record<string, unknown>>;
    readonly at: string;
    /** Its first hosts are not known yet, or not checked. */
    readonly warming: boolean;
  };
  /** Figures of its hosts are stats as well: `cluster.<name>.endpoint.<address>.`. */
  readonly perEndpointStats?: boolean;
  /** The success rates that outlier detection judges hosts by, in percent; -1 or absent: none. */
  readonly outlier?: {
    readonly successRateAverage: number;
    readonly successRateEjectionThreshold: number;
    readonly localOriginSuccessRateAverage: number;
    readonly localOriginSuccessRateEjectionThreshold: number;
  };
  /** `policy` of its ClusterLoadAssignment, as config dumps show it. */
  readonly policy?: Readonly<Record<string, unknown>>;
  /** Limits as Envoy reports them, DEFAULT priority and then HIGH. */
  readonly thresholds: readonly [Thresholds, Thresholds];
  readonly hosts: readonly HostStatus[];
}
/** What the circuit breakers of one routing priority let be there at once. */
export interface Thresholds {
  readonly maxConnections: number;
  readonly maxPendingRequests: number;
  readonly maxRequests: number;
  readonly maxRetries: number;
}
/** One host of a cluster, as admin's `/clusters` tells of it. */
export interface HostStatus extends HostSpec {
  /** Stands for `key` in the names of its cells, where they have another one. */
  readonly cells?: string;
  /** In percent, over the last interval of outlier detection; -1: not measured. */
  readonly successRate?: number;
  readonly localOriginSuccessRate?: number;
  /** `ip:port`, which also stands in the names of its cells: `@host|<cluster>|<key>|cx_active`. */
  readonly key: string;
  /** `healthy`, or `/failed_eds_health` and the like, one after the other. */
  readonly healthFlags: string;
  readonly canary: boolean;
}
