// Hot path: `newStream` runs for every request.
import type {
  BalancerContext,
  BalancerFactory,
  Cluster,
  CodecFactory,
  CodecOptions,
  Connection,
  ConnectionHandler,
  ConnectOptions,
  HostSpec,
  PoolCallbacks,
  PoolFailure,
  PoolHandle,
  Priority,
  SetupContext,
  Slot,
  Stats,
  Timer,
} from "@tsproxy/sdk";
import { formatAddress } from "@tsproxy/sdk";
import type { ClusterConfig, ClusterOptions } from "./config.ts";
import { optionsOf } from "./config.ts";
import type { Heir } from "./handover.ts";
import { addressOf, type Load, UpstreamHost } from "./host.ts";
import { Levels } from "./levels.ts";
import { Pool, type PoolOwner } from "./pool.ts";
import { type ConnectionFacts, PooledConnection } from "./pooled-connection.ts";
import { ClusterCells, HostCells } from "./stats.ts";
import { TrackedConnection } from "./tracked-connection.ts";

const NO_HOST: PoolFailure = Object.freeze({
  reason: "no_host",
  host: undefined,
  transportFailure: "",
});
const MAX_RETRIES = 3;
/** Addresses come and go with DNS, and a cell is never given back; hosts beyond these share theirs. */
const MAX_HOST_NAMES = 16_384;

export interface UpstreamClusterParts {
  readonly cx: SetupContext;
  readonly config: ClusterConfig;
  readonly balancer: Slot<BalancerFactory>;
  readonly codec: Slot<CodecFactory>;
  /** Requests in progress that generations before this one count. */
  readonly loadOf: (cluster: string, hostId: string) => Load | undefined;
  readonly hostNames: Set<string>;
}

/** A cluster on this worker: its hosts, who of them is chosen, and the connections to them. */
export class UpstreamCluster implements Cluster, PoolOwner {
  readonly name: string;
  readonly fingerprint: string;
  readonly stats: Stats;
  readonly traffic: ClusterCells;
  readonly cx: SetupContext;
  readonly codec: Slot<CodecFactory>;
  readonly codecOptions: CodecOptions;
  readonly connectOptions: ConnectOptions;
  readonly maxRequestsPerConnection: number;
  pending = 0;
  readonly #options: ClusterOptions;
  readonly #loadOf: UpstreamClusterParts["loadOf"];
  readonly #hostNames: Set<string>;
  readonly #levels: Levels;
  readonly #sweep: Timer;
  #sweeping = false;
  #retries = 0;
  #byId = new Map<string, UpstreamHost>();
  #hosts: readonly UpstreamHost[] = [];
  /** Hosts that are gone and still have connections. */
  readonly #leaving = new Set<Pool>();
  readonly #tracked = new Set<TrackedConnection>();
  /** Set at the end of this generation: who goes on with this cluster. */
  #heir: Heir | undefined = undefined;
  #retired = false;

  constructor({ cx, config, balancer, codec, loadOf, hostNames }: UpstreamClusterParts) {
    this.cx = cx;
    this.codec = codec;
    this.name = config.name;
    this.fingerprint = JSON.stringify(config);
    this.#options = optionsOf(config);
    this.#loadOf = loadOf;
    this.#hostNames = hostNames;
    this.maxRequestsPerConnection = this.#options.maxRequestsPerConnection;
    this.stats = cx.stats.scope(`cluster.${config.alt_stat_name || config.name}.`);
    this.traffic = new ClusterCells(this.stats);
    this.connectOptions = {
      timeoutMs: this.#options.connectTimeoutMs,
      ...(this.#options.keepAliveIdleS !== undefined && {
        keepAlive: { idleS: this.#options.keepAliveIdleS },
      }),
    };
    this.codecOptions = codecOptions(this.#options);
    this.#levels = new Levels(balancer, this.#options, this.traffic.healthyPanic);
    this.#sweep = cx.timer(() => this.#onSweep());
  }

  get cells(): ClusterCells {
    return this.traffic;
  }
  get connectTimeoutMs(): number {
    return this.#options.connectTimeoutMs;
  }
  get hosts(): readonly UpstreamHost[] {
    return this.#hosts;
  }
  hostIds(): readonly string[] {
    return [...this.#byId.keys()];
  }
  load(hostId: string): Load | undefined {
    return this.#byId.get(hostId)?.load;
  }

  // ---- requests

  /** Envoy's `max_retries` without a config. */
  beginRetry(_priority: Priority): boolean {
    if (this.#retries >= MAX_RETRIES) return false;
    this.#retries++;
    return true;
  }
  endRetry(_priority: Priority): void {
    this.#retries--;
  }

  newStream(callbacks: PoolCallbacks, context: BalancerContext): PoolHandle | undefined {
    const host = this.#levels.choose(context);
    if (host !== undefined) return host.pool.newStream(callbacks);
    const successor = this.#heir?.clusters.get(this.name);
    if (successor !== undefined) return successor.newStream(callbacks, context);
    this.traffic.cxNoneHealthy.inc();
    callbacks.onPoolFailure(NO_HOST);
    return undefined;
  }

  connect(handler: ConnectionHandler, context: BalancerContext): ReturnType<Cluster["connect"]> {
    const host = this.#levels.choose(context);
    if (host === undefined) {
      const successor = this.#heir?.clusters.get(this.name);
      if (successor !== undefined) return successor.connect(handler, context);
      this.traffic.cxNoneHealthy.inc();
      return "no_host";
    }
    const tracked = new TrackedConnection(this, host, handler, this.#onTrackedGone);
    this.#tracked.add(tracked);
    return { connection: tracked.open(), host };
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
    for (const spec of specs) {
      const id = freeId(now, formatAddress(addressOf(spec)));
      const known = before.get(id);
      if (known === undefined) changed = true;
      else if (known.update(spec)) changed = true;
      now.set(id, known ?? this.#makeHost(spec, id));
    }
    for (const [id, host] of before) {
      if (now.has(id)) continue;
      changed = true;
      this.#drain(host.pool);
    }
    this.#byId = now;
    this.#hosts = [...now.values()];
    if (changed) this.#levels.update(this.#hosts);
  }

  #makeHost(spec: HostSpec, id: string): UpstreamHost {
    const load = this.#loadOf(this.name, id) ?? { active: 0 };
    return new UpstreamHost(spec, this.#cellsOf(spec), load, (host) => new Pool(this, host));
  }

  #cellsOf(spec: HostSpec): HostCells {
    const key = formatAddress(addressOf(spec));
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
      const since = host.pool.sweep(now - idleTimeoutMs);
      if (since >= 0 && (next < 0 || since < next)) next = since;
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
    for (const host of this.#hosts) host.pool.drain();
    this.#levels.dispose();
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
    const connection = new PooledConnection(host.pool);
    connection.takeOver(facts);
    host.pool.take(connection);
    return true;
  }

  *sockets(): IterableIterator<readonly [Connection, ConnectionHandler]> {
    const pools = [...this.#hosts.map((host) => host.pool), ...this.#leaving];
    for (const pool of pools) {
      for (const connection of pool.connections) {
        if (connection.socket !== undefined) yield [connection.socket, connection];
      }
    }
    for (const tracked of this.#tracked)
      if (tracked.socket !== undefined) yield [tracked.socket, tracked];
  }

  open(): number {
    let n = this.#tracked.size;
    for (const host of this.#hosts) n += host.pool.connections.size;
    for (const pool of this.#leaving) n += pool.connections.size;
    return n;
  }
}

/** An address that a config lists twice is two hosts, as in Envoy. */
function freeId(taken: ReadonlyMap<string, unknown>, key: string): string {
  if (!taken.has(key)) return key;
  let n = 2;
  while (taken.has(`${key}#${n}`)) n++;
  return `${key}#${n}`;
}

function codecOptions(options: ClusterOptions): CodecOptions {
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
  };
}
