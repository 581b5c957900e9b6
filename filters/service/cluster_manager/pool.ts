// Hot path: every exchange with an upstream takes a connection here and gives it back.
import type {
  Address,
  CloseEvent,
  CodecFactory,
  CodecOptions,
  Connection,
  ConnectionHandler,
  PoolCallbacks,
  PoolFailure,
  PoolHandle,
  Priority,
  SetupContext,
  SharedCount,
  Slot,
  TransportOptions,
} from "@tsproxy/sdk";
import type { CircuitBreaker, Limit } from "./circuit-breaker.ts";
import { connectFailure, isBindError } from "./connect-failure.ts";
import type { Connectivity } from "./connectivity.ts";
import type { UpstreamHost } from "./host.ts";
import type { PeerNames } from "./peer-names.ts";
import { PooledConnection } from "./pooled-connection.ts";
import type { ClusterCells } from "./stats.ts";

/** What the connections of a pool speak. */
export interface PoolProtocol {
  readonly name: "HTTP/1.1" | "HTTP/2" | "ALPN";
  /** Exchanges that a connection is taken to have room for before it has told. */
  readonly expectedCapacity: number;
  codec(connection: Connection): Slot<CodecFactory>;
}

/** What the pools of one cluster share. */
export interface PoolOwner {
  readonly cx: SetupContext;
  readonly cells: ClusterCells;
  readonly codecOptions: CodecOptions;
  /** Opens a connection to it: to the first that answers, where it has several addresses. */
  connectTo(
    host: UpstreamHost,
    handler: ConnectionHandler,
    pool?: Pool,
    downstream?: TransportOptions["downstream"],
  ): Connection;
  /** What connections to that address are bound to; undefined: the system chooses. */
  sourceFor(to: Address): Address | undefined;
  /** 0: none. */
  readonly maxConnectionDurationMs: number;
  /** 0: no limit. */
  readonly maxRequestsPerConnection: number;
  /** For how many exchanges there shall be room, by those there are. 1: connections are made when they are needed. */
  readonly preconnectRatio: number;
  /** Undefined: nobody wants to know. */
  readonly connectivity: Connectivity | undefined;
  breaker(priority: Priority): CircuitBreaker;
  /** `per_host_thresholds`. Undefined: none. */
  hostLimit(host: UpstreamHost, priority: Priority): Limit | undefined;
  /** The process's connections to a host; undefined where the config does not limit connections. */
  hostConnections(host: UpstreamHost, priority: Priority): SharedCount | undefined;
  /** The pool may not open a connection that it needs (true), or needs none any more. */
  onStarving(pool: Pool, starving: boolean): void;
  /** A connection is gone: one that starves may have its place. */
  onRoom(): void;
  /** A connection has become idle: the sweep for old ones has to run sometime. */
  onIdle(): void;
  /** Another generation may want an idle connection of this one. True: it is that one's now. */
  giveAway(connection: PooledConnection): boolean;
}

const OVERFLOW: PoolFailure = Object.freeze({
  reason: "overflow",
  host: undefined,
  transportFailure: "",
});
const NO_POOL: PoolFailure = Object.freeze({
  reason: "no_host",
  host: undefined,
  transportFailure: "",
});

/** An exchange that waits for a connection. Most never do: an idle connection serves them at once. */
class PendingStream implements PoolHandle {
  readonly callbacks: PoolCallbacks;
  readonly #pool: Pool;
  done = false;

  constructor(pool: Pool, callbacks: PoolCallbacks) {
    this.#pool = pool;
    this.callbacks = callbacks;
  }

  cancel(): void {
    if (!this.done) this.#pool.onCancelled(this);
  }
}

/**
 * The connections to one host in one protocol. Those with room for an exchange are a stack: an HTTP/1 connection leaves it with
 * the exchange that it takes, one of HTTP/2 when it is full.
 *
 *   open ──> connecting ──> ready <──> full ──> closed
 */
export class Pool {
  readonly owner: PoolOwner;
  readonly host: UpstreamHost;
  readonly protocol: PoolProtocol;
  readonly priority: Priority;
  /** What its requests say of the handshake; undefined: nothing. */
  readonly peer: PeerNames | undefined;
  readonly breaker: CircuitBreaker;
  readonly #hostLimit: Limit | undefined;
  readonly #hostConnections: SharedCount | undefined;
  /** It has had an exchange, and counts as a pool. */
  #used = false;
  #starving = false;
  /** All that are not closed. */
  readonly connections = new Set<PooledConnection>();
  /** Longest unused at the bottom. Those that have lost their room stay until they are met or swept. */
  #ready: PooledConnection[] = [];
  #stale = 0;
  #pending: PendingStream[] = [];
  #connecting = 0;
  /** The host is gone: what is idle closes, what is busy finishes. */
  draining = false;

  constructor(
    owner: PoolOwner,
    host: UpstreamHost,
    protocol: PoolProtocol,
    priority: Priority = "default",
    peer?: PeerNames,
  ) {
    this.owner = owner;
    this.host = host;
    this.protocol = protocol;
    this.priority = priority;
    this.peer = peer;
    this.breaker = owner.breaker(priority);
    this.#hostLimit = owner.hostLimit(host, priority);
    this.#hostConnections = owner.hostConnections(host, priority);
  }

  newStream(callbacks: PoolCallbacks): PoolHandle | undefined {
    const { owner } = this;
    if (!this.#used && !this.#use()) {
      owner.cells.cxPoolOverflow.inc();
      callbacks.onPoolFailure(NO_POOL);
      return undefined;
    }
    const connection = this.#takeReady();
    if (connection !== undefined) {
      if (!this.breaker.requests.tryAcquire()) {
        this.onAvailable(connection);
        this.#tooManyActive(callbacks);
      } else connection.begin(callbacks);
      if (owner.preconnectRatio > 1) this.#preconnect();
      return undefined;
    }
    if (!this.breaker.pending.tryAcquire()) {
      this.#overflow(callbacks);
      return undefined;
    }
    const stream = new PendingStream(this, callbacks);
    this.#pending.push(stream);
    if (owner.connectivity !== undefined) owner.connectivity.pending++;
    owner.cells.rqPendingTotal.inc();
    owner.cells.rqPendingActive.inc();
    this.host.cells.rqPendingActive.inc();
    this.#openForPending();
    if (owner.preconnectRatio > 1) this.#preconnect();
    return stream;
  }

  #use(): boolean {
    this.#used = this.breaker.pools.tryAcquire();
    return this.#used;
  }

  #overflow(callbacks: PoolCallbacks): void {
    this.owner.cells.rqPendingOverflow.inc();
    callbacks.onPoolFailure(OVERFLOW);
  }

  /** There is a connection, and the exchange may not begin on it. */
  #tooManyActive(callbacks: PoolCallbacks): void {
    this.owner.cells.rqActiveOverflow.inc();
    callbacks.onPoolFailure({ ...OVERFLOW, host: this.host });
  }

  #takeReady(): PooledConnection | undefined {
    for (;;) {
      const connection = this.#ready.at(-1);
      if (connection === undefined) return undefined;
      const { room } = connection;
      if (room <= 1) {
        this.#ready.pop();
        connection.ready = false;
      }
      if (room > 0) return connection;
      this.#stale--;
    }
  }

  /** A connection on its way is for those who wait longest; only those beyond its room need one more. */
  #openForPending(): void {
    const each = this.expectedRoom;
    while (this.#pending.length > this.#connecting * each) {
      if (!this.#mayOpen()) {
        this.#starve(true);
        return;
      }
      this.#open();
    }
    this.#starve(false);
  }

  /** Exchanges that a connection on its way will have room for. */
  get expectedRoom(): number {
    const most = this.owner.maxRequestsPerConnection;
    const expected = this.protocol.expectedCapacity;
    return most > 0 && most < expected ? most : expected;
  }

  /** Connections for exchanges that are yet to come: at most three for each that comes, as in Envoy, and none to a host that ails. */
  #preconnect(): void {
    if (this.host.health !== "healthy" || this.draining) return;
    let active = 0;
    let room = 0;
    for (const connection of this.connections) {
      active += connection.active;
      room += connection.connecting ? this.expectedRoom : connection.room;
    }
    const wanted = (this.#pending.length + active) * this.owner.preconnectRatio - active;
    for (let k = 0; k < 3 && room < wanted; k++) {
      if (!this.#mayOpen()) return;
      this.#open();
      room += this.expectedRoom;
    }
  }

  /** A connection for a request that will come to this host. False: there is to be none, or no further one. */
  lookAhead(ratio: number): boolean {
    if (this.host.health !== "healthy" || this.draining) return false;
    let active = 0;
    for (const connection of this.connections) active += connection.active;
    const wanted = (this.#pending.length + active + 1) * ratio;
    // As Envoy counts here: those that are connected and idle are no room.
    if (wanted <= this.#connecting * this.expectedRoom + active) return false;
    if (!this.#used && !this.#use()) return false;
    const { full } = this.breaker.connections;
    if (!this.#mayOpen()) return false;
    this.#open();
    return !full;
  }

  /** True: the breakers have counted one more connection. `again`: this is not the first time that it is asked for. */
  #mayOpen(again = false): boolean {
    const { connections } = this.breaker;
    const ofHost = this.#hostConnections;
    if (this.#hostLimit === undefined || this.#hostLimit.tryAcquire()) {
      if (connections.tryAcquire()) {
        ofHost?.acquire();
        return true;
      }
      this.#hostLimit?.release();
    }
    if (!again) this.owner.cells.cxOverflow.inc();
    // A pool without any connection would never serve those who wait in it, so Envoy lets it have one, whatever the limit. Where
    // the config names the limit, a connection of another worker counts as one: its end makes room for this one.
    if (this.connections.size > 0 || (ofHost?.value ?? 0) > 0) return false;
    connections.acquire();
    this.#hostLimit?.acquire();
    ofHost?.acquire();
    return true;
  }

  /** A connection is gone, or is another owner's to count. */
  countClosed(): void {
    this.breaker.connections.release();
    this.#hostLimit?.release();
    this.#hostConnections?.release();
    this.owner.onRoom();
  }

  #starve(starving: boolean): void {
    if (starving === this.#starving) return;
    this.#starving = starving;
    this.owner.onStarving(this, starving);
  }

  /** There may be room for a connection again. */
  openMore(): void {
    if (this.#pending.length === 0) this.#starve(false);
    else if (this.#mayOpen(true)) {
      this.#open();
      this.#openForPending();
    }
  }

  /** No request is in progress, and none waits. */
  get atRest(): boolean {
    if (this.#pending.length > 0) return false;
    for (const connection of this.connections) if (!connection.idle) return false;
    return true;
  }

  /** Somebody else has more need of it. False: none is idle. */
  closeIdle(): boolean {
    for (const connection of this.#ready) {
      if (connection.room === 0 || !connection.idle) continue;
      connection.close();
      this.onStale();
      return true;
    }
    return false;
  }

  #open(): void {
    this.#connecting++;
    const connection = new PooledConnection(this);
    this.connections.add(connection);
    connection.open();
  }

  #unqueue(stream: PendingStream): void {
    stream.done = true;
    const { connectivity } = this.owner;
    if (connectivity !== undefined) connectivity.pending--;
    this.breaker.pending.release();
    this.owner.cells.rqPendingActive.dec();
    this.host.cells.rqPendingActive.dec();
  }

  /** The connection that may be on its way stays, for the next request. */
  onCancelled(stream: PendingStream): void {
    const at = this.#pending.indexOf(stream);
    if (at >= 0) this.#pending.splice(at, 1);
    this.#unqueue(stream);
    if (this.#pending.length === 0) this.#starve(false);
    this.owner.cells.rqCancelled.inc();
  }

  onConnected(connection: PooledConnection): void {
    this.#connecting--;
    this.onAvailable(connection);
  }

  /** A connection has room: for those who wait, or else it waits itself. */
  onAvailable(connection: PooledConnection): void {
    while (this.#pending.length > 0 && connection.room > 0) {
      const stream = this.#pending.shift()!;
      this.#unqueue(stream);
      if (this.breaker.requests.tryAcquire()) connection.begin(stream.callbacks);
      else this.#tooManyActive(stream.callbacks);
    }
    if (this.#starving && this.#pending.length === 0) this.#starve(false);
    if (this.#pending.length > 0) this.#openForPending();
    if (connection.room === 0) return;
    if (this.draining) {
      if (connection.idle && !this.owner.giveAway(connection)) connection.close();
      return;
    }
    if (connection.idle) {
      if (this.breaker.exact && this.breaker.starving.value > 0) {
        connection.close();
        if (connection.ready) this.onStale();
        return;
      }
      connection.idleSince = this.owner.cx.now();
      this.owner.onIdle();
    }
    if (connection.ready) return;
    connection.ready = true;
    this.#ready.push(connection);
  }

  /** A connection that is in the stack has no room any more. */
  onStale(): void {
    this.#stale++;
    if (this.#stale > 32 && this.#stale * 2 > this.#ready.length) {
      this.#ready = this.#ready.filter((connection) => connection.room > 0);
      this.#stale = 0;
    }
  }

  /** Everybody who waits fails with the attempt, as in Envoy: they may try another host instead of this one again. */
  onConnectFailed(connection: PooledConnection, event: CloseEvent): void {
    this.#connecting--;
    this.connections.delete(connection);
    this.countClosed();
    const { address } = this.host;
    const from = this.owner.sourceFor(address);
    const isLocal = isBindError(event, from);
    if (isLocal) this.owner.cells.bindErrors.inc();
    const failed = this.#pending;
    if (failed.length === 0) return;
    this.#pending = [];
    this.#starve(false);
    const failure: PoolFailure = {
      reason: event.timeout
        ? "connection_timeout"
        : isLocal
          ? "local_connection_failed"
          : "connection_failed",
      host: this.host,
      transportFailure: connectFailure(event, address, from),
    };
    for (const stream of failed) {
      // One of those before may have cancelled this one.
      if (stream.done) continue;
      this.#unqueue(stream);
      this.owner.cells.rqPendingFailureEject.inc();
      stream.callbacks.onPoolFailure(failure);
    }
  }

  onClosed(connection: PooledConnection): void {
    this.connections.delete(connection);
    this.countClosed();
    if (this.#pending.length > 0) this.#openForPending();
  }

  /** Another owner goes on with it, and counts it from here on. */
  onForgotten(connection: PooledConnection): void {
    this.connections.delete(connection);
  }

  /** Closes what has been idle since before `since`. Answers when the next one will have been, or -1. */
  sweep(since: number): number {
    const ready = this.#ready;
    this.#ready = [];
    this.#stale = 0;
    let next = -1;
    for (const connection of ready) {
      if (connection.room === 0) continue;
      if (connection.idle && connection.idleSince <= since) {
        this.owner.cells.cxIdleTimeout.inc();
        connection.ready = false;
        connection.close();
        continue;
      }
      this.#ready.push(connection);
      if (connection.idle && (next < 0 || connection.idleSince < next)) next = connection.idleSince;
    }
    return next;
  }

  /** Exchanges from here on get new connections. */
  renew(): void {
    for (const connection of [...this.connections]) connection.retire();
  }

  /** The host is gone, or its cluster. */
  drain(): void {
    this.draining = true;
    if (this.#used) this.breaker.pools.release();
    this.#used = false;
    const ready = this.#ready;
    this.#ready = [];
    this.#stale = 0;
    for (const connection of ready) {
      connection.ready = false;
      if (connection.room === 0 || !connection.idle) continue;
      if (!this.owner.giveAway(connection)) connection.close();
    }
  }

  /** Another generation's idle connection. */
  take(connection: PooledConnection): void {
    this.connections.add(connection);
    this.onAvailable(connection);
  }
}
