// Hot path: handles every read from an HTTP upstream; nothing in this file allocates per exchange.
import type {
  Chunk,
  ClientCodec,
  ClientEvents,
  CloseEvent,
  CodecFactory,
  Connection,
  ConnectionHandler,
  Generation,
  PoolCallbacks,
  Priority,
  Slot,
  Timer,
} from "@tsproxy/sdk";
import { Race } from "./happy-eyeballs.ts";
import type { PeerNames } from "./peer-names.ts";
import type { Pool } from "./pool.ts";
import { ALPN } from "./protocols.ts";

const STATE = { CONNECTING: 0, OPEN: 1, CLOSING: 2, CLOSED: 3, GIVEN_AWAY: 4 } as const;
type State = (typeof STATE)[keyof typeof STATE];

/** A connection with its state, handed over from one generation to the next. */
export interface ConnectionFacts {
  readonly connection: Connection;
  /** A multiplexing codec, which is handed over too; its generation is held until the connection is forgotten. */
  readonly codec?: { readonly codec: ClientCodec; readonly generation: Generation<CodecFactory> };
  readonly protocol: "HTTP/1.1" | "HTTP/2" | "ALPN";
  readonly priority: Priority;
  readonly peer: PeerNames | undefined;
  readonly requests: number;
  readonly openedAt: number;
  /** Bytes sent that have already been counted. */
  readonly sent: number;
  readonly lastRead: number;
}

/**
 * One connection of a pool, idle or with exchanges in progress (HTTP/1: at most one).
 *
 *   CONNECTING ──connected──> OPEN ──────────────────────────────────────────┐
 *        │                      peer closes, unexpected bytes (HTTP/1)        │
 *        │ failed               idle timeout, spent, retired: once idle       │
 *        v                                                                    v
 *     CLOSED <──onClosed─────────────────────────────────────────────────  CLOSING
 */
export class PooledConnection implements ConnectionHandler, ClientEvents {
  readonly pool: Pool;
  /** Time since when the connection is idle. */
  idleSince = 0;
  /** The connection is on the pool's stack. */
  ready = false;
  #state: State = STATE.CONNECTING;
  #connection: Connection | undefined = undefined;
  #codec: ClientCodec | undefined = undefined;
  #slot: Slot<CodecFactory> | undefined = undefined;
  #generation: Generation<CodecFactory> | undefined = undefined;
  /** The slot's generation when the codec was made or adopted; if the slot has another one, the codec is outdated. */
  #latest: Generation<CodecFactory> | undefined = undefined;
  /** HTTP/2: several exchanges at once, and the codec remains until the connection closes. */
  #multiplexes = false;
  #active = 0;
  #openedAt = 0;
  /** Size of the last read. */
  #lastRead = 0;
  #age: Timer | undefined = undefined;
  #requests = 0;
  #sent = 0;
  /** This connection's part of the counts in Connectivity. */
  #countedActive = 0;
  #countedRoom = 0;
  /** No further exchange may begin: the configured number is reached, or the connection was retired. */
  #spent = false;
  /** The codec accepts no further exchange. */
  #retired = false;
  /** HTTP/2: the codec has failed, with all exchanges. */
  #failed = false;
  /** The peer has sent FIN. */
  #ended = false;
  /** Inside `codec.onData` or `codec.onEof`. */
  #reading = false;
  /** HTTP/1: the exchange ended during #reading; it is settled when the codec has read all bytes. */
  #finished = false;

  constructor(pool: Pool) {
    this.pool = pool;
  }

  open(): void {
    const { owner, host } = this.pool;
    this.#openedAt = owner.cx.now();
    owner.cells.onOpened();
    if (this.pool.protocol.name !== "ALPN") this.#countProtocol(this.pool.protocol.name);
    host.cells.cxTotal.inc();
    host.cells.cxActive.inc();
    this.#connection = owner.connector.connect(host, this, {
      alpn: ALPN[this.pool.protocol.name],
      ...this.pool.peer?.options,
    });
    this.#connection.countUnsent?.(owner.cells.cxTxBuffered);
    this.#recount();
  }

  /** Updates the counts in Connectivity, for predictive preconnect. */
  #recount(): void {
    const { connectivity } = this.pool.owner;
    if (connectivity === undefined) return;
    const room = this.connecting ? this.pool.expectedRoom : this.room;
    connectivity.room += room - this.#countedRoom;
    connectivity.active += this.#active - this.#countedActive;
    this.#countedRoom = room;
    this.#countedActive = this.#active;
  }

  #countProtocol(name: CodecFactory["protocol"]): void {
    const { cells } = this.pool.owner;
    (name === "HTTP/2" ? cells.cxHttp2Total : cells.cxHttp1Total).inc();
  }

  /** As in Envoy, a connection that had to learn its protocol counts once more, as one of that protocol. */
  #countNegotiated(name: CodecFactory["protocol"]): void {
    this.#countProtocol(name);
    this.pool.owner.cells.cxTotal.inc();
    this.pool.host.cells.cxTotal.inc();
  }

  /** Takes over an idle connection of the previous generation, which has counted it in stats. */
  takeOver(facts: ConnectionFacts): void {
    this.#connection = facts.connection;
    this.#openedAt = facts.openedAt;
    this.#requests = facts.requests;
    this.#sent = facts.sent;
    this.#lastRead = facts.lastRead;
    this.#state = STATE.OPEN;
    this.pool.owner.cx.adopt(facts.connection, this);
    this.#limitAge();
    if (facts.codec === undefined) this.#makeCodec();
    else this.#adoptCodec(facts.codec);
    this.#recount();
  }

  #adoptCodec({ codec, generation }: NonNullable<ConnectionFacts["codec"]>): void {
    generation.acquire();
    this.#generation = generation;
    this.#slot = this.pool.protocol.codec(this.#connection!);
    this.#latest = this.#slot.current;
    this.#codec = codec;
    this.#multiplexes = true;
    codec.adopt!(this);
  }

  /** The state for a handover; undefined if the connection cannot be used further. */
  facts(): ConnectionFacts | undefined {
    const connection = this.#connection;
    if (connection === undefined || this.room === 0) return undefined;
    const codec = this.#codec!;
    if (this.#multiplexes && codec.adopt === undefined) return undefined;
    const { protocol, priority, peer } = this.pool;
    return {
      connection,
      ...(this.#multiplexes && { codec: { codec, generation: this.#generation! } }),
      protocol: protocol.name,
      priority,
      peer,
      requests: this.#requests,
      openedAt: this.#openedAt,
      sent: this.#sent,
      lastRead: this.#lastRead,
    };
  }

  /** Gives up an idle connection that another object now owns and counts. */
  forget(): void {
    this.#state = STATE.GIVEN_AWAY;
    this.#recount();
    this.#age?.cancel();
    this.#releaseCodec();
    this.pool.onForgotten(this);
  }

  /** The socket, for a handover; undefined before `open`. */
  get socket(): Connection | undefined {
    return this.#connection;
  }

  get idle(): boolean {
    return this.#active === 0;
  }
  get active(): number {
    return this.#active;
  }
  get connecting(): boolean {
    return this.#state === STATE.CONNECTING;
  }

  /** Number of exchanges that can begin now. */
  get room(): number {
    if (this.#state !== STATE.OPEN || this.#isLeaving) return 0;
    if (!this.#multiplexes) return 1 - this.#active;
    // Streams of a replaced codec finish on it; new ones get a new connection with the new codec.
    if (this.#isOutdated) return 0;
    return Math.max(0, (this.#codec!.capacity ?? 1) - this.#active);
  }

  get #isLeaving(): boolean {
    return this.#retired || this.#spent || this.#ended || !this.#connection!.open;
  }

  /** Begins an exchange; there must be room. */
  begin(callbacks: PoolCallbacks): void {
    const { owner, host } = this.pool;
    // An HTTP/1 codec has no state between exchanges, so new code can replace it on an open connection.
    if (this.#latest !== this.#slot!.current) this.#makeCodec();
    this.#active++;
    this.#requests++;
    if (this.#requests === owner.maxRequestsPerConnection) {
      owner.cells.cxMaxRequests.inc();
      this.#spent = true;
    }
    this.#recount();
    host.load.active++;
    host.outlier?.onConnected(false);
    owner.cells.rqTotal.inc();
    owner.cells.rqActive.inc();
    host.cells.rqTotal.inc();
    host.cells.rqActive.inc();
    const encoder = this.#codec!.newStream(callbacks.decoder);
    callbacks.onPoolReady(encoder, host, this.#connection!);
  }

  /** Lets current exchanges finish, then closes; no new one begins. */
  retire(): void {
    if (this.#state !== STATE.OPEN) return;
    if (this.idle) {
      this.#leave();
      return;
    }
    this.#spent = true;
    this.#recount();
    if (this.ready) this.pool.onStale();
  }

  close(): void {
    if (this.#state === STATE.CLOSED || this.#state === STATE.CLOSING) return;
    this.#state = STATE.CLOSING;
    this.#recount();
    this.#codec?.finish?.();
    this.#connection!.close("flush");
  }

  // ---- called by the codec

  onIdle(answered = false): void {
    if (this.#state !== STATE.OPEN || this.#active === 0) return;
    if (this.#reading && !this.#multiplexes) this.#finished = true;
    else this.#settle(answered && this.#reading);
  }

  onCapacity(): void {
    if (this.#state !== STATE.OPEN) return;
    this.#recount();
    this.pool.onAvailable(this);
  }

  onRetire(announced = false): void {
    if (this.#state !== STATE.OPEN || this.#retired) return;
    if (this.#multiplexes) {
      this.#retired = true;
      this.#recount();
      if (!this.#ended && !this.#failed) this.pool.owner.cells.cxCloseNotify.inc();
      if (this.ready) this.pool.onStale();
      if (this.idle) this.close();
    } else if (this.idle) this.#leave();
    // An HTTP/1 codec that has aborted its exchange closes the connection itself; `onClosed` follows.
    else if (this.#codec!.active) {
      this.#retired = true;
      if (announced) this.pool.owner.cells.cxCloseNotify.inc();
    }
  }

  onStreamLost(by: "us" | "peer" | "connection"): void {
    const { rqTxReset, rqRxReset, rqPendingFailureEject } = this.pool.owner.cells;
    (by === "us" ? rqTxReset : by === "peer" ? rqRxReset : rqPendingFailureEject).inc();
  }

  onFailed(): void {
    this.#failed = true;
    this.pool.owner.cells.cxProtocolError.inc();
  }

  /**
   * Ends an exchange, then closes the connection or returns it to the pool. `inAnswer`: HTTP/2, the end of its response is being
   * read.
   */
  #settle(inAnswer = false): void {
    const { owner } = this.pool;
    this.#finished = false;
    this.#endExchange();
    this.#countSent();
    // The codec may have closed the connection already; then only `onClosed` follows.
    if (this.#isLeaving || this.#isOutdated) {
      if (!this.idle) return;
      // As in Envoy, a connection that closes then counts a protocol error.
      if (inAnswer) owner.cells.cxProtocolError.inc();
      this.close();
    } else this.pool.onAvailable(this);
  }

  get #isOutdated(): boolean {
    return this.#multiplexes && this.#latest !== this.#slot!.current;
  }

  #endExchange(): void {
    const { owner, host } = this.pool;
    this.#active--;
    this.#recount();
    this.pool.breaker.requests.release();
    host.load.active--;
    owner.cells.rqActive.dec();
    host.cells.rqActive.dec();
  }

  #countSent(): void {
    const sent = this.#connection!.bytesSent;
    this.pool.owner.cells.cxTxBytes.add(sent - this.#sent);
    this.#sent = sent;
  }

  #makeCodec(): void {
    const { owner, protocol } = this.pool;
    this.#releaseCodec();
    this.#slot ??= protocol.codec(this.#connection!);
    this.#generation = this.#latest = this.#slot.current;
    this.#generation.acquire();
    const codec = this.#generation.value;
    this.#codec = codec.createClient(this.#connection!, this, owner.codecOptions[codec.protocol]);
    this.#multiplexes = this.#codec.capacity !== undefined;
  }

  #releaseCodec(): void {
    this.#generation?.release();
    this.#generation = undefined;
    this.#codec = undefined;
  }

  /** Closes the connection; if it is on the pool's stack, it is stale there. */
  #leave(): void {
    this.close();
    if (this.ready) this.pool.onStale();
  }

  // ---- events of the socket

  onConnected(): void {
    if (this.#state !== STATE.CONNECTING) return;
    const { cx, cells } = this.pool.owner;
    cells.cxConnectMs.record(cx.now() - this.#openedAt);
    if (this.#connection instanceof Race) this.#connection = this.#connection.winner;
    this.#makeCodec();
    if (this.pool.protocol.name === "ALPN") this.#countNegotiated(this.#generation!.value.protocol);
    this.#state = STATE.OPEN;
    this.#recount();
    this.#limitAge();
    this.pool.onConnected(this);
  }

  /** Retires the connection after `max_connection_duration`. */
  #limitAge(): void {
    const { cx, cells, maxConnectionDurationMs: most } = this.pool.owner;
    if (most === 0) return;
    this.#age = cx.timer(() => {
      cells.cxMaxDuration.inc();
      this.retire();
    });
    this.#age.arm(Math.max(1, most - (cx.now() - this.#openedAt)));
  }

  onData(chunk: Chunk): void {
    const size = chunk.end - chunk.at;
    this.pool.owner.cells.onRead(size, this.#lastRead);
    this.#lastRead = size;
    if (this.#state !== STATE.OPEN) return;
    if (this.#multiplexes) {
      this.#reading = true;
      this.#codec!.onData(chunk);
      this.#reading = false;
      return;
    }
    if (this.idle) {
      this.#onUnasked(chunk);
      return;
    }
    this.#reading = true;
    this.#codec!.onData(chunk);
    this.#reading = false;
    if (this.#finished) this.#settle();
  }

  onEof(): void {
    this.#ended = true;
    if (this.#state !== STATE.OPEN) return;
    if (this.#multiplexes) {
      if (this.ready) this.pool.onStale();
      this.#codec!.onEof();
      return;
    }
    if (this.idle) {
      this.#leave();
      return;
    }
    this.#reading = true;
    this.#codec!.onEof();
    this.#reading = false;
    // Otherwise it is a tunnel, which stays open in the other direction, or the exchange is lost.
    if (this.#finished) this.#settle();
  }

  onAgain(): void {
    if (this.#state === STATE.OPEN) this.#codec!.onAgain?.();
  }

  /**
   * Handles bytes that belong to no exchange: the connection closes, as the next exchange would take them for its response.
   * Some servers send a 408 before they close an idle connection, so that is not counted as a protocol error.
   */
  #onUnasked(chunk: Chunk): void {
    if (!isGoodbye(chunk)) this.pool.owner.cells.cxProtocolError.inc();
    this.#leave();
  }

  onBlocked(): void {
    this.pool.owner.cells.flowControlBackedUp.inc();
    if (this.#hearsOfRoom) this.#codec!.onBlocked(true);
  }

  onDrained(): void {
    this.pool.owner.cells.flowControlDrained.inc();
    if (this.#hearsOfRoom) this.#codec!.onBlocked(false);
  }

  get #hearsOfRoom(): boolean {
    return this.#state === STATE.OPEN && (this.#multiplexes || !this.idle);
  }

  onClosed(event: CloseEvent): void {
    const state = this.#state;
    if (state === STATE.CLOSED || state === STATE.GIVEN_AWAY) return;
    const { pool } = this;
    const { cells } = pool.owner;
    const codec = this.#codec;
    const busy = this.#active > 0;
    // If it was leaving it is already counted as stale; counting twice only makes the pool clean up sooner.
    if (this.ready && state === STATE.OPEN) pool.onStale();
    this.#state = STATE.CLOSED;
    this.#recount();
    this.#age?.cancel();
    while (this.#active > 0) this.#endExchange();
    const byPeer = event.by === "remote" && !pool.bindFailed(event);
    cells.onDestroyed(this.#ended || byPeer, busy && !this.#failed);
    cells.cxActive.dec();
    cells.cxRxBuffered.add(-this.#lastRead);
    pool.host.cells.cxActive.dec();
    this.#countSent();
    cells.cxLengthMs.record(pool.owner.cx.now() - this.#openedAt);
    if (state !== STATE.CONNECTING) cells.rqPerCx.record(this.#requests);
    else {
      cells.cxConnectFail.inc();
      if (event.timeout) cells.cxConnectTimeout.inc();
      pool.host.cells.cxConnectFail.inc();
      pool.onConnectFailed(this, event);
      return;
    }
    pool.onClosed(this);
    // Last, as decoders that are told of the close may ask for another connection at once.
    if (busy || this.#multiplexes) codec?.onClosed(event);
    this.#releaseCodec();
  }
}

const GOODBYE = [72, 84, 84, 80, 47, 49, 46, -1, 32, 52, 48, 56]; // `HTTP/1.x 408`; -1: any byte

function isGoodbye(chunk: Chunk): boolean {
  if (chunk.end - chunk.at < GOODBYE.length) return false;
  for (let k = 0; k < GOODBYE.length; k++) {
    if (GOODBYE[k]! >= 0 && chunk.memory[chunk.at + k] !== GOODBYE[k]) return false;
  }
  return true;
}
