import type { AccessLogger } from "./access-log.ts";
import type { CellSpec, OpenCells, SharedCells } from "./cells.ts";
import type { BalancerPolicy, Clusters, ClusterType } from "./cluster.ts";
import type { ClusterSpecifier } from "./cluster-specifier.ts";
import type { CodecFactory } from "./codec.ts";
import type { FetchInit, FetchResponse } from "./fetch.ts";
import type { Format, FormatSource } from "./format.ts";
import type { HealthChecker } from "./health.ts";
import { type HttpFilterFactory, type HttpStream, RouteSetups } from "./http.ts";
import type {
  Address,
  Connection,
  ConnectionHandler,
  ConnectOptions,
  ListenerFilterFactory,
  NetworkFilterFactory,
} from "./network.ts";
import type { Runtime } from "./runtime.ts";
import type { SandboxManifest } from "./sandbox-manifest.ts";
import type { ExtensionRef, Static, TSchema } from "./schema.ts";
import type { Service } from "./service.ts";
import type { Stats } from "./stats.ts";
import { type DeclaredStats, type OpenStats, openStats } from "./stats-spec.ts";
import type { Tls, TransportFactory } from "./transport.ts";
import type { UdpHandler, UdpListenerFilter, UdpSocket } from "./udp.ts";

/** What `setup` of each kind returns: the thing that makes filters, or the one object that serves all. */
export interface Kinds {
  listener: ListenerFilterFactory;
  network: NetworkFilterFactory;
  http: HttpFilterFactory;
  codec: CodecFactory;
  cluster: ClusterType;
  cluster_specifier: ClusterSpecifier;
  balancer: BalancerPolicy;
  health: HealthChecker;
  access_log: AccessLogger;
  service: Service;
  transport: TransportFactory;
  udp: UdpListenerFilter;
}
/** What a package is: a name of a contract of this SDK. */
export type Kind = keyof Kinds;

/** What `filter.ts` of a package exports as its default; the `define…` functions make it. */
export interface Definition<K extends Kind = Kind, S extends TSchema = TSchema> {
  readonly kind: K;
  /** Envoy's full name, or the bare name of a dropped-in filter. */
  readonly name: string;
  /** Other names that configs use, Envoy's old ones above all (`envoy.router`). */
  readonly aliases?: readonly string[];
  /** Messages that select this package in `typed_config`: `envoy.extensions.filters.http.router.v3.Router`. */
  readonly types?: readonly string[];
  /** It ends its chain: it answers or forwards, and no filter may follow it. */
  readonly terminal?: boolean;
  /** A shipped package that is to live in an isolate of its own, as dropped-in ones do. */
  readonly placement?: "sandbox";
  /** What it may do in a sandbox, and what becomes of its streams when it fails. */
  readonly sandbox?: SandboxManifest;
  /** A service: where it runs, and which section of the bootstrap is its config (`admin`). */
  readonly runs?: "workers" | "control" | "everywhere";
  readonly section?: string;
  readonly config: S;
  /** Schema of `typed_per_filter_config` (http only). */
  readonly routeConfig?: TSchema;
  /**
   * Questions that the command line may ask the package without a running proxy (`route check`): JSON in and out, in an isolate of
   * its own. May throw: the message is the answer.
   */
  readonly tools?: Readonly<Record<string, (input: unknown, cx: SetupContext) => unknown>>;
  /**
   * Called once per use in the config, generation and isolate. May throw: the config (or the new code) is refused with that
   * message and nothing changes for traffic.
   */
  setup(config: Static<S>, cx: SetupContext): Kinds[K];
}

type Spec<K extends Kind, S extends TSchema, C extends SharedCells, D extends DeclaredStats> = Omit<
  Definition<K, S>,
  "kind" | "setup"
> & {
  /** Cells that `cx.shared` gives, one set for each place in the config: over all workers, and kept over reloads. */
  readonly shared?: C;
  /** Stats that `cx.stat` gives: `<cx.statPrefix><name>.<their name>`. */
  readonly stats?: D;
  setup(config: Static<S>, cx: ContextWith<C, D>): Kinds[K];
};
/** The `cx` of a `setup` whose definition declares cells and stats. */
export type ContextWith<
  C extends SharedCells,
  D extends DeclaredStats = Record<never, never>,
> = SetupContext & { readonly shared: OpenCells<C>; readonly stat: OpenStats<D> };

const define =
  <K extends Kind>(kind: K) =>
  <
    S extends TSchema,
    C extends SharedCells = Record<never, never>,
    D extends DeclaredStats = Record<never, never>,
  >(
    spec: Spec<K, S, C, D>,
  ): Definition<K, S> => {
    const { shared, stats, ...definition } = spec;
    return { kind, ...definition, setup: (config, cx) => spec.setup(config, open(spec, cx)) };
  };

/** Adds to the context, of which each setup has its own, what the definition declares: `shared` and `stat`. */
function open<C extends SharedCells, D extends DeclaredStats>(
  { name, shared, stats }: { readonly name: string; readonly shared?: C; readonly stats?: D },
  cx: SetupContext,
): ContextWith<C, D> {
  const cells: Record<string, unknown> = {};
  for (const [cell, spec] of Object.entries(shared ?? {})) cells[cell] = cx.cell(cell, spec);
  const stat = openStats(stats, cx.stats, `${cx.statPrefix ?? ""}${name}.`, cx);
  return Object.assign(cx, { shared: cells as OpenCells<C>, stat });
}

/** Defines an HTTP filter. `setupRoute`: runs once for each per-route config, as `setup` does for the filter's own. */
export function defineHttpFilter<
  S extends TSchema,
  R extends TSchema = TSchema,
  C extends SharedCells = Record<never, never>,
  D extends DeclaredStats = Record<never, never>,
>(
  spec: Omit<Spec<"http", S, C, D>, "routeConfig"> & {
    readonly routeConfig?: R;
    readonly setupRoute?: (config: Static<R>, cx: ContextWith<C, D>) => unknown;
  },
): Definition<"http", S> {
  const { setupRoute, shared, stats, ...definition } = spec;
  const setup = (config: Static<S>, cx: SetupContext): HttpFilterFactory => {
    const own = open(spec, cx);
    const make = spec.setup(config, own);
    if (setupRoute === undefined) return make;
    const routes = new RouteSetups((route) => setupRoute(route as Static<R>, own));
    // With what it tells of its filters.
    return Object.assign((stream: HttpStream) => make(stream), make, { routes });
  };
  return { kind: "http", ...definition, setup };
}

/** Filters of bytes: a chain of them serves each connection. */
export const defineNetworkFilter = define("network");
/** Filters that look at the first bytes of a connection before its chain is chosen. */
export const defineListenerFilter = define("listener");
/** Translates between the bytes of a connection and streams: a version of HTTP. */
export const defineCodec = define("codec");
/** Types of clusters: where their hosts come from. */
export const defineCluster = define("cluster");
/** Chooses the cluster of a route by code. */
export const defineClusterSpecifier = define("cluster_specifier");
/** Policies that choose a host of a cluster for each request. */
export const defineBalancer = define("balancer");
/** Asks the hosts of a cluster whether they are well. */
export const defineHealthChecker = define("health");
/** Loggers of streams and connections that have ended. */
export const defineAccessLogger = define("access_log");
/** What runs once in a process, beside the traffic. */
export const defineService = define("service");
/** What lies between a connection's socket and its bytes: TLS, or a header before them. */
export const defineTransport = define("transport");
/** Filters of the datagrams of a UDP listener. */
export const defineUdpFilter = define("udp");

/**
 * A use of an extension whose code or config may be replaced. Read `current` for each new connection or stream, never keep
 * its value across them; hold the generation with `acquire` while a stream uses it.
 */
export interface Slot<T> {
  readonly ref: ExtensionRef;
  readonly current: Generation<T>;
}

/** One version of an extension's code and config, and what its `setup` has returned. */
export interface Generation<T> {
  readonly value: T;
  readonly number: number;
  acquire(): void;
  /** The last release of a generation that has been replaced disposes of it. */
  release(): void;
}

/** Fires once each time that it is armed. */
export interface Timer {
  /** Fires once, `ms` from now (not before; up to 20 ms late). Arming again moves it. */
  arm(ms: number): void;
  cancel(): void;
  readonly armed: boolean;
}

/** `stack`, that of an error, is written as the place in the source that it names. */
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;
/** Lines of the proxy's log, with the name of the package. */
export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

/** An append-only file, buffered by core. A line is never split and never blocks the data path. */
export interface FileSink {
  append(line: string): void;
  /** Appends what the format makes of `source`: the same as to append its text, with fewer strings on the way. */
  print(format: Format, source: FormatSource): void;
  flush(): void;
}

/** Counts up over all workers of the process, from a random start. */
export interface Turns {
  /** 0 to 2^32 - 1, then 0 again. */
  next(): number;
}

/**
 * A count that all workers share: exact, and what a worker holds is given back when its isolate is lost. Each call answers how
 * many are held after it, so that of all workers one alone sees a limit reached.
 */
export interface SharedCount {
  readonly value: number;
  /** 0: `max` or more are held already, and nothing is taken. */
  tryAcquire(max: number): number;
  acquire(): number;
  release(): number;
  /** The caller of `sharedCount` neither holds nor needs it any more. For those that ask for ever new names, which are limited. */
  dispose?(): void;
}

/** RE2 semantics (linear time). */
export interface Regex {
  /** How many groups it has: `\\1` to `\\9` in a substitution may name no more. */
  readonly groups: number;
  /** The whole text matches. */
  matches(text: string): boolean;
  /** Every match replaced; `\1` in the substitution is the first group. */
  replaceAll(text: string, substitution: string): string;
}

/** What core gives to a package. Timers, connections and subscriptions made through it end with the generation. */
export interface SetupContext {
  /** `canary`: setup only proves that the config is good; no connection, no subscription takes effect. */
  readonly role: "worker" | "control" | "canary";
  /**
   * False on a worker: no canary has run `setup` with this config, so a worker has to check all that it may be refused for.
   * Absent: true.
   */
  readonly rehearsed?: boolean;
  /**
   * True: this is an isolate of the package's own, where what would need another one throws: `clusters`, `extension`, `shipped`,
   * `connect`, `udp`, `adopt`, `readFile`, `watchFile`, `tls`, `publish`, `subscribe`, `subscribeAll`, `retract`, `waitFor`, `turns`,
   * `sharedCount`, `operation`, `child`. A package that needs one of these is marked `"tsproxy": { "trusted": true }`.
   */
  readonly sandboxed?: boolean;
  readonly worker: number;
  readonly node: {
    readonly id: string;
    readonly cluster: string;
    readonly locality?: {
      readonly region?: string | undefined;
      readonly zone?: string | undefined;
      readonly sub_zone?: string | undefined;
    };
    /** `cluster_manager.local_cluster_name`: the cluster whose members are this proxy and its like. */
    readonly localCluster?: string;
    /** The machine's own address that is not loopback: what x-forwarded-for gets for a client on this machine. */
    readonly address?: string;
  };
  readonly log: Log;
  readonly stats: Stats;
  /** Values of the bootstrap's `layered_runtime`, as they are at the moment. */
  readonly runtime: Runtime;
  /** What Envoy puts before the filter's own stats: `http.<stat_prefix>.` in a connection manager's chain. Absent: nothing. */
  readonly statPrefix?: string;
  /** In a listener's chain: its `listener.statPrefix` (DownstreamConnection), for stats that exist before the first connection. */
  readonly listenerStatPrefix?: string | undefined;
  /** The name that the config gives to this use. Absent: not known here. */
  readonly configName?: string;
  /** The clusters of the config, for packages that send requests and bytes by themselves. Throws in a sandbox: `fetch` is there. */
  readonly clusters: Clusters;
  /**
   * Asks a cluster: `cx.fetch("auth:/check?user=7", { method: "POST", body })`. Balancing, pools and limits are the cluster's. Rejects
   * with a FetchError when there is no answer.
   */
  fetch(target: string, init?: FetchInit): Promise<FetchResponse>;
  /** Milliseconds on a monotonic clock, read once a poll phase. */
  now(): number;
  timer(onFired: () => void): Timer;
  /** The slot of another extension that the config uses. Throws if there is no such package of that kind, and in a sandbox. */
  extension<K extends Kind>(
    kind: K,
    ref: ExtensionRef,
    options?: {
      /** Becomes the extension's `cx.statPrefix`. */
      readonly statPrefix?: string;
    },
  ): Slot<Kinds[K]>;
  /**
   * The slot of a package that the config need not name, with its default config: `cx.shipped("codec", "codec/http1")`. Throws in a
   * sandbox.
   */
  shipped<K extends Kind>(kind: K, packageName: string, config?: unknown): Slot<Kinds[K]>;
  /** Throws with the construct's name if RE2 has no such syntax. */
  regex(pattern: string): Regex;
  /** Connects to an address, past all clusters. Throws in a sandbox. */
  connect(address: Address, handler: ConnectionHandler, options: ConnectOptions): Connection;
  /** Opens a UDP socket towards one peer; the caller closes it. Throws in a sandbox. */
  udp(address: Address, handler: UdpHandler, options?: { readonly bind?: Address }): UdpSocket;
  /**
   * Takes over a connection that the generation before has opened: its events go to `handler` from here on, and it ends with this
   * generation. For hand-overs (`previous`): called when the generation before ends, or later. Throws in a sandbox.
   */
  adopt(connection: Connection, handler: ConnectionHandler): void;
  /** The file that lines are appended to. In a sandbox only one that the config of this use names; lines to others are dropped. */
  file(path: string): FileSink;
  /**
   * The whole of a file; a relative path counts from where the proxy was started. Throws if it cannot be read, and in a sandbox, where a
   * `DataSource` of the config does the same. In `setup` only: it waits for the disk.
   */
  readFile(path: string, encoding?: "utf8" | "base64"): string;
  /**
   * Calls `onChanged` within a second or two after the file has changed, until the generation ends. It may read files anew, of which it
   * gets the same contents in all workers, and answers whether what it has read serves now: then that is what a process begins with that
   * has to take this one's place. Throws in a sandbox.
   */
  watchFile(path: string, onChanged: () => boolean): void;
  /** Makes the TLS contexts that transports use. Throws in a sandbox. */
  readonly tls: Tls;
  /**
   * Tells every isolate that has subscribed; the last value is kept for those that subscribe later. JSON values. Throws in a
   * sandbox, as do the next three.
   */
  publish(topic: string, value: unknown): void;
  subscribe(topic: string, onValue: (value: unknown) => void): void;
  /** Takes a topic's value back: subscribers are told `undefined`, later ones nothing. For topics whose names are ever new. */
  retract(topic: string): void;
  /** Subscribes to all topics that begin with `prefix`; `rest` is the rest of the name. */
  subscribeAll(prefix: string, onValue: (rest: string, value: unknown) => void): void;
  /** The configuration is not put into service before this settles (either way). Bounded by core (15 s). Throws in a sandbox. */
  waitFor(settled: Promise<unknown>, what: string): void;
  /**
   * State that all workers share and that outlives reloads: one cell for each name at each place of the config. `shared` declares
   * such cells.
   */
  cell<T>(name: string, spec: CellSpec<T>): T;
  /** A count that all workers share and that outlives reloads: who takes the next turn. Throws in a sandbox: use a `cell`. */
  turns(name: string): Turns;
  /** The one count of that name in the process. Throws in a sandbox: use a `cell`. */
  sharedCount(name: string): SharedCount;
  /** An operation of core outside the isolate: `dns.resolve`, `core.stats`, … JSON in and out. Throws in a sandbox. */
  operation(name: string, args: unknown): Promise<unknown>;
  /**
   * A context for one of many things that come and go while the generation serves: what is made through it ends with it, and stats
   * and cells are given back once no generation has a context of that name. It ends with this one at the latest. Throws in a sandbox.
   */
  child(name: string): ChildContext;
  /** Called when the generation ends. */
  onDispose(dispose: () => void): void;
  /** What `onHandover` of the generation before left, if this one replaces it. From a sandbox only what JSON can carry passes. */
  readonly previous: unknown;
  /** `state` is called when code that is to take over is set up. What changes in it after that is lost. */
  onHandover(state: () => unknown): void;
}

/** Answered by `SetupContext.child`. */
export interface ChildContext extends SetupContext {
  end(): void;
}

/**
 * Thrown by `setup` for a config that the schema lets through and the package still refuses. Core prints it with the place in
 * the user's file. `path` counts from the package's own config: `virtual_hosts[0].domains[1]`.
 */
export class ConfigError extends Error {
  readonly path: string;

  constructor(path: string, message: string) {
    super(message);
    this.path = path;
  }
}

/** Several errors of one `setup`, which core prints together. `everyOf` throws it. */
export class SetupErrors extends Error {
  readonly errors: readonly unknown[];

  constructor(errors: readonly unknown[]) {
    super(errors.map((error) => (error instanceof Error ? error.message : error)).join("; "));
    this.errors = errors;
  }
}

/** Maps a list of the config. If `make` throws, goes on with the other entries and throws the errors of all of them. */
export function everyOf<T, U>(entries: Iterable<T>, make: (entry: T, n: number) => U): U[] {
  const made: U[] = [];
  const errors: unknown[] = [];
  let n = 0;
  for (const entry of entries) {
    try {
      made.push(make(entry, n++));
    } catch (error) {
      if (error instanceof SetupErrors) errors.push(...error.errors);
      else errors.push(error);
    }
  }
  if (errors.length > 0) throw errors.length === 1 ? errors[0] : new SetupErrors(errors);
  return made;
}
