// Hot path: every byte from and to an HTTP upstream passes here; an exchange allocates nothing in this file.
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

const STATE = { CONNECTING: 0, OPEN: 1, CLOSING: 2, CLOSED: 3, GIVEN_AWAY: 4 } as const;
type State = (typeof STATE)[keyof typeof STATE];

/** What goes with a connection from one generation to the next. */
export interface ConnectionFacts {
  readonly connection: Connection;
  /** One that multiplexes goes along; it is held until the connection is forgotten. */
  readonly codec?: { readonly codec: ClientCodec; readonly generation: Generation<CodecFactory> };
  readonly protocol: "HTTP/1.1" | "HTTP/2" | "ALPN";
  readonly priority: Priority;
  readonly peer: PeerNames | undefined;
  readonly requests: number;
  readonly openedAt: number;
  /** Bytes sent that have been counted already. */
  readonly sent: number;
}

/**
 * One connection of a pool: idle or with exchanges in progress, of which HTTP/1 has one at a time.
 *
 *   CONNECTING ──connected──> OPEN ──────────────────────────────────────────┐
 *        │                      peer closes, or speaks out of turn (HTTP/1)   │
 *        │ failed               idle too long, spent, retired: once idle      │
 *        v                                                                    v
 *     CLOSED <──onClosed─────────────────────────────────────────────────  CLOSING
 */
export class PooledConnection implements ConnectionHandler, ClientEvents {
  readonly pool: Pool;
  /** While it is idle: since when. */
  idleSince = 0;
  /** It stands in the pool's stack. */
  ready = false;
  #state: State = STATE.CONNECTING;
  #connection: Connection | undefined = undefined;
  #codec: ClientCodec | undefined = undefined;
  #slot: Slot<CodecFactory> | undefined = undefined;
  #generation: Generation<CodecFactory> | undefined = undefined;
  /** What the slot had when this codec was the latest: its own generation, or what is the same code in another's hands. */
  #latest: Generation<CodecFactory> | undefined = undefined;
  /** Many exchanges at once, and the codec's to the end of the connection. */
  #multiplexes = false;
  #active = 0;
  #openedAt = 0;
  #age: Timer | undefined = undefined;
  #requests = 0;
  #sent = 0;
  /** As `Connectivity` has it. */
  #countedActive = 0;
  #countedRoom = 0;
  /** It has carried all the exchanges that the config allows. */
  #spent = false;
  /** The codec takes no further exchange. */
  #retired = false;
  /** The codec has given the exchange up in the middle; `onClosed` follows. */
  #broken = false;
  /** HTTP/2: the same of all exchanges. */
  #failed = false;
  /** The peer has sent FIN. */
  #ended = false;
  /** Inside `codec.onData` or `codec.onEof`. */
  #reading = false;
  /** HTTP/1: the exchange ended in there; what follows waits until the codec has seen all bytes. */
  #finished = false;

  constructor(pool: Pool) {
    this.pool = pool;
  }

  open(): void {
    const { owner, host } = this.pool;
    this.#openedAt = owner.cx.now();
    owner.cells.cxTotal.inc();
    owner.cells.cxActive.inc();
    if (this.pool.protocol.name !== "ALPN") this.#countProtocol(this.pool.protocol.name);
    host.cells.cxTotal.inc();
    host.cells.cxActive.inc();
    this.#connection = owner.connectTo(host, this, this.pool);
    this.#recount();
  }

  /** Whoever looks ahead goes by all connections of the worker. */
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

  /** Goes on with an idle connection of the generation before, which has counted it. */
  takeOver(facts: ConnectionFacts): void {
    this.#connection = facts.connection;
    this.#openedAt = facts.openedAt;
    this.#requests = facts.requests;
    this.#sent = facts.sent;
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

  /** What another owner has to know; undefined if it is of no use to anybody. */
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
    };
  }

  /** Lets go of an idle connection: another object counts and owns it from here on. */
  forget(): void {
    this.#state = STATE.GIVEN_AWAY;
    this.#recount();
    this.#age?.cancel();
    this.#releaseCodec();
    this.pool.onForgotten(this);
  }

  /** For a hand-over: the socket, while there is one. */
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

  /** Exchanges that it can take now. */
  get room(): number {
    if (this.#state !== STATE.OPEN || this.#isLeaving) return 0;
    if (!this.#multiplexes) return 1 - this.#active;
    // Streams of a codec that has been replaced end on it; the next ones get a connection of the new one's.
    if (this.#isOutdated) return 0;
    return Math.max(0, (this.#codec!.capacity ?? 1) - this.#active);
  }

  get #isLeaving(): boolean {
    return this.#retired || this.#spent || this.#ended || !this.#connection!.open;
  }

  /** There is room: the exchange begins. */
  begin(callbacks: PoolCallbacks): void {
    const { owner, host } = this.pool;
    // An HTTP/1 codec between exchanges holds nothing, so new code can take its place on an open connection.
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

  /** Its exchanges end on it, and no other begins. */
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

  // ---- the codec

  onIdle(): void {
    if (this.#state !== STATE.OPEN || this.#active === 0) return;
    if (this.#reading && !this.#multiplexes) this.#finished = true;
    else this.#settle();
  }

  onCapacity(): void {
    if (this.#state !== STATE.OPEN) return;
    this.#recount();
    this.pool.onAvailable(this);
  }

  onRetire(): void {
    if (this.#state !== STATE.OPEN || this.#retired) return;
    if (this.#multiplexes) {
      this.#retired = true;
      this.#recount();
      if (!this.#ended && !this.#failed) this.pool.owner.cells.cxCloseNotify.inc();
      if (this.ready) this.pool.onStale();
      if (this.idle) this.close();
    } else if (this.idle) this.#leave();
    else if (this.#codec!.active) this.#retired = true;
    else this.#broken = true;
  }

  onStreamLost(by: "us" | "peer" | "connection"): void {
    const { rqTxReset, rqRxReset, rqPendingFailureEject } = this.pool.owner.cells;
    (by === "us" ? rqTxReset : by === "peer" ? rqRxReset : rqPendingFailureEject).inc();
  }

  onFailed(): void {
    this.#failed = true;
    this.pool.owner.cells.cxProtocolError.inc();
  }

  /** An exchange has ended. */
  #settle(): void {
    const { owner } = this.pool;
    this.#finished = false;
    this.#endExchange();
    this.#countSent();
    // Bodies and tunnels that end with the connection retire it as well; they end with FIN, and nobody announced it.
    if (this.#retired && !this.#ended && !this.#multiplexes) owner.cells.cxCloseNotify.inc();
    // A codec may have closed the connection with the exchange; then only `onClosed` is left to come.
    if (this.#isLeaving || this.#isOutdated) {
      if (this.idle) this.close();
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
    this.#codec = this.#generation.value.createClient(this.#connection!, this, owner.codecOptions);
    this.#multiplexes = this.#codec.capacity !== undefined;
  }

  #releaseCodec(): void {
    this.#generation?.release();
    this.#generation = undefined;
    this.#codec = undefined;
  }

  /** Closed, and of no use to the pool that may have it in its stack. */
  #leave(): void {
    this.close();
    if (this.ready) this.pool.onStale();
  }

  // ---- the socket

  onConnected(): void {
    if (this.#state !== STATE.CONNECTING) return;
    const { cx, cells } = this.pool.owner;
    cells.cxConnectMs.record(cx.now() - this.#openedAt);
    if (this.#connection instanceof Race) this.#connection = this.#connection.winner;
    this.#makeCodec();
    if (this.pool.protocol.name === "ALPN") this.#countProtocol(this.#generation!.value.protocol);
    this.#state = STATE.OPEN;
    this.#recount();
    this.#limitAge();
    this.pool.onConnected(this);
  }

  /** `max_connection_duration`: no further exchange begins then. */
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
    this.pool.owner.cells.cxRxBytes.add(chunk.end - chunk.at);
    if (this.#state !== STATE.OPEN) return;
    if (this.#multiplexes) {
      this.#codec!.onData(chunk);
      return;
    }
    if (this.idle) {
      this.#onUnasked(chunk);
      return;
    }
    const codec = this.#codec!;
    this.#reading = true;
    codec.onData(chunk);
    this.#reading = false;
    if (this.#finished || (this.#retired && !this.#broken && !codec.active)) this.#settle();
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
    const codec = this.#codec!;
    this.#reading = true;
    codec.onEof();
    this.#reading = false;
    // A tunnel goes on in the other direction.
    if (!this.#broken && !codec.active) this.#settle();
  }

  onAgain(): void {
    if (this.#state === STATE.OPEN) this.#codec!.onAgain?.();
  }

  /**
   * Bytes that answer nothing. They are never kept for the next exchange, which would take them for its own response. A 408
   * is how some servers say goodbye to an idle connection, so it is no offence.
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
    // Already stale if it was leaving: counting it twice only makes the pool tidy up sooner.
    if (this.ready && state === STATE.OPEN) pool.onStale();
    this.#state = STATE.CLOSED;
    this.#recount();
    this.#age?.cancel();
    while (this.#active > 0) this.#endExchange();
    cells.onDestroyed(this.#ended || event.by === "remote", busy && !this.#failed);
    cells.cxActive.dec();
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
    // Whoever hears of it may ask for another connection at once, so all else is in order by now.
    if (busy || this.#multiplexes) codec?.onClosed(event);
    this.#releaseCodec();
  }
}

const GOODBYE = [72, 84, 84, 80, 47, 49, 46, -1, 32, 52, 48, 56]; // `HTTP/1.x 408`

function isGoodbye(chunk: Chunk): boolean {
  if (chunk.end - chunk.at < GOODBYE.length) return false;
  for (let k = 0; k < GOODBYE.length; k++) {
    if (GOODBYE[k]! >= 0 && chunk.memory[chunk.at + k] !== GOODBYE[k]) return false;
  }
  return true;
}
