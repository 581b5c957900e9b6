// Hot path: every exchange with an upstream takes a connection here and gives it back.
import type {
  CloseEvent,
  CodecFactory,
  CodecOptions,
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

/** What the pools of one cluster share. */
export interface PoolOwner {
  readonly cx: SetupContext;
  readonly cells: ClusterCells;
  readonly codec: Slot<CodecFactory>;
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
 * The HTTP/1 connections to one host: one exchange a connection at a time, the last used is the first reused.
 *
 *   open ──> connecting ──> busy <──> idle ──> closed
 *                 └───────────────────^
 */
export class Pool {
  readonly owner: PoolOwner;
  readonly host: UpstreamHost;
  /** All that are not closed. */
  readonly connections = new Set<PooledConnection>();
  /** A stack, longest idle at the bottom. Closed ones stay until they are met or swept. */
  #idle: PooledConnection[] = [];
  #closedIdle = 0;
  #pending: PendingStream[] = [];
  #connecting = 0;
  /** The host is gone: what is idle closes, what is busy finishes. */
  draining = false;

  constructor(owner: PoolOwner, host: UpstreamHost) {
    this.owner = owner;
    this.host = host;
  }

  newStream(callbacks: PoolCallbacks): PoolHandle | undefined {
    const idle = this.#takeIdle();
    if (idle !== undefined) {
      idle.begin(callbacks);
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
    // A connection on its way is for whoever waits longest; only those beyond need one more.
    if (this.#pending.length > this.#connecting) this.#open();
    return stream;
  }

  #takeIdle(): PooledConnection | undefined {
    for (;;) {
      const connection = this.#idle.pop();
      if (connection === undefined || connection.usable) return connection;
      this.#closedIdle--;
    }
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

  /** A connection can take an exchange: one that waits, or else it waits itself. */
  onAvailable(connection: PooledConnection): void {
    const stream = this.#pending.shift();
    if (stream !== undefined) {
      this.#unqueue(stream);
      connection.begin(stream.callbacks);
    } else if (this.draining) {
      if (!this.owner.giveAway(connection)) connection.close();
    } else {
      connection.rest(this.owner.cx.now());
      this.#idle.push(connection);
      this.owner.onIdle();
    }
  }

  /** An idle connection has closed. */
  onIdleClosed(): void {
    this.#closedIdle++;
    if (this.#closedIdle > 32 && this.#closedIdle * 2 > this.#idle.length) {
      this.#idle = this.#idle.filter((connection) => connection.usable);
      this.#closedIdle = 0;
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
    let k = 0;
    for (; k < this.#idle.length; k++) {
      const connection = this.#idle[k]!;
      if (!connection.usable) {
        this.#closedIdle--;
        continue;
      }
      if (connection.idleSince > since) break;
      this.owner.cells.cxIdleTimeout.inc();
      connection.close();
    }
    this.#idle.splice(0, k);
    return this.#idle.length === 0 ? -1 : this.#idle[0]!.idleSince;
  }

  /** The host is gone, or its cluster. */
  drain(): void {
    this.draining = true;
    const idle = this.#idle;
    this.#idle = [];
    this.#closedIdle = 0;
    for (const connection of idle) {
      if (connection.usable && !this.owner.giveAway(connection)) connection.close();
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
