// Hot path: one per connection; all frames pass through it.
//
//   PREFACE (servers) ──> OPEN ──our GOAWAY──> OPEN, no new streams ──last stream ended──> CLOSED
//                          └── the peer breaks the protocol, or a limit ──GOAWAY────────────^
//
// Input: `reader` splits bytes into frames, `reader.receiver` handles them. Output is collected in `out`: heads are written
// here, bodies by `flow`, which keeps the windows of both directions.
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
import { StreamTable } from "./stream-table.ts";

const NOTHING = new Uint8Array(0);

/** Objects that the sessions of a setup share. */
export interface SessionParts {
  readonly cx: SetupContext;
  readonly arena: HeadArena;
  readonly buffers: BufferPool;
}

/** The part of the protocol that differs between client and server. */
export interface Side {
  readonly isServer: boolean;
  /** Opens a stream for a header block with a new id; undefined: refused, the block only updates the dynamic table. */
  openStream(id: number, endStream: boolean): Stream | undefined;
  /** Kind of the stream's next header block, and the map to decode it into. */
  headersOf(stream: Stream): { readonly kind: Kind; readonly headers: HeaderMap };
  /** Called when a block is decoded; `session.builder` has the details, `fault` is one of FAULT. */
  onHead(stream: Stream, kind: Kind, headers: HeaderMap, fault: number, endStream: boolean): void;
  /** Called when a stream is closed and removed. */
  onStreamClosed(stream: Stream): void;
  /** Called when the peer's settings have been applied. */
  onSettings(): void;
  onGoAway(lastId: number, code: number): void;
  /** Called when the connection has failed, before its streams are lost. */
  onFailed(details: string, isFlood: boolean): void;
}

/** One HTTP/2 connection of either side: its streams, its output, and its end. */
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
  readonly streams = new StreamTable();
  readonly closedStreams = new ClosedStreams();
  /** Milliseconds that a complete message may wait for the peer's window; 0: no limit. */
  readonly flushTimeoutMs: number;
  /** True once the connection has ended: nothing is read or written any more. */
  dead = false;
  /** The highest stream id that the client has opened: the peer if we are the server, else we. */
  lastId = 0;
  /** The last stream id of our GOAWAY; streams above it are not served. */
  goAwayId = LAST_STREAM_ID;
  /** The peer's settings, initially their defaults. */
  peerWindow = DEFAULT_WINDOW;
  peerMaxFrame = MAX_FRAME_SIZE;
  peerMaxStreams = 0xffff_ffff;
  peerAllowsConnect = false;
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

  /** Sends our settings, as a client after the preface (RFC 9113 §3.4). */
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

  /** Our settings as flat [identifier, value, …]: those that Envoy sends, in its order. */
  #settings(): number[] {
    const { options, side } = this;
    const settings: number[] = side.isServer ? [] : [SETTING.ENABLE_PUSH, 0];
    // First, as in Envoy: of a setting that comes twice, the last value counts, which is that of its own option.
    settings.push(...options.customSettings);
    settings.push(SETTING.HEADER_TABLE_SIZE, this.reader.receiver.blocks.tableSize);
    settings.push(SETTING.ENABLE_CONNECT_PROTOCOL, options.allowConnect ? 1 : 0);
    settings.push(SETTING.MAX_CONCURRENT_STREAMS, options.maxConcurrentStreams);
    settings.push(SETTING.INITIAL_WINDOW_SIZE, options.initialStreamWindow);
    return settings;
  }

  // ---- events of the connection

  onData(chunk: Chunk): void {
    if (this.dead) return;
    this.keepAlive.onRead();
    this.reader.onData(chunk);
  }

  /** Continues in a later turn: resumes streams, reads input that waited and writes collected output. */
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
    if (blocked) return; // Streams are told when they have something to send.
    this.flush();
    this.flow.sendWaiting();
  }

  /** Ends the session, because the connection is closed or its owner gives it up; open streams are lost. */
  onClosed(): void {
    if (!this.dead) {
      this.flush();
      this.#die();
    }
    this.#loseAll(CODE.NO_ERROR);
  }

  // ---- output

  /** Begins a header block; the caller encodes its fields and calls `endHead` with the returned offset. */
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
    stream.fieldsSent += this.encoder.size;
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
    // Some peers fail on a block without fields, though it is legal; an empty DATA frame ends the stream instead.
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
    this.streams.add(stream);
    this.stats.streamsActive.inc();
  }

  /** True if the stream has never been opened; even ids are never used. */
  isIdle(id: number): boolean {
    return id > this.lastId || (id & 1) === 0;
  }

  /** Calls `stream.resume` in a later turn. */
  resumeLater(stream: Stream): void {
    if (!this.#resuming.includes(stream)) this.#resuming.push(stream);
    this.connection.again();
  }

  /** Closes the stream if both halves are complete, on a server also if only the response is. */
  settle(stream: Stream): void {
    if (stream.closed || !stream.sentEnd) return;
    if (stream.deliveredEnd) this.#close(stream, false);
    else if (this.side.isServer) {
      // RFC 9113 §8.1: the response is complete and the rest of the request is not needed.
      if (!stream.receiveEnded) this.sendReset(stream.id, stream.earlyEndCode);
      this.#close(stream, true);
    }
  }

  #close(stream: Stream, byUs: boolean): void {
    this.streams.delete(stream.id);
    this.closedStreams.add(stream.id, byUs);
    this.reader.receiver.limits.onStreamClosed();
    this.stats.streamsActive.dec();
    stream.onClosed();
    this.side.onStreamClosed(stream);
  }

  /** Resets a stream at its user's request, so `onLost` is not called. */
  abandon(stream: Stream, code: number): void {
    if (stream.closed) return;
    this.sendReset(stream.id, code);
    this.#close(stream, true);
  }

  /** Resets a stream because the peer broke a rule that affects only this stream, or because of a limit. */
  resetStream(stream: Stream, code: number): void {
    if (stream.closed) return;
    this.sendReset(stream.id, code);
    this.#close(stream, true);
    stream.onLost("us", code);
  }

  /** Handles the peer's RST_STREAM. */
  loseToPeer(stream: Stream, code: number): void {
    this.#close(stream, false);
    stream.onLost("peer", code);
  }

  /** Loses the streams above `lastId`, which the peer has not processed by its GOAWAY. */
  loseAbove(lastId: number): void {
    for (const stream of this.streams.all()) {
      if (stream.id <= lastId || stream.closed) continue;
      this.#close(stream, false);
      stream.onLost("goaway", CODE.REFUSED_STREAM);
    }
  }

  /** Handles a message that breaks RFC 9113 §8: resets its stream, or without `streamErrors` fails the connection. */
  onMalformed(stream: Stream, details: string = DETAILS.MESSAGE): void {
    this.stats.rxMessagingError.inc();
    stream.lostDetails = details;
    if (this.options.streamErrors) this.resetStream(stream, CODE.PROTOCOL_ERROR);
    else this.#fail(CODE.PROTOCOL_ERROR, DETAILS.CODEC);
  }

  /**
   * Fails the connection for a frame that breaks a rule of its stream alone (RFC 9113 §5.4.2), as Envoy does, which sends no GOAWAY
   * then: a head or trailers behind the stream's end, a WINDOW_UPDATE by nothing.
   */
  failOver(stream: Stream): void {
    stream.lostDetails = DETAILS.MISPLACED;
    this.#fail(CODE.PROTOCOL_ERROR, DETAILS.CODEC);
  }

  /** Resets a stream whose body size differs from content-length (RFC 9113 §8.1.1). */
  onWrongLength(stream: Stream): void {
    stream.lostDetails = DETAILS.RESET;
    this.resetStream(stream, CODE.PROTOCOL_ERROR);
  }

  /** Resets the stream `id`; fails the connection if there is no such stream or `id` is 0. */
  errorOn(id: number, code: number): void {
    const stream = this.streams.get(id);
    if (stream !== undefined) this.resetStream(stream, code);
    else this.fail(code);
  }

  // ---- end of the connection

  /** Sends GOAWAY: streams above `lastId` will not be served. */
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

  /** As `failProtocol`, for a frame of a type that does not belong on the stream `id`. */
  failMisplaced(id: number): void {
    const stream = this.streams.get(id);
    if (stream !== undefined) stream.lostDetails = DETAILS.MISPLACED;
    this.failProtocol();
  }

  /** Connection error (RFC 9113 §5.4.1): sends GOAWAY and loses all streams; `Side.onFailed` closes the connection. */
  fail(code: number, details: string = DETAILS.CODEC): void {
    if (this.dead) return;
    this.sendGoAway(this.side.isServer ? this.lastId : 0, code);
    this.#fail(code, details);
  }

  /** As `fail`, when the peer sends too many frames that cost it little. */
  failFlood(details: string): void {
    if (this.dead) return;
    this.sendGoAway(this.side.isServer ? this.lastId : 0, CODE.ENHANCE_YOUR_CALM);
    this.#fail(CODE.ENHANCE_YOUR_CALM, details, true);
  }

  /** The client does not speak HTTP/2. As in Envoy it gets no GOAWAY, nor settings that have not been written yet. */
  failPreface(): void {
    this.out.discard();
    this.#fail(CODE.PROTOCOL_ERROR, DETAILS.CODEC);
  }

  /** As `fail` but without GOAWAY, as Envoy does for malformed messages. */
  #fail(code: number, details: string, isFlood = false): void {
    if (this.dead) return;
    this.flush();
    this.#die();
    // Before the streams are lost, so that a retry does not open a new stream on this connection.
    this.side.onFailed(details, isFlood);
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
    const streams = this.streams.all();
    this.streams.clear();
    for (const stream of streams) {
      this.stats.streamsActive.dec();
      stream.onClosed();
      stream.onLost("connection", code);
    }
  }
}
