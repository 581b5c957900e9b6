// Hot path: every exchange with an upstream takes a connection here and gives it back.
import type {
  CloseEvent,
  CodecFactory,
  CodecOptions,
  Connection,
  ConnectOptions,
  PoolCallbacks,
  PoolFailure,
  PoolHandle,
  SetupContext,
  Slot,
} from "@tsproxy/sdk";
import type { UpstreamHost } from "./host.ts";
import { PooledConnection } from "./pooled-connection.ts";
import type { ClusterCells } from "./stats.ts";

const MAX_PENDING = 1024; // requests of one cluster that wait on this worker; more would only wait longer

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
  readonly connectOptions: ConnectOptions;
  /** 0: no limit. */
  readonly maxRequestsPerConnection: number;
  /** Requests that wait in all of its pools. */
  pending: number;
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
  /** All that are not closed. */
  readonly connections = new Set<PooledConnection>();
  /** Longest unused at the bottom. Those that have lost their room stay until they are met or swept. */
  #ready: PooledConnection[] = [];
  #stale = 0;
  #pending: PendingStream[] = [];
  #connecting = 0;
  /** The host is gone: what is idle closes, what is busy finishes. */
  draining = false;

  constructor(owner: PoolOwner, host: UpstreamHost, protocol: PoolProtocol) {
    this.owner = owner;
    this.host = host;
    this.protocol = protocol;
  }

  newStream(callbacks: PoolCallbacks): PoolHandle | undefined {
    const connection = this.#takeReady();
    if (connection !== undefined) {
      connection.begin(callbacks);
      return undefined;
    }
    const { owner } = this;
    if (owner.pending >= MAX_PENDING) {
      owner.cells.rqPendingOverflow.inc();
      callbacks.onPoolFailure(OVERFLOW);
      return undefined;
    }
    const stream = new PendingStream(this, callbacks);
    this.#pending.push(stream);
    owner.pending++;
    owner.cells.rqPendingTotal.inc();
    owner.cells.rqPendingActive.inc();
    this.host.cells.rqPendingActive.inc();
    this.#openForPending();
    return stream;
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
    const most = this.owner.maxRequestsPerConnection;
    const expected = this.protocol.expectedCapacity;
    const each = most > 0 && most < expected ? most : expected;
    while (this.#pending.length > this.#connecting * each) this.#open();
  }

  #open(): void {
    this.#connecting++;
    const connection = new PooledConnection(this);
    this.connections.add(connection);
    connection.open();
  }

  #unqueue(stream: PendingStream): void {
    stream.done = true;
    this.owner.pending--;
    this.owner.cells.rqPendingActive.dec();
    this.host.cells.rqPendingActive.dec();
  }

  /** The connection that may be on its way stays, for the next request. */
  onCancelled(stream: PendingStream): void {
    const at = this.#pending.indexOf(stream);
    if (at >= 0) this.#pending.splice(at, 1);
    this.#unqueue(stream);
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
      connection.begin(stream.callbacks);
    }
    if (this.#pending.length > 0) this.#openForPending();
    if (connection.room === 0) return;
    if (this.draining) {
      if (connection.idle && !this.owner.giveAway(connection)) connection.close();
      return;
    }
    if (connection.idle) {
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
    const failed = this.#pending;
    if (failed.length === 0) return;
    this.#pending = [];
    const failure: PoolFailure = {
      reason: event.timeout ? "connection_timeout" : "connection_failed",
      host: this.host,
      transportFailure: event.timeout ? "" : transportFailure(event.error),
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

  /** The host is gone, or its cluster. */
  drain(): void {
    this.draining = true;
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

const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "Connection refused",
  ECONNRESET: "Connection reset by peer",
  EHOSTUNREACH: "No route to host",
  ENETUNREACH: "Network is unreachable",
  ETIMEDOUT: "Connection timed out",
  EADDRNOTAVAIL: "Cannot assign requested address",
  EACCES: "Permission denied",
  ENOENT: "No such file or directory",
};

/** Envoy's words for an error of `connect`. */
export function transportFailure(error: string | undefined): string {
  return error === undefined ? "" : `delayed_connect_error: ${REASONS[error] ?? error}`;
}
