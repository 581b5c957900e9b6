// Hot path: every exchange with an HTTP upstream takes a connection from a pool and returns it.
import type {
  CloseEvent,
  CodecFactory,
  CodecOptions,
  Connection,
  PoolCallbacks,
  PoolFailure,
  PoolHandle,
  Priority,
  SetupContext,
  SharedCount,
  Slot,
} from "@tsproxy/sdk";
import type { CircuitBreaker, Limit } from "./circuit-breaker.ts";
import type { ClusterLimits } from "./cluster-limits.ts";
import { connectFailure, isBindError } from "./connect-failure.ts";
import type { Connectivity } from "./connectivity.ts";
import type { Connector } from "./connector.ts";
import type { UpstreamHost } from "./host.ts";
import type { PeerNames } from "./peer-names.ts";
import { PooledConnection } from "./pooled-connection.ts";
import type { ClusterCells } from "./stats.ts";

/** Protocol of a pool's connections. */
export interface PoolProtocol {
  readonly name: "HTTP/1.1" | "HTTP/2" | "ALPN";
  /** Number of exchanges that a connection is assumed to have room for until it is established. */
  readonly expectedCapacity: number;
  codec(connection: Connection): Slot<CodecFactory>;
  /** The codec of all connections; absent: each connection's ALPN result decides. */
  readonly fixed?: Slot<CodecFactory>;
}

/** The cluster as its pools see it. */
export interface PoolOwner {
  readonly cx: SetupContext;
  readonly cells: ClusterCells;
  readonly codecOptions: Readonly<Record<CodecFactory["protocol"], CodecOptions>>;
  readonly connector: Connector;
  readonly limits: ClusterLimits;
  /** 0: no limit. */
  readonly maxConnectionDurationMs: number;
  /** 0: no limit. */
  readonly maxRequestsPerConnection: number;
  /** Room for exchanges to provide, as a multiple of current ones (per_upstream_preconnect_ratio); 1: no preconnect. */
  readonly preconnectRatio: number;
  /** Undefined if no cluster uses predictive preconnect. */
  readonly connectivity: Connectivity | undefined;
  /** Called when a connection becomes idle, so that the sweep for the idle timeout is scheduled. */
  onIdle(): void;
  /** Offers an idle connection to the next generation; true if that has taken it. */
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

/** An exchange that waits for a connection; not created if a connection with room exists. */
class PendingStream implements PoolHandle {
  readonly callbacks: PoolCallbacks;
  readonly #pool: Pool;
  done = false;

  constructor(pool: Pool, callbacks: PoolCallbacks) {
    this.#pool = pool;
    this.callbacks = callbacks;
  }

  get host(): UpstreamHost {
    return this.#pool.host;
  }

  cancel(): void {
    if (!this.done) this.#pool.onCancelled(this);
  }
}

/**
 * The connections to one host in one protocol. Those with room are on a stack: an HTTP/1 connection leaves it for each
 * exchange, an HTTP/2 connection when it is full.
 *
 *   open ──> connecting ──> ready <──> full ──> closed
 */
export class Pool {
  readonly owner: PoolOwner;
  readonly host: UpstreamHost;
  readonly protocol: PoolProtocol;
  readonly priority: Priority;
  /** Peer names of its requests; undefined: none. */
  readonly peer: PeerNames | undefined;
  readonly breaker: CircuitBreaker;
  #hostLimit: Limit | undefined;
  #hostConnections: SharedCount | undefined;
  /** The pool has been asked for an exchange since it was empty, and counts in `max_connection_pools`. */
  #used = false;
  #starving = false;
  /** All connections that are not closed. */
  readonly connections = new Set<PooledConnection>();
  /** Stack with the longest unused first; connections without room remain until they are popped or swept. */
  #ready: PooledConnection[] = [];
  #stale = 0;
  #pending: PendingStream[] = [];
  #connecting = 0;
  /** The host is removed: idle connections close, busy ones finish their exchanges. */
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
    this.breaker = owner.limits.breaker(priority);
    this.#hostLimit = owner.limits.ofHost(host, priority);
    this.#hostConnections = owner.limits.connectionsTo(host, priority);
  }

  /** Begins an exchange or queues it; returns a handle if it is queued, else a callback has been called already. */
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

  /** Counts the pool in `max_connection_pools`; false if that limit is reached. */
  #use(): boolean {
    this.#used = this.breaker.pools.tryAcquire();
    return this.#used;
  }

  #overflow(callbacks: PoolCallbacks): void {
    this.owner.cells.rqPendingOverflow.inc();
    callbacks.onPoolFailure(OVERFLOW);
  }

  /** Fails an exchange for which a connection exists, but `max_requests` is reached. */
  #tooManyActive(callbacks: PoolCallbacks): void {
    this.owner.cells.rqActiveOverflow.inc();
    // As in Envoy, it counts as an error of the host, but not for outlier detection.
    this.host.cells.rqError.inc();
    callbacks.onPoolFailure({ ...OVERFLOW, host: this.host });
  }

  /** Returns a connection with room, off the stack if this exchange fills it; undefined if there is none. */
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

  /** Opens connections for the waiting exchanges that connecting ones will not have room for. */
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

  /** Number of exchanges that a connecting connection is assumed to have room for. */
  get expectedRoom(): number {
    const most = this.owner.maxRequestsPerConnection;
    const expected = this.protocol.expectedCapacity;
    return most > 0 && most < expected ? most : expected;
  }

  /** Opens connections ahead of demand: as in Envoy, at most three per new exchange, and only to healthy hosts. */
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

  /** Opens a connection for a predicted request, if needed. False: none was opened, or no further one may be. */
  lookAhead(ratio: number): boolean {
    if (this.host.health !== "healthy" || this.draining) return false;
    let active = 0;
    for (const connection of this.connections) active += connection.active;
    const wanted = (this.#pending.length + active + 1) * ratio;
    // As in Envoy, established idle connections do not count as room here.
    if (wanted <= this.#connecting * this.expectedRoom + active) return false;
    if (!this.#used && !this.#use()) return false;
    const { full } = this.breaker.connections;
    if (!this.#mayOpen()) return false;
    this.#open();
    return !full;
  }

  /** True if one more connection may be opened; it is counted then. `again`: not the first try, so overflow is not counted. */
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
    // Like Envoy, allows one connection beyond the limit to a pool without any, else its requests would never be served. If
    // the config sets the limit, connections of other workers to the host count too: when they end, there is room for this one.
    if (this.connections.size > 0 || (ofHost?.value ?? 0) > 0) return false;
    connections.acquire();
    this.#hostLimit?.acquire();
    ofHost?.acquire();
    return true;
  }

  /** Uncounts a connection that has closed. */
  countClosed(): void {
    this.breaker.connections.release();
    this.#hostLimit?.release();
    this.#hostConnections?.release();
    this.owner.limits.onRoom();
    this.#leaveIfEmpty();
  }

  /**
   * Called when a connection or a waiting exchange has gone. Without any the pool counts in `max_connection_pools` no more, as
   * Envoy deletes it; when draining it gives up the counts of its host too, as clients may name ever new hosts.
   */
  #leaveIfEmpty(): void {
    if (this.connections.size > 0 || this.#pending.length > 0) return;
    if (this.#used) this.breaker.pools.release();
    this.#used = false;
    if (!this.draining) return;
    this.#hostLimit?.count.dispose?.();
    this.#hostConnections?.dispose?.();
    this.#hostLimit = this.#hostConnections = undefined;
  }

  #starve(starving: boolean): void {
    if (starving === this.#starving) return;
    this.#starving = starving;
    this.owner.limits.onStarving(this, starving);
  }

  /** Tries again to open a connection for waiting exchanges; called while the pool starves. */
  openMore(): void {
    if (this.#pending.length === 0) this.#starve(false);
    else if (this.#mayOpen(true)) {
      this.#open();
      this.#openForPending();
    }
  }

  /** True if no request is in progress or waiting. */
  get atRest(): boolean {
    if (this.#pending.length > 0) return false;
    for (const connection of this.connections) if (!connection.idle) return false;
    return true;
  }

  /** Closes one idle connection to make room for a starving pool; false if none is idle. */
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
    const codec = this.protocol.fixed?.current.value;
    const stats = codec && this.owner.codecOptions[codec.protocol].stats;
    if (stats !== undefined) codec?.listStats?.(stats);
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

  /** Removes a cancelled exchange; a connection opened for it remains for the next request. */
  onCancelled(stream: PendingStream): void {
    const at = this.#pending.indexOf(stream);
    if (at >= 0) this.#pending.splice(at, 1);
    this.#unqueue(stream);
    if (this.#pending.length === 0) this.#starve(false);
    this.owner.cells.rqCancelled.inc();
    this.#leaveIfEmpty();
  }

  onConnected(connection: PooledConnection): void {
    this.#connecting--;
    this.onAvailable(connection);
  }

  /** Called when a connection has room: begins waiting exchanges, then puts the connection on the stack. */
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

  /** Called when a connection on the stack has lost its room. */
  onStale(): void {
    this.#stale++;
    if (this.#stale > 32 && this.#stale * 2 > this.#ready.length) {
      this.#ready = this.#ready.filter((connection) => connection.room > 0);
      this.#stale = 0;
    }
  }

  /** True if a connection failed before it left this machine, as its source address could not be bound. */
  bindFailed(event: CloseEvent): boolean {
    return isBindError(event, this.owner.connector.sourceFor(this.host.address));
  }

  /** As in Envoy, a failed connect fails all waiting exchanges, so that they can be retried on another host. */
  onConnectFailed(connection: PooledConnection, event: CloseEvent): void {
    this.#connecting--;
    this.connections.delete(connection);
    this.countClosed();
    const { address } = this.host;
    const from = this.owner.connector.sourceFor(address);
    const isLocal = this.bindFailed(event);
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
      // A callback of an earlier exchange may have cancelled this one.
      if (stream.done) continue;
      this.#unqueue(stream);
      this.owner.cells.rqPendingFailureEject.inc();
      stream.callbacks.onPoolFailure(failure);
    }
    this.#leaveIfEmpty();
  }

  onClosed(connection: PooledConnection): void {
    this.connections.delete(connection);
    this.countClosed();
    if (this.#pending.length > 0) this.#openForPending();
  }

  /** Called when another owner has taken over the connection and its counts. */
  onForgotten(connection: PooledConnection): void {
    this.connections.delete(connection);
    this.#leaveIfEmpty();
  }

  /** Closes connections idle since `since` or longer; returns the earliest `idleSince` of the others, or -1 if none is idle. */
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

  /** Retires all connections, so that new exchanges get new ones. */
  renew(): void {
    for (const connection of [...this.connections]) connection.retire();
  }

  /** Called when the host or its cluster is removed, or this generation ends. */
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
    this.#leaveIfEmpty();
  }

  /** Adds an idle connection of the previous generation. */
  take(connection: PooledConnection): void {
    this.connections.add(connection);
    this.onAvailable(connection);
  }
}
