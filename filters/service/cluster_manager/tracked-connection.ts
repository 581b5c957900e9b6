// Hot path: handles every read from the upstream of a TCP proxy.
import type {
  Chunk,
  CloseEvent,
  Connection,
  ConnectionHandler,
  Listed,
  TransportOptions,
} from "@tsproxy/sdk";
import { connectFailure, isBindError } from "./connect-failure.ts";
import type { UpstreamHost } from "./host.ts";
import type { PoolOwner } from "./pool.ts";

/** A connection for one caller (`Cluster.connect`): passes events to its handler, and counts in stats and limits as pools do. */
export class TrackedConnection implements ConnectionHandler, Listed {
  place = -1;
  readonly host: UpstreamHost;
  readonly #owner: PoolOwner;
  readonly #handler: ConnectionHandler;
  readonly #onGone: (connection: TrackedConnection) => void;
  readonly #openedAt: number;
  /** Size of the last read. */
  #lastRead = 0;
  #connection: Connection | undefined = undefined;
  #connected = false;
  /** The peer has ended its half after ours was ended: as in Envoy, that counts as the peer's close. */
  #endedLast = false;
  #sent = 0;

  constructor(
    owner: PoolOwner,
    host: UpstreamHost,
    handler: ConnectionHandler,
    onGone: (connection: TrackedConnection) => void,
  ) {
    this.#owner = owner;
    this.host = host;
    this.#handler = handler;
    this.#onGone = onGone;
    this.#openedAt = owner.cx.now();
  }

  /**
   * The caller has acquired `connections` and `pending`. `chosen`: what its transport has to know of the client whose bytes it
   * carries.
   */
  open(chosen: TransportOptions): Connection {
    const { cells } = this.#owner;
    cells.onOpened();
    this.host.cells.cxTotal.inc();
    this.host.cells.cxActive.inc();
    cells.rqPendingTotal.inc();
    cells.rqPendingActive.inc();
    this.host.cells.rqPendingActive.inc();
    const connection = this.#owner.connector.connect(this.host, this, chosen);
    this.#connection = connection;
    connection.countUnsent?.(cells.cxTxBuffered);
    return connection;
  }

  get socket(): Connection | undefined {
    return this.#connection;
  }

  #endPending(): void {
    this.#owner.limits.breaker("default").pending.release();
    this.#owner.cells.rqPendingActive.dec();
    this.host.cells.rqPendingActive.dec();
  }

  onConnected(): void {
    const { cells, cx } = this.#owner;
    this.#connected = true;
    // As in Envoy, an established TCP connection counts towards `max_requests`, but is never refused by it.
    this.#owner.limits.breaker("default").requests.acquire();
    this.#endPending();
    cells.cxConnectMs.record(cx.now() - this.#openedAt);
    cells.rqTotal.inc();
    cells.rqActive.inc();
    this.host.load.active++;
    this.host.outlier?.onConnected(true);
    this.host.cells.rqTotal.inc();
    this.host.cells.rqActive.inc();
    this.#handler.onConnected?.();
  }

  onData(chunk: Chunk): void {
    const size = chunk.end - chunk.at;
    this.#owner.cells.onRead(size, this.#lastRead);
    this.#lastRead = size;
    this.#handler.onData(chunk);
    this.#countSent();
  }

  onRelayed(bytes: number, size: number, at: number): void {
    if (bytes > 0) {
      const { cxRxBytes, cxRxBuffered } = this.#owner.cells;
      cxRxBytes.add(bytes);
      cxRxBuffered.add(size - this.#lastRead);
      this.#lastRead = size;
    }
    this.#countSent();
    this.#handler.onRelayed?.(bytes, size, at);
  }

  #countSent(): void {
    const sent = this.#connection?.bytesSent ?? 0;
    this.#owner.cells.cxTxBytes.add(sent - this.#sent);
    this.#sent = sent;
  }

  onEof(): void {
    this.#endedLast = this.#connection?.ended === true;
    this.#handler.onEof();
  }
  onBlocked(): void {
    this.#owner.cells.flowControlBackedUp.inc();
    this.#handler.onBlocked?.();
  }
  onDrained(): void {
    this.#owner.cells.flowControlDrained.inc();
    this.#handler.onDrained?.();
  }
  onAgain(): void {
    this.#handler.onAgain?.();
  }

  onClosed(event: CloseEvent): void {
    const { cells, cx } = this.#owner;
    const { host } = this;
    this.#owner.limits.breaker("default").connections.release();
    const from = this.#owner.connector.sourceFor(host.address);
    const unbound = isBindError(event, from);
    // A connection that was established counts as active until its end.
    cells.onDestroyed(this.#endedLast || (event.by === "remote" && !unbound), this.#connected);
    cells.cxActive.dec();
    cells.cxRxBuffered.add(-this.#lastRead);
    host.cells.cxActive.dec();
    cells.cxLengthMs.record(cx.now() - this.#openedAt);
    this.#countSent();
    let why = "";
    if (this.#connected) {
      this.#owner.limits.breaker("default").requests.release();
      host.load.active--;
      cells.rqActive.dec();
      host.cells.rqActive.dec();
    } else {
      why = connectFailure(event, host.address, from);
      if (unbound) cells.bindErrors.inc();
      this.#endPending();
      cells.cxConnectFail.inc();
      if (event.timeout) cells.cxConnectTimeout.inc();
      host.cells.cxConnectFail.inc();
      cells.rqPendingFailureEject.inc();
      host.outlier?.onLocalFailure(event.timeout ? 504 : 503);
    }
    this.#onGone(this);
    this.#handler.onClosed(this.#connected ? event : { ...event, transportFailure: why });
  }
}
