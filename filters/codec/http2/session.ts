// Hot path: one a connection; its parts see every frame.
//
//   PREFACE (servers) ──> OPEN ──our GOAWAY──> OPEN, no new streams ──last stream ended──> CLOSED
//                          └── the peer breaks the protocol, or a limit ──GOAWAY────────────^
//
// Bytes come in through `reader`, which cuts them into frames; `reader.receiver` knows what those mean. What goes out is put
// together in `out`: heads here, bodies by `flow`, which keeps the windows of both directions.
import type {
  Chunk,
  CodecOptions,
  Connection,
  HeaderMap,
  Http2Options,
  SetupContext,
} from "@tsproxy/sdk";
import { ClosedStreams } from "./closed-streams.ts";
import { FlowControl } from "./flow-control.ts";
import {
  CODE,
  DEFAULT_WINDOW,
  DETAILS,
  FLAG,
  FRAME_HEAD,
  LAST_STREAM_ID,
  MAX_FRAME_SIZE,
  PREFACE,
  SETTING,
  TYPE,
} from "./frame.ts";
import { FrameReader } from "./frame-reader.ts";
import { type BufferPool, FrameWriter } from "./frame-writer.ts";
import type { HeadArena } from "./head-arena.ts";
import { HeadBuilder, type Kind } from "./head-builder.ts";
import { HpackEncoder, SKIPPED } from "./hpack-encoder.ts";
import { KeepAlive } from "./keep-alive.ts";
import type { Http2Stats } from "./stats.ts";
import type { Stream } from "./stream.ts";

const NOTHING = new Uint8Array(0);

/** What sessions of one setup share. */
export interface SessionParts {
  readonly cx: SetupContext;
  readonly arena: HeadArena;
  readonly buffers: BufferPool;
}

/** The half of the protocol that differs between the ends. */
export interface Side {
  readonly isServer: boolean;
  /** A header block for a stream that is not there. Where to decode it, or undefined if it is only read for its effect on the tables. */
  openStream(id: number, endStream: boolean): Stream | undefined;
  /** What the next block of that stream is. */
  headersOf(stream: Stream): { readonly kind: Kind; readonly headers: HeaderMap };
  /** The block is decoded, `session.builder` tells what is in it. */
  onHead(stream: Stream, kind: Kind, headers: HeaderMap, fault: number, endStream: boolean): void;
  /** One stream less. */
  onStreamClosed(stream: Stream): void;
  /** The peer's settings have changed. */
  onSettings(): void;
  onGoAway(lastId: number, code: number): void;
  /** The connection is lost; streams are told next. */
  onFailed(details: string): void;
}

/** One connection: its streams, its parts, and how both end. */
export class Session {
  readonly connection: Connection;
  readonly cx: SetupContext;
  readonly codecOptions: CodecOptions;
  readonly options: Http2Options;
  readonly stats: Http2Stats;
  readonly side: Side;
  readonly builder: HeadBuilder;
  readonly encoder: HpackEncoder;
  readonly out: FrameWriter;
  readonly flow: FlowControl;
  readonly reader: FrameReader;
  readonly keepAlive: KeepAlive;
  readonly streams = new Map<number, Stream>();
  readonly closedStreams = new ClosedStreams();
  /** Milliseconds that a finished message may wait for the peer; 0: for ever. */
  readonly flushTimeoutMs: number;
  /** Nothing is read or written any more. */
  dead = false;
  /** The highest stream that the peer (server) or we (client) have opened. */
  lastId = 0;
  /** No stream above this is served, once we have said so. */
  goAwayId = LAST_STREAM_ID;
  /** From the peer's settings. */
  peerWindow = DEFAULT_WINDOW;
  peerMaxFrame = MAX_FRAME_SIZE;
  peerMaxStreams = 0xffff_ffff;
  peerAllowsConnect = false;
  /** Streams opened, by either side. */
  opened = 0;
  #resuming: Stream[] = [];

  constructor(
    connection: Connection,
    codecOptions: CodecOptions,
    options: Http2Options,
    stats: Http2Stats,
    parts: SessionParts,
    side: Side,
  ) {
    this.connection = connection;
    this.cx = parts.cx;
    this.codecOptions = codecOptions;
    this.options = options;
    this.stats = stats;
    this.flushTimeoutMs = codecOptions.flushTimeoutMs ?? 0;
    this.side = side;
    this.out = new FrameWriter(connection, parts.buffers, stats);
    this.encoder = new HpackEncoder(this.out);
    this.builder = new HeadBuilder(parts.arena, codecOptions);
    this.flow = new FlowControl(this);
    this.reader = new FrameReader(this);
    this.keepAlive = new KeepAlive(this);
    this.#begin();
  }

  /** RFC 9113 §3.4: our settings come first, of a client after the preface. */
  #begin(): void {
    const { out } = this;
    if (!this.side.isServer) {
      out.ensure(PREFACE.length);
      for (let k = 0; k < PREFACE.length; k++) out.memory[out.at++] = PREFACE.charCodeAt(k);
    }
    const settings = this.#settings();
    out.head(TYPE.SETTINGS, 0, 0, settings.length * 3);
    for (let k = 0; k < settings.length; k += 2) {
      out.uint16(settings[k]!);
      out.uint32(settings[k + 1]!);
    }
    this.flow.announce();
  }

  /** Flat [identifier, value, …], those that Envoy sends in its order. */
  #settings(): number[] {
    const { options, side } = this;
    const settings: number[] = side.isServer ? [] : [SETTING.ENABLE_PUSH, 0];
    settings.push(SETTING.HEADER_TABLE_SIZE, this.reader.receiver.blocks.tableSize);
    settings.push(SETTING.ENABLE_CONNECT_PROTOCOL, options.allowConnect ? 1 : 0);
    settings.push(SETTING.MAX_CONCURRENT_STREAMS, options.maxConcurrentStreams);
    settings.push(SETTING.INITIAL_WINDOW_SIZE, options.initialStreamWindow);
    settings.push(...options.customSettings);
    return settings;
  }

  // ---- from the connection

  onData(chunk: Chunk): void {
    if (this.dead) return;
    this.keepAlive.onRead();
    this.reader.onData(chunk);
  }

  /** A later turn: what waits goes on, and what was written leaves. */
  onAgain(): void {
    if (this.dead) return;
    const resuming = this.#resuming;
    if (resuming.length > 0) {
      this.#resuming = [];
      for (const stream of resuming) stream.resume();
    }
    this.reader.onAgain();
    this.flush();
  }

  onBlocked(blocked: boolean): void {
    if (this.dead) return;
    if (blocked) return; // Streams hear of it when they have something to send.
    this.flush();
    this.flow.sendWaiting();
  }

  /** The socket is gone, or its owner lets go of it. */
  onClosed(): void {
    if (!this.dead) {
      this.flush();
      this.#die();
    }
    this.#loseAll(CODE.NO_ERROR);
  }

  // ---- output

  /** A head's frame begins; fields are encoded, then `endHead`. Answers what `endHead` wants to know. */
  beginHead(): number {
    const { out } = this;
    out.ensure(FRAME_HEAD);
    const at = out.at;
    out.at += FRAME_HEAD;
    this.encoder.begin();
    return at;
  }

  endHead(stream: Stream, at: number, ends: boolean): void {
    const { out } = this;
    const size = out.at - at - FRAME_HEAD;
    const flags = ends ? FLAG.END_STREAM : 0;
    if (ends) stream.sentEnd = true;
    const wire = FRAME_HEAD * Math.ceil(size / this.peerMaxFrame) + size;
    stream.wireSent += wire;
    stream.headerSent += wire;
    out.frames++;
    if (size <= this.peerMaxFrame) {
      out.putHead(at, TYPE.HEADERS, flags | FLAG.END_HEADERS, stream.id, size);
      return;
    }
    const block = out.memory.slice(at + FRAME_HEAD, out.at);
    out.at = at;
    for (let k = 0; k < size; k += this.peerMaxFrame) {
      const end = Math.min(size, k + this.peerMaxFrame);
      const type = k === 0 ? TYPE.HEADERS : TYPE.CONTINUATION;
      const last = end === size ? FLAG.END_HEADERS : 0;
      out.head(type, (k === 0 ? flags : 0) | last, stream.id, end - k);
      out.bytes(block, k, end);
    }
  }

  sendTrailers(stream: Stream, trailers: HeaderMap): void {
    const at = this.beginHead();
    this.encoder.fields(trailers, SKIPPED);
    // A block without fields is legal, and yet some peers stumble over it.
    if (this.out.at - at === FRAME_HEAD) {
      this.out.at = at;
      this.flow.send(stream, NOTHING, 0, 0, true);
    } else this.endHead(stream, at, true);
  }

  sendReset(id: number, code: number): void {
    this.stats.txReset.inc();
    this.out.head(TYPE.RST_STREAM, 0, id, 4);
    this.out.uint32(code);
  }

  refuse(id: number): void {
    this.stats.streamRefusedErrors.inc();
    this.sendReset(id, CODE.REFUSED_STREAM);
  }

  flush(): void {
    this.out.flush();
  }

  // ---- streams

  register(stream: Stream): void {
    this.streams.set(stream.id, stream);
    this.opened++;
    this.stats.streamsActive.inc();
  }

  /** Neither end has used that stream; one of an even id never will be. */
  isIdle(id: number): boolean {
    return id > this.lastId || (id & 1) === 0;
  }

  /** Its source goes on in a turn of its own. */
  resumeLater(stream: Stream): void {
    if (!this.#resuming.includes(stream)) this.#resuming.push(stream);
    this.connection.again();
  }

  /** Both halves may be complete. */
  settle(stream: Stream): void {
    if (stream.closed || !stream.sentEnd) return;
    if (stream.deliveredEnd) this.#close(stream, false);
    else if (this.side.isServer) {
      // RFC 9113 §8.1: the answer is complete, and the rest of the request is of no interest.
      if (!stream.receiveEnded) this.sendReset(stream.id, CODE.NO_ERROR);
      this.#close(stream, true);
    }
  }

  #close(stream: Stream, byUs: boolean): void {
    this.streams.delete(stream.id);
    this.closedStreams.add(stream.id, byUs);
    this.stats.streamsActive.dec();
    stream.onClosed();
    this.side.onStreamClosed(stream);
  }

  /** Given up by whoever uses it: it need not be told. */
  abandon(stream: Stream, code: number): void {
    if (stream.closed) return;
    this.sendReset(stream.id, code);
    this.#close(stream, true);
  }

  /** We give the stream up: the peer has broken a rule that concerns this stream alone, or a limit is reached. */
  resetStream(stream: Stream, code: number): void {
    if (stream.closed) return;
    this.sendReset(stream.id, code);
    this.#close(stream, true);
    stream.onLost("us", code);
  }

  /** The peer has reset it. */
  loseToPeer(stream: Stream, code: number): void {
    this.#close(stream, false);
    stream.onLost("peer", code);
  }

  /** The peer's GOAWAY: it has not looked at streams above `lastId`. */
  loseAbove(lastId: number): void {
    for (const stream of [...this.streams.values()]) {
      if (stream.id <= lastId || stream.closed) continue;
      this.#close(stream, false);
      stream.onLost("goaway", CODE.REFUSED_STREAM);
    }
  }

  /** A message of the peer breaks RFC 9113 §8. */
  onMalformed(stream: Stream, details: string = DETAILS.MESSAGE): void {
    this.stats.rxMessagingError.inc();
    stream.lostDetails = details;
    if (this.options.streamErrors) this.resetStream(stream, CODE.PROTOCOL_ERROR);
    else this.#fail(CODE.PROTOCOL_ERROR, details);
  }

  /** A body is longer or shorter than its message has said (RFC 9113 §8.1.1): an error of the stream alone. */
  onWrongLength(stream: Stream): void {
    stream.lostDetails = DETAILS.RESET;
    this.resetStream(stream, CODE.PROTOCOL_ERROR);
  }

  /** An error on the connection (id 0), or on a stream that may be gone. */
  errorOn(id: number, code: number): void {
    const stream = this.streams.get(id);
    if (stream !== undefined) this.resetStream(stream, code);
    else this.fail(code);
  }

  // ---- the end of the connection

  /** No streams above `lastId` will be served. */
  sendGoAway(lastId: number, code: number): void {
    if (this.dead) return;
    this.goAwayId = lastId;
    this.out.head(TYPE.GOAWAY, 0, 0, 8);
    this.out.uint32(lastId);
    this.out.uint32(code);
  }

  failProtocol(): void {
    this.fail(CODE.PROTOCOL_ERROR);
  }

  /** RFC 9113 §5.4.1. Streams are lost, and whoever owns the connection closes it. */
  fail(code: number, details: string = DETAILS.CODEC): void {
    if (this.dead) return;
    this.sendGoAway(this.side.isServer ? this.lastId : 0, code);
    this.#fail(code, details);
  }

  /** Without a GOAWAY, as Envoy ends a connection whose messages are malformed. */
  #fail(code: number, details: string): void {
    if (this.dead) return;
    this.flush();
    this.#die();
    // First, so that nobody who hears of a lost stream begins another here.
    this.side.onFailed(details);
    this.#loseAll(code);
  }

  #die(): void {
    this.dead = true;
    this.#resuming = [];
    this.keepAlive.stop();
    this.reader.stop();
    this.out.release();
  }

  #loseAll(code: number): void {
    const streams = [...this.streams.values()];
    this.streams.clear();
    for (const stream of streams) {
      this.stats.streamsActive.dec();
      stream.onClosed();
      stream.onLost("connection", code);
    }
  }
}
