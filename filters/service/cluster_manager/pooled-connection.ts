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
} from "@tsproxy/sdk";
import type { Pool } from "./pool.ts";

const STATE = { CONNECTING: 0, IDLE: 1, BUSY: 2, CLOSING: 3, CLOSED: 4, GIVEN_AWAY: 5 } as const;
type State = (typeof STATE)[keyof typeof STATE];

/** What goes with a connection from one generation to the next. */
export interface ConnectionFacts {
  readonly connection: Connection;
  readonly requests: number;
  readonly openedAt: number;
  /** Bytes sent that have been counted already. */
  readonly sent: number;
}

/**
 * One connection of a pool.
 *
 *   CONNECTING ──connected──> IDLE <──end of exchange── BUSY
 *        │                     │ └─────────begin─────────^ │
 *        │ failed              │ peer closes or speaks,    │ reset, retired, closed
 *        v                     v idle too long             v
 *     CLOSED <──onClosed── CLOSING <───────────────────────┘
 */
export class PooledConnection implements ConnectionHandler, ClientEvents {
  readonly pool: Pool;
  idleSince = 0;
  #state: State = STATE.CONNECTING;
  #connection: Connection | undefined = undefined;
  #codec: ClientCodec | undefined = undefined;
  #generation: Generation<CodecFactory> | undefined = undefined;
  #openedAt = 0;
  #requests = 0;
  #sent = 0;
  /** It has carried all the exchanges that the config allows. */
  #spent = false;
  /** The codec takes no further exchange once this one has ended. */
  #retired = false;
  /** The codec has given the exchange up in the middle; `onClosed` follows. */
  #broken = false;
  /** The peer has sent FIN. */
  #ended = false;
  /** Inside `codec.onData` or `codec.onEof`. */
  #reading = false;
  /** The exchange ended in there; what follows waits until the codec has seen all bytes. */
  #finished = false;

  constructor(pool: Pool) {
    this.pool = pool;
  }

  open(): void {
    const { owner, host } = this.pool;
    this.#openedAt = owner.cx.now();
    owner.cells.cxTotal.inc();
    owner.cells.cxHttp1Total.inc();
    owner.cells.cxActive.inc();
    host.cells.cxTotal.inc();
    host.cells.cxActive.inc();
    this.#connection = owner.cx.connect(host.address, this, owner.connectOptions);
  }

  /** Goes on with an idle connection of the generation before, which has counted it. */
  takeOver(facts: ConnectionFacts): void {
    this.#connection = facts.connection;
    this.#openedAt = facts.openedAt;
    this.#requests = facts.requests;
    this.#sent = facts.sent;
    this.#state = STATE.IDLE;
    this.pool.owner.cx.adopt(facts.connection, this);
    this.#renewCodec();
  }

  /** What another owner has to know; undefined if it is of no use to anybody. */
  facts(): ConnectionFacts | undefined {
    const connection = this.#connection;
    if (connection === undefined || !connection.open || this.#retired || this.#spent)
      return undefined;
    return { connection, requests: this.#requests, openedAt: this.#openedAt, sent: this.#sent };
  }

  /** Lets go of an idle connection: another object counts and owns it from here on. */
  forget(): void {
    this.#state = STATE.GIVEN_AWAY;
    this.#releaseCodec();
    this.pool.onClosed(this);
  }

  /** For a hand-over: the socket, while there is one. */
  get socket(): Connection | undefined {
    return this.#connection;
  }

  get usable(): boolean {
    return this.#state === STATE.IDLE && this.#connection!.open;
  }

  /** The connection is ours: the exchange begins. */
  begin(callbacks: PoolCallbacks): void {
    const { owner, host } = this.pool;
    if (this.#generation !== owner.codec.current) this.#renewCodec();
    this.#state = STATE.BUSY;
    this.#requests++;
    if (this.#requests === owner.maxRequestsPerConnection) {
      owner.cells.cxMaxRequests.inc();
      this.#spent = true;
    }
    host.load.active++;
    owner.cells.rqTotal.inc();
    owner.cells.rqActive.inc();
    host.cells.rqTotal.inc();
    host.cells.rqActive.inc();
    const encoder = this.#codec!.newStream(callbacks.decoder);
    callbacks.onPoolReady(encoder, host, this.#connection!);
  }

  /** Nobody wants it for now. */
  rest(now: number): void {
    this.#state = STATE.IDLE;
    this.idleSince = now;
  }

  close(): void {
    if (this.#state === STATE.CLOSED || this.#state === STATE.CLOSING) return;
    this.#state = STATE.CLOSING;
    this.#connection!.close("flush");
  }

  // ---- the codec

  onIdle(): void {
    if (this.#state !== STATE.BUSY) return;
    if (this.#reading) this.#finished = true;
    else this.#settle();
  }

  onRetire(): void {
    if (this.#state === STATE.IDLE) this.#leave();
    if (this.#state !== STATE.BUSY || this.#retired) return;
    if (this.#codec!.active) this.#retired = true;
    else this.#broken = true;
  }

  /** An exchange has ended well. */
  #settle(): void {
    const { owner } = this.pool;
    this.#finished = false;
    this.#endExchange();
    this.#countSent();
    this.#state = STATE.IDLE;
    // Bodies and tunnels that end with the connection retire it as well; they end with FIN, and nobody announced it.
    if (this.#retired && !this.#ended) owner.cells.cxCloseNotify.inc();
    // A codec may have closed the connection with the exchange; then only `onClosed` is left to come.
    if (this.#retired || this.#spent || this.#ended || !this.#connection!.open) this.close();
    else this.pool.onAvailable(this);
  }

  #endExchange(): void {
    const { owner, host } = this.pool;
    host.load.active--;
    owner.cells.rqActive.dec();
    host.cells.rqActive.dec();
  }

  #countSent(): void {
    const sent = this.#connection!.bytesSent;
    this.pool.owner.cells.cxTxBytes.add(sent - this.#sent);
    this.#sent = sent;
  }

  /** An HTTP/1 codec between exchanges holds nothing, so new code can take its place on an open connection. */
  #renewCodec(): void {
    const { owner } = this.pool;
    this.#releaseCodec();
    this.#generation = owner.codec.current;
    this.#generation.acquire();
    this.#codec = this.#generation.value.createClient(this.#connection!, this, owner.codecOptions);
  }

  #releaseCodec(): void {
    this.#generation?.release();
    this.#generation = undefined;
    this.#codec = undefined;
  }

  /** Out of the stack of idle connections, and closed. */
  #leave(): void {
    this.close();
    this.pool.onIdleClosed();
  }

  // ---- the socket

  onConnected(): void {
    if (this.#state !== STATE.CONNECTING) return;
    const { owner } = this.pool;
    owner.cells.cxConnectMs.record(owner.cx.now() - this.#openedAt);
    this.#renewCodec();
    this.pool.onConnected(this);
  }

  onData(chunk: Chunk): void {
    this.pool.owner.cells.cxRxBytes.add(chunk.end - chunk.at);
    if (this.#state !== STATE.BUSY) {
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
    if (this.#state === STATE.IDLE) this.#leave();
    if (this.#state !== STATE.BUSY) return;
    const codec = this.#codec!;
    this.#reading = true;
    codec.onEof();
    this.#reading = false;
    // A tunnel goes on in the other direction.
    if (!this.#broken && !codec.active) this.#settle();
  }

  /**
   * Bytes that answer nothing. They are never kept for the next exchange, which would take them for its own response. A 408
   * is how some servers say goodbye to an idle connection, so it is no offence.
   */
  #onUnasked(chunk: Chunk): void {
    if (this.#state !== STATE.IDLE) return;
    if (!isGoodbye(chunk)) this.pool.owner.cells.cxProtocolError.inc();
    this.#leave();
  }

  onBlocked(): void {
    this.pool.owner.cells.flowControlBackedUp.inc();
    if (this.#state === STATE.BUSY) this.#codec!.onBlocked(true);
  }

  onDrained(): void {
    this.pool.owner.cells.flowControlDrained.inc();
    if (this.#state === STATE.BUSY) this.#codec!.onBlocked(false);
  }

  onClosed(event: CloseEvent): void {
    const state = this.#state;
    if (state === STATE.CLOSED || state === STATE.GIVEN_AWAY) return;
    const { pool } = this;
    const { cells } = pool.owner;
    const codec = this.#codec;
    this.#state = STATE.CLOSED;
    if (state === STATE.BUSY) this.#endExchange();
    if (state === STATE.IDLE) pool.onIdleClosed();
    cells.onDestroyed(this.#ended || event.by === "remote", state === STATE.BUSY);
    cells.cxActive.dec();
    pool.host.cells.cxActive.dec();
    this.#countSent();
    cells.cxLengthMs.record(pool.owner.cx.now() - this.#openedAt);
    cells.rqPerCx.record(this.#requests);
    if (state === STATE.CONNECTING) {
      cells.cxConnectFail.inc();
      if (event.timeout) cells.cxConnectTimeout.inc();
      pool.host.cells.cxConnectFail.inc();
      pool.onConnectFailed(this, event);
      return;
    }
    pool.onClosed(this);
    // Whoever hears of it may ask for another connection at once, so all else is in order by now.
    if (state === STATE.BUSY) codec!.onClosed(event);
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
