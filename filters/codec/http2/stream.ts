// Hot path: one object per stream; all its body bytes pass through it.
import { ByteQueue, Chunk, HeaderMap, type Timer } from "@tsproxy/sdk";
import { CODE } from "./frame.ts";
import type { Session } from "./session.ts";

const NOTHING = new Uint8Array(0);

/**
 * The part of a stream that client and server share: windows, waiting data of both directions, and its end.
 *
 *   received:  DATA ──► `#deliver`     while paused: kept in `#held`, without a WINDOW_UPDATE for it
 *   sent:      `#send` ──► DATA        no window, or socket blocked: kept in `#pending`, and `onBlocked` stops the source
 */
export abstract class Stream {
  id = 0;
  readonly session: Session;
  /** Bytes that the peer may still send, and consumed bytes not yet returned to it by WINDOW_UPDATE. */
  receiveWindow: number;
  untold = 0;
  sendWindow: number;
  /** The peer's half is complete: all of it is received; all of it is delivered to the decoder. */
  receiveEnded = false;
  deliveredEnd = false;
  /** Our half is complete: the encoder was given the end; END_STREAM has been written. */
  sendEnded = false;
  sentEnd = false;
  closed = false;
  headSent = false;
  /** The peer's head has been received; 1xx responses do not count. */
  headReceived = false;
  /** Of a server's stream that is over before the client has ended its half. */
  earlyEndCode: number = CODE.NO_ERROR;
  /** Body bytes still to come by the peer's content-length; -1: no content-length. */
  contentLeft = -1;
  /** The stream is in FlowControl's list of streams that wait to send. */
  waiting = false;
  paused = false;
  /** Bytes of the body in `#held`; a stream that ends before they are delivered keeps their number. */
  bodyHeld = 0;
  /** Bytes of HEADERS, CONTINUATION and DATA frames, including frame heads. */
  wireReceived = 0;
  wireSent = 0;
  headerReceived = 0;
  headerSent = 0;
  fieldsReceived = 0;
  fieldsSent = 0;
  /** One of DETAILS once the peer has broken the protocol, else "". */
  lostDetails = "";
  readonly #chunk = new Chunk(NOTHING, 0, 0);
  #pending: ByteQueue | undefined = undefined;
  #pendingAt = 0;
  #pendingTrailers: HeaderMap | undefined = undefined;
  #toldBlocked = false;
  #held: ByteQueue | undefined = undefined;
  #heldEnd = false;
  #heldTrailers: HeaderMap | undefined = undefined;
  #flushTimer: Timer | undefined = undefined;

  constructor(session: Session) {
    this.session = session;
    this.receiveWindow = session.options.initialStreamWindow;
    this.sendWindow = session.peerWindow;
  }

  /** This and the next two methods pass events to the decoder. */
  protected abstract onBody(chunk: Chunk, endStream: boolean): void;
  protected abstract onTrailers(trailers: HeaderMap): void;
  protected abstract onBlocked(blocked: boolean): void;
  /** Called when the stream ends early. `code`: the error code that the peer sent, or that we sent. */
  abstract onLost(by: "peer" | "us" | "connection" | "goaway", code: number): void;

  // ---- from the peer

  /** Takes a piece of a DATA frame. */
  receive(memory: Uint8Array, at: number, end: number, endStream: boolean): void {
    if (this.paused || this.#held !== undefined) {
      this.#held ??= new ByteQueue();
      this.#held.push(memory, at, end);
      this.bodyHeld += end - at;
      this.#heldEnd = endStream;
      return;
    }
    this.#deliver(memory, at, end, endStream);
  }

  receiveTrailers(trailers: HeaderMap): void {
    if (this.paused || this.#held !== undefined) {
      this.#held ??= new ByteQueue();
      trailers.detach();
      this.#heldTrailers = trailers;
      return;
    }
    this.deliveredEnd = true;
    this.onTrailers(trailers);
    this.session.settle(this);
  }

  #deliver(memory: Uint8Array, at: number, end: number, endStream: boolean): void {
    const chunk = this.#chunk;
    chunk.memory = memory;
    chunk.at = at;
    chunk.end = end;
    if (endStream) this.deliveredEnd = true;
    this.onBody(chunk, endStream);
    this.session.flow.onTaken(this, end - at);
    if (endStream) this.session.settle(this);
  }

  pauseReading(paused: boolean): void {
    if (paused === this.paused || this.closed) return;
    this.paused = paused;
    if (!paused && this.#held !== undefined) this.session.resumeLater(this);
  }

  /** Delivers the held data; called in a later turn. */
  resume(): void {
    while (!this.paused && !this.closed && this.#held !== undefined) {
      const bytes = this.#held.shift();
      const last = this.#held.size === 0;
      const ends = last && this.#heldEnd;
      const trailers = last ? this.#heldTrailers : undefined;
      if (last) this.#held = undefined;
      if (bytes !== undefined || ends) {
        const piece = bytes ?? NOTHING;
        this.bodyHeld -= piece.length;
        this.#deliver(piece, 0, piece.length, ends);
      }
      if (trailers === undefined || this.closed) continue;
      this.#heldTrailers = undefined;
      this.receiveTrailers(trailers);
    }
  }

  // ---- to the peer

  encodeBody(memory: Uint8Array, at: number, end: number, endStream: boolean): void {
    if (this.closed || !this.headSent || this.sendEnded) return;
    if (endStream) this.sendEnded = true;
    if (end === at && !endStream) return;
    if (end === at && this.#pending !== undefined) {
      // The last pending byte takes END_STREAM along.
      this.#wait();
      return;
    }
    const sent = this.#pending === undefined ? this.#send(memory, at, end, endStream) : at;
    if (sent < 0) {
      this.session.settle(this);
      return;
    }
    this.#pending ??= new ByteQueue();
    this.#pending.push(memory, sent, end);
    this.session.stats.pendingSendBytes.add(end - sent);
    this.#wait();
  }

  encodeTrailers(trailers: HeaderMap): void {
    if (this.closed || !this.headSent || this.sendEnded) return;
    this.sendEnded = true;
    if (this.#pending === undefined) {
      this.session.sendTrailers(this, trailers);
      this.session.settle(this);
      return;
    }
    this.#pendingTrailers = new HeaderMap();
    for (const [name, value] of trailers) this.#pendingTrailers.append(name, value);
    this.#wait();
  }

  /** Sends as much as the windows allow; returns the offset of the first byte not sent, or -1 if all are sent. */
  #send(memory: Uint8Array, at: number, end: number, endStream: boolean): number {
    const { session } = this;
    let q = at;
    do {
      const room = session.flow.roomFor(this, end - q);
      if (room < end - q && room <= 0) return q;
      const last = q + room === end;
      session.flow.send(this, memory, q, q + room, last && endStream);
      q += room;
    } while (q < end);
    return -1;
  }

  #wait(): void {
    const { session } = this;
    session.flow.wait(this);
    if (this.sendEnded && session.flushTimeoutMs > 0) {
      this.#flushTimer ??= session.cx.timer(() => this.#onFlushTimeout());
      if (!this.#flushTimer.armed) this.#flushTimer.arm(session.flushTimeoutMs);
    }
    if (this.#toldBlocked) return;
    this.#toldBlocked = true;
    this.onBlocked(true);
  }

  /** Resets a stream whose message is complete but is not read by the peer; no other timeout applies to it. */
  #onFlushTimeout(): void {
    if (this.closed) return;
    this.session.stats.txFlushTimeout.inc();
    this.session.resetStream(this, CODE.CANCEL);
    this.session.flush();
  }

  get hasPending(): boolean {
    return this.#pending !== undefined;
  }

  /** Sends one frame of pending data, if the windows allow. False: nothing is left, or nothing can be sent now. */
  proceed(): boolean {
    const { session } = this;
    const pending = this.#pending;
    if (pending === undefined || this.closed) return false;
    const bytes = pending.pieces[0]!;
    const at = this.#pendingAt;
    const room = session.flow.roomFor(this, bytes.length - at);
    if (room <= 0) return false;
    const last = at + room === pending.size;
    const ends = last && this.sendEnded && this.#pendingTrailers === undefined;
    session.flow.send(this, bytes, at, at + room, ends);
    session.stats.pendingSendBytes.add(-room);
    this.#pendingAt += room;
    if (this.#pendingAt < bytes.length) return true;
    pending.shift();
    this.#pendingAt = 0;
    if (!last) return true;
    this.#pending = undefined;
    this.#flushTimer?.cancel();
    if (this.#pendingTrailers !== undefined) session.sendTrailers(this, this.#pendingTrailers);
    if (this.sendEnded) session.settle(this);
    else if (this.#toldBlocked) {
      this.#toldBlocked = false;
      this.onBlocked(false);
    }
    return false;
  }

  /** Called when the session has removed the stream; frees waiting data. */
  onClosed(): void {
    this.closed = true;
    this.#flushTimer?.cancel();
    this.session.flow.forget(this);
    if (this.#pending !== undefined) {
      this.session.stats.pendingSendBytes.add(this.#pendingAt - this.#pending.size);
      this.#pending = undefined;
    }
    // Held data is discarded, but must be returned to the connection's window.
    if (this.#held !== undefined) {
      const { size } = this.#held;
      this.#held = undefined;
      this.session.flow.onTaken(undefined, size);
    }
  }
}
