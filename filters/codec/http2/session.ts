// Hot path: every frame in both directions.
//
//   PREFACE (servers) ──> OPEN ──our GOAWAY──> OPEN, no new streams ──last stream ended──> CLOSED
//                          └── the peer breaks the protocol, or a limit ──GOAWAY────────────^
//
// A header block is one unit: HEADERS and the CONTINUATION frames behind it, and nothing in between. DATA is passed on as it comes;
// all other frames are looked at when they are complete.
import {
  type Chunk,
  type CodecOptions,
  type Connection,
  HeaderMap,
  type Http2Options,
  type SetupContext,
  type Timer,
} from "@tsproxy/sdk";
import {
  CODE,
  DEFAULT_WINDOW,
  DETAILS,
  FLAG,
  FRAME_HEAD,
  LARGEST_FRAME_SIZE,
  LARGEST_WINDOW,
  LAST_STREAM_ID,
  MAX_FRAME_SIZE,
  PREFACE,
  SETTING,
  TYPE,
} from "./frame.ts";
import { type BufferPool, FrameWriter } from "./frame-writer.ts";
import type { HeadArena } from "./head-arena.ts";
import { HeadBuilder, KIND, type Kind } from "./head-builder.ts";
import { DEFAULT_TABLE_SIZE, HpackDecoder } from "./hpack-decoder.ts";
import { HpackEncoder, SKIPPED } from "./hpack-encoder.ts";
import type { Http2Stats } from "./stats.ts";
import type { Stream } from "./stream.ts";

/** New streams of one connection in a turn; others get their turn then. Bounds the memory of a turn as well. */
const STREAMS_A_TURN = 64;
/** Encoded bytes of a header block beyond the limit of the decoded head: what coding may add, and padding. */
const BLOCK_EXTRA = 16 * 1024;
/** CONTINUATION frames of one block (CVE-2024-27316); each but the last could be full. */
const MAX_CONTINUATIONS = 32;
/** Streams that were closed last, so that what crossed their end on the wire is told from what never was right. */
const CLOSED_KEPT = 256;
/** Bytes of input that wait for a turn: one read, or a few that were on their way. */
const MAX_REST = 1024 * 1024;
const MAX_TABLE = 64 * 1024;
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

export class Session {
  readonly connection: Connection;
  readonly cx: SetupContext;
  readonly codecOptions: CodecOptions;
  readonly options: Http2Options;
  readonly stats: Http2Stats;
  readonly builder: HeadBuilder;
  readonly encoder: HpackEncoder;
  readonly streams = new Map<number, Stream>();
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
  peerMaxStreams = 0xffff_ffff;
  peerAllowsConnect = false;
  /** Streams opened, by either side. */
  opened = 0;
  readonly #side: Side;
  readonly #out: FrameWriter;
  readonly #decoder: HpackDecoder;
  readonly #tableSize: number;
  #peerMaxFrame = MAX_FRAME_SIZE;
  #sendWindow = DEFAULT_WINDOW;
  #receiveWindow: number;
  #untold = 0;
  #dataFramesSent = 0;
  // ---- input
  #prefaceAt: number;
  #settingsSeen = false;
  /** Part of a frame, its head included. */
  #stash: Uint8Array = NOTHING;
  #stashed = 0;
  /** The DATA frame under way. */
  #dataLeft = 0;
  #padLeft = 0;
  #dataEnds = false;
  #dataStream: Stream | undefined = undefined;
  /** The block that CONTINUATION goes on with, or 0. */
  #blockId = 0;
  #blockEnds = false;
  #block: Uint8Array = NOTHING;
  #blockSize = 0;
  #continuations = 0;
  /** Input that waits for the next turn. */
  #rest: Uint8Array = NOTHING;
  #restPaused = false;
  #started = 0;
  #reading = false;
  // ---- limits
  #emptyFrames = 0;
  #priorityFrames = 0;
  #windowUpdates = 0;
  // ---- streams
  readonly #waiting: Stream[] = [];
  #resuming: Stream[] = [];
  readonly #closedIds = new Int32Array(CLOSED_KEPT);
  readonly #closedByUs = new Uint8Array(CLOSED_KEPT);
  #closedCount = 0;
  // ---- keep-alive
  #interval: Timer | undefined = undefined;
  #pongDue: Timer | undefined = undefined;
  #lastRead: number;

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
    this.#side = side;
    this.#out = new FrameWriter(connection, parts.buffers);
    this.#tableSize = Math.min(options.hpackTableSize, MAX_TABLE);
    this.#decoder = new HpackDecoder(this.#tableSize);
    this.encoder = new HpackEncoder(this.#out);
    this.builder = new HeadBuilder(parts.arena, codecOptions);
    this.#receiveWindow = options.initialConnectionWindow;
    this.#prefaceAt = side.isServer ? 0 : PREFACE.length;
    this.#lastRead = this.cx.now();
    this.#begin();
  }

  /** RFC 9113 §3.4: our settings come first, of a client after the preface. */
  #begin(): void {
    const out = this.#out;
    if (!this.#side.isServer) {
      out.ensure(PREFACE.length);
      for (let k = 0; k < PREFACE.length; k++) out.memory[out.at++] = PREFACE.charCodeAt(k);
    }
    const settings = this.#settings();
    out.head(TYPE.SETTINGS, 0, 0, settings.length * 3);
    for (let k = 0; k < settings.length; k += 2) {
      out.uint16(settings[k]!);
      out.uint32(settings[k + 1]!);
    }
    const extra = this.options.initialConnectionWindow - DEFAULT_WINDOW;
    if (extra > 0) this.#sendWindowUpdate(0, extra);
    const keepAlive = this.options.keepAlive;
    if (keepAlive !== undefined && keepAlive.intervalMs > 0) {
      this.#interval = this.cx.timer(() => this.#onInterval());
      this.#armInterval();
    }
  }

  /** Flat [identifier, value, …]. */
  #settings(): number[] {
    const { options } = this;
    const settings: number[] = [];
    if (this.#tableSize !== DEFAULT_TABLE_SIZE)
      settings.push(SETTING.HEADER_TABLE_SIZE, this.#tableSize);
    if (!this.#side.isServer) settings.push(SETTING.ENABLE_PUSH, 0);
    settings.push(SETTING.MAX_CONCURRENT_STREAMS, options.maxConcurrentStreams);
    settings.push(SETTING.INITIAL_WINDOW_SIZE, options.initialStreamWindow);
    if (this.#side.isServer && options.allowConnect)
      settings.push(SETTING.ENABLE_CONNECT_PROTOCOL, 1);
    settings.push(...options.customSettings);
    return settings;
  }

  // ---- input

  onData(chunk: Chunk): void {
    if (this.dead) return;
    this.#lastRead = this.cx.now();
    if (this.#rest.length > 0) {
      this.#keepRest(chunk.memory, chunk.at, chunk.end);
      return;
    }
    this.#started = 0;
    this.#read(chunk.memory, chunk.at, chunk.end);
  }

  /** A later turn: what waits goes on, and what was written leaves. */
  onAgain(): void {
    if (this.dead) return;
    const resuming = this.#resuming;
    if (resuming.length > 0) {
      this.#resuming = [];
      for (const stream of resuming) stream.resume();
    }
    const rest = this.#rest;
    if (rest.length > 0) {
      this.#rest = NOTHING;
      this.#started = 0;
      this.#read(rest, 0, rest.length);
    }
    if (this.#restPaused && this.#rest.length === 0) {
      this.#restPaused = false;
      this.connection.resume();
    }
    this.flush();
  }

  #read(memory: Uint8Array, from: number, end: number): void {
    this.#reading = true;
    const at = this.#run(memory, from, end);
    this.#reading = false;
    if (!this.dead && at < end) this.#keepRest(memory, at, end);
    this.#checkFlood();
  }

  #keepRest(memory: Uint8Array, at: number, end: number): void {
    const kept = this.#rest.length;
    if (kept + end - at > MAX_REST) {
      this.fail(CODE.ENHANCE_YOUR_CALM, "http2.too_much_input");
      return;
    }
    const rest = new Uint8Array(kept + end - at);
    rest.set(this.#rest);
    rest.set(memory.subarray(at, end), kept);
    this.#rest = rest;
    if (!this.#restPaused) {
      this.#restPaused = true;
      this.connection.pause();
    }
    this.connection.again();
  }

  /** Reads frames; answers where it stopped. */
  #run(memory: Uint8Array, from: number, end: number): number {
    let at = from;
    if (this.#prefaceAt < PREFACE.length) at = this.#readPreface(memory, at, end);
    while (at < end && !this.dead) {
      if (this.#dataLeft > 0 || this.#padLeft > 0) {
        at = this.#readData(memory, at, end);
        continue;
      }
      if (this.#stashed > 0) {
        at = this.#fillStash(memory, at, end);
        continue;
      }
      if (this.#started >= STREAMS_A_TURN) return at;
      const next = this.#readFrame(memory, at, end);
      if (next < 0) {
        this.#keepStash(memory, at, end);
        return end;
      }
      at = next;
    }
    return at;
  }

  #readPreface(memory: Uint8Array, at: number, end: number): number {
    let q = at;
    while (q < end && this.#prefaceAt < PREFACE.length) {
      if (memory[q++] !== PREFACE.charCodeAt(this.#prefaceAt++)) {
        this.fail(CODE.PROTOCOL_ERROR, "http2.bad_preface");
        return end;
      }
    }
    return q;
  }

  #keepStash(memory: Uint8Array, at: number, end: number): void {
    const size = end - at;
    if (this.#stash.length < size) this.#stash = new Uint8Array(Math.max(64, size));
    this.#stash.set(memory.subarray(at, end));
    this.#stashed = size;
  }

  /** Completes the frame that lies in the stash, as far as it can. */
  #fillStash(memory: Uint8Array, at: number, end: number): number {
    let q = at;
    const target = this.#stashTarget();
    const size = Math.min(end - q, target - this.#stashed);
    if (this.#stash.length < target) {
      const bigger = new Uint8Array(target);
      bigger.set(this.#stash.subarray(0, this.#stashed));
      this.#stash = bigger;
    }
    this.#stash.set(memory.subarray(q, q + size), this.#stashed);
    this.#stashed += size;
    q += size;
    if (this.#stashed < target || this.#stashTarget() > target) return q;
    const stash = this.#stash;
    const stashed = this.#stashed;
    this.#stashed = 0;
    // Heads are copied out of it, so it may serve again; a large one is not kept for an idle connection.
    if (stash.length > 1024) this.#stash = NOTHING;
    this.#readFrame(stash, 0, stashed);
    return q;
  }

  /** Bytes that have to be in the stash before it can be looked at. */
  #stashTarget(): number {
    if (this.#stashed < FRAME_HEAD) return FRAME_HEAD;
    const stash = this.#stash;
    const size = (stash[0]! << 16) | (stash[1]! << 8) | stash[2]!;
    // Larger frames are refused by their head alone.
    if (size > MAX_FRAME_SIZE) return FRAME_HEAD;
    if (stash[3] !== TYPE.DATA) return FRAME_HEAD + size;
    return (stash[4]! & FLAG.PADDED) !== 0 && size > 0 ? FRAME_HEAD + 1 : FRAME_HEAD;
  }

  /** Reads the frame at `at`; of DATA its head alone. Answers where it ended, or -1 if it is not complete. */
  #readFrame(memory: Uint8Array, at: number, end: number): number {
    if (end - at < FRAME_HEAD) return -1;
    const size = (memory[at]! << 16) | (memory[at + 1]! << 8) | memory[at + 2]!;
    const type = memory[at + 3]!;
    const flags = memory[at + 4]!;
    const id = uint31(memory, at + 5);
    const payload = at + FRAME_HEAD;
    if (size > MAX_FRAME_SIZE) {
      this.fail(CODE.FRAME_SIZE_ERROR, "http2.frame_size_error");
      return end;
    }
    if (!this.#settingsSeen && (type !== TYPE.SETTINGS || (flags & FLAG.ACK) !== 0)) {
      this.fail(CODE.PROTOCOL_ERROR, "http2.no_settings");
      return end;
    }
    if (this.#blockId !== 0 && (type !== TYPE.CONTINUATION || id !== this.#blockId)) {
      this.fail(CODE.PROTOCOL_ERROR, "http2.protocol_error");
      return end;
    }
    if (type === TYPE.DATA) {
      const padded = (flags & FLAG.PADDED) !== 0;
      if (padded && size > 0 && end === payload) return -1;
      if (padded && size === 0) {
        this.fail(CODE.FRAME_SIZE_ERROR, "http2.frame_size_error");
        return end;
      }
      this.#onDataHead(id, size, padded ? memory[payload]! + 1 : 0, flags);
      return padded ? payload + 1 : payload;
    }
    if (end - payload < size) return -1;
    this.#onFrame(type, flags, id, memory, payload, payload + size);
    return payload + size;
  }

  #onFrame(
    type: number,
    flags: number,
    id: number,
    memory: Uint8Array,
    at: number,
    end: number,
  ): void {
    switch (type) {
      case TYPE.HEADERS:
        this.#onHeaders(flags, id, memory, at, end);
        break;
      case TYPE.CONTINUATION:
        this.#onContinuation(flags, id, memory, at, end);
        break;
      case TYPE.PRIORITY:
        this.#onPriority(id, memory, at, end);
        break;
      case TYPE.RST_STREAM:
        this.#onReset(id, memory, at, end);
        break;
      case TYPE.SETTINGS:
        this.#onSettings(flags, id, memory, at, end);
        break;
      case TYPE.PUSH_PROMISE:
        // RFC 9113 §8.4: no client may push, and we have told servers not to.
        this.fail(CODE.PROTOCOL_ERROR, "http2.protocol_error");
        break;
      case TYPE.PING:
        this.#onPing(flags, id, memory, at, end);
        break;
      case TYPE.GOAWAY:
        if (id !== 0) this.fail(CODE.PROTOCOL_ERROR, "http2.protocol_error");
        else if (end - at < 8) this.fail(CODE.FRAME_SIZE_ERROR, "http2.frame_size_error");
        else this.#side.onGoAway(uint31(memory, at), uint32(memory, at + 4));
        break;
      case TYPE.WINDOW_UPDATE:
        this.#onWindowUpdate(id, memory, at, end);
        break;
    }
  }

  // ---- DATA

  #onDataHead(id: number, size: number, padding: number, flags: number): void {
    if (id === 0 || padding > size || this.#isIdle(id)) {
      this.fail(CODE.PROTOCOL_ERROR, "http2.protocol_error");
      return;
    }
    // RFC 9113 §6.9.1: the whole payload counts, whatever becomes of it.
    this.#receiveWindow -= size;
    if (this.#receiveWindow < 0) {
      this.fail(CODE.FLOW_CONTROL_ERROR, "http2.flow_control_error");
      return;
    }
    const ends = (flags & FLAG.END_STREAM) !== 0;
    if (!this.#countEmpty(size === 0 && !ends)) return;
    let stream = this.streams.get(id);
    if (stream === undefined) {
      if (!this.#wasClosedByUs(id)) this.#sendReset(id, CODE.STREAM_CLOSED);
    } else if (stream.receiveEnded || !stream.headReceived) {
      const code = stream.receiveEnded ? CODE.STREAM_CLOSED : CODE.PROTOCOL_ERROR;
      this.#streamError(stream, code);
      stream = undefined;
    } else {
      stream.receiveWindow -= size;
      stream.wireReceived += FRAME_HEAD + size;
      if (stream.receiveWindow < 0) {
        this.#streamError(stream, CODE.FLOW_CONTROL_ERROR);
        stream = undefined;
      }
    }
    this.#dataStream = stream;
    this.#dataEnds = ends;
    this.#padLeft = padding > 0 ? padding - 1 : 0;
    this.#dataLeft = size - padding;
    if (padding > 0) this.onTaken(stream, padding);
    if (stream === undefined || this.#dataLeft > 0) return;
    this.#onBody(stream, NOTHING, 0, 0);
  }

  #readData(memory: Uint8Array, at: number, end: number): number {
    let q = at;
    if (this.#dataLeft > 0) {
      const size = Math.min(end - q, this.#dataLeft);
      this.#dataLeft -= size;
      const stream = this.#dataStream;
      if (stream === undefined || stream.closed) this.onTaken(undefined, size);
      else this.#onBody(stream, memory, q, q + size);
      q += size;
    }
    if (this.#dataLeft > 0) return q;
    const padding = Math.min(end - q, this.#padLeft);
    this.#padLeft -= padding;
    return q + padding;
  }

  #onBody(stream: Stream, memory: Uint8Array, at: number, end: number): void {
    const ends = this.#dataEnds && this.#dataLeft === 0;
    if (stream.contentLeft >= 0) {
      // RFC 9113 §8.1.1: a body that is not as long as its head says is malformed.
      stream.contentLeft -= end - at;
      if (stream.contentLeft < 0 || (ends && stream.contentLeft > 0)) {
        this.onTaken(undefined, end - at);
        this.onMalformed(stream);
        return;
      }
    }
    if (ends) stream.receiveEnded = true;
    stream.receive(memory, at, end, ends);
  }

  /** Bytes have found their consumer, or nobody wants them: the peer may send as many again. */
  onTaken(stream: Stream | undefined, size: number): void {
    if (this.dead || size === 0) return;
    this.#untold += size;
    if (this.#untold * 2 >= this.options.initialConnectionWindow) {
      this.#receiveWindow += this.#untold;
      this.#sendWindowUpdate(0, this.#untold);
      this.#untold = 0;
    }
    if (stream === undefined || stream.receiveEnded || stream.closed) return;
    stream.untold += size;
    if (stream.untold * 2 < this.options.initialStreamWindow) return;
    stream.receiveWindow += stream.untold;
    this.#sendWindowUpdate(stream.id, stream.untold);
    stream.untold = 0;
  }

  #sendWindowUpdate(id: number, size: number): void {
    this.#out.head(TYPE.WINDOW_UPDATE, 0, id, 4);
    this.#out.uint32(size);
  }

  // ---- header blocks

  #onHeaders(flags: number, id: number, memory: Uint8Array, from: number, to: number): void {
    let at = from;
    let end = to;
    if (id === 0 || (this.#side.isServer && (id & 1) === 0)) {
      this.fail(CODE.PROTOCOL_ERROR, "http2.protocol_error");
      return;
    }
    if ((flags & FLAG.PADDED) !== 0) {
      const padding = at < end ? memory[at++]! : 256;
      end -= padding;
    }
    let dependsOnItself = false;
    if ((flags & FLAG.PRIORITY) !== 0) {
      dependsOnItself = end - at >= 5 && uint31(memory, at) === id;
      at += 5;
    }
    if (at > end) {
      this.fail(CODE.PROTOCOL_ERROR, "http2.protocol_error");
      return;
    }
    const ends = (flags & FLAG.END_STREAM) !== 0;
    if (dependsOnItself) {
      this.fail(CODE.PROTOCOL_ERROR, "http2.protocol_error");
      return;
    }
    if (!this.#countEmpty(at === end && !ends)) return;
    if ((flags & FLAG.END_HEADERS) !== 0) {
      this.#onBlock(id, ends, memory, at, end);
      return;
    }
    this.#blockId = id;
    this.#blockEnds = ends;
    this.#blockSize = 0;
    this.#continuations = 0;
    this.#keepBlock(memory, at, end);
  }

  #onContinuation(flags: number, id: number, memory: Uint8Array, at: number, end: number): void {
    if (this.#blockId === 0) {
      this.fail(CODE.PROTOCOL_ERROR, "http2.protocol_error");
      return;
    }
    const last = (flags & FLAG.END_HEADERS) !== 0;
    if (!this.#countEmpty(at === end && !last)) return;
    if (++this.#continuations > MAX_CONTINUATIONS || !this.#keepBlock(memory, at, end)) {
      this.stats.headerOverflow.inc();
      this.fail(CODE.ENHANCE_YOUR_CALM, "http2.too_many_headers");
      return;
    }
    if (!last) return;
    const block = this.#block;
    this.#blockId = 0;
    this.#block = NOTHING;
    this.#onBlock(id, this.#blockEnds, block, 0, this.#blockSize);
  }

  #keepBlock(memory: Uint8Array, at: number, end: number): boolean {
    const size = this.#blockSize + end - at;
    if (size > this.codecOptions.maxHeadBytes + BLOCK_EXTRA) return false;
    if (size > this.#block.length) {
      const bigger = new Uint8Array(Math.max(1024, size * 2));
      bigger.set(this.#block.subarray(0, this.#blockSize));
      this.#block = bigger;
    }
    this.#block.set(memory.subarray(at, end), this.#blockSize);
    this.#blockSize = size;
    return true;
  }

  #onBlock(id: number, ends: boolean, memory: Uint8Array, at: number, end: number): void {
    let stream = this.streams.get(id);
    if (stream === undefined) {
      const isNew = this.#side.isServer && id > this.lastId;
      if (!isNew && !this.#isLate(id)) return;
      if (isNew) {
        this.lastId = id;
        this.#started++;
        stream = this.#side.openStream(id, ends);
      }
    }
    const { builder } = this;
    if (stream === undefined) {
      builder.begin(KIND.TRAILERS, new HeaderMap());
      if (!this.#decoder.decode(memory, at, end, builder)) this.#onBadBlock();
      return;
    }
    stream.wireReceived += FRAME_HEAD + end - at;
    const { kind, headers } = this.#side.headersOf(stream);
    builder.begin(kind, headers);
    if (!this.#decoder.decode(memory, at, end, builder)) {
      this.#onBadBlock();
      return;
    }
    const fault = builder.finish();
    if (stream.closed) return;
    if (stream.receiveEnded) {
      this.#streamError(stream, CODE.STREAM_CLOSED);
      return;
    }
    if (kind === KIND.TRAILERS && !ends) {
      // RFC 9113 §8.1: a second block ends the message.
      this.onMalformed(stream);
      return;
    }
    if (ends) stream.receiveEnded = true;
    if (kind === KIND.TRAILERS && fault === 0) {
      // Those of requests, by Envoy's count.
      if (this.#side.isServer) this.stats.trailers.inc();
      if (stream.contentLeft > 0) this.onMalformed(stream);
      else stream.receiveTrailers(headers);
      return;
    }
    this.#side.onHead(stream, kind, headers, fault, ends);
  }

  #onBadBlock(): void {
    this.fail(CODE.COMPRESSION_ERROR, "http2.header_compression_error");
  }

  /** A block for a stream that is gone. True: it crossed its end, so it is read and dropped. */
  #isLate(id: number): boolean {
    if (this.#isIdle(id)) {
      this.fail(CODE.PROTOCOL_ERROR, "http2.protocol_error");
      return false;
    }
    if (this.#wasClosedByUs(id)) return true;
    const code = this.#wasClosed(id) ? CODE.STREAM_CLOSED : CODE.PROTOCOL_ERROR;
    this.fail(code, "http2.stream_closed");
    return false;
  }

  /** Neither end has used that stream. */
  #isIdle(id: number): boolean {
    if (this.#side.isServer) return id > this.lastId || (id & 1) === 0;
    return id > this.lastId || (id & 1) === 0;
  }

  // ---- other frames

  #onPriority(id: number, memory: Uint8Array, at: number, end: number): void {
    if (id === 0) {
      this.fail(CODE.PROTOCOL_ERROR, "http2.protocol_error");
      return;
    }
    if (end - at !== 5) {
      this.#errorOn(id, CODE.FRAME_SIZE_ERROR);
      return;
    }
    if (uint31(memory, at) === id) {
      this.#errorOn(id, CODE.PROTOCOL_ERROR);
      return;
    }
    const limit = this.options.maxPriorityFramesPerStream * (1 + this.opened);
    if (++this.#priorityFrames <= limit) return;
    this.stats.priorityFramesFlood.inc();
    this.fail(CODE.ENHANCE_YOUR_CALM, "http2.inbound_priority_frames_flood");
  }

  #onReset(id: number, memory: Uint8Array, at: number, end: number): void {
    if (end - at !== 4) {
      this.fail(CODE.FRAME_SIZE_ERROR, "http2.frame_size_error");
      return;
    }
    if (id === 0 || this.#isIdle(id)) {
      this.fail(CODE.PROTOCOL_ERROR, "http2.protocol_error");
      return;
    }
    const stream = this.streams.get(id);
    if (stream === undefined) return;
    this.stats.rxReset.inc();
    this.#lose(stream, "peer", uint32(memory, at), false);
  }

  #onSettings(flags: number, id: number, memory: Uint8Array, from: number, end: number): void {
    if (id !== 0) {
      this.fail(CODE.PROTOCOL_ERROR, "http2.protocol_error");
      return;
    }
    const isAck = (flags & FLAG.ACK) !== 0;
    if (isAck ? end > from : (end - from) % 6 !== 0) {
      this.fail(CODE.FRAME_SIZE_ERROR, "http2.frame_size_error");
      return;
    }
    if (isAck) {
      this.#decoder.onTableSizeAcknowledged(this.#tableSize);
      return;
    }
    this.#settingsSeen = true;
    for (let at = from; at < end && !this.dead; at += 6) {
      this.#onSetting((memory[at]! << 8) | memory[at + 1]!, uint32(memory, at + 2));
    }
    if (this.dead) return;
    this.#out.head(TYPE.SETTINGS, FLAG.ACK, 0, 0);
    this.#side.onSettings();
    this.#sendWaiting();
  }

  #onSetting(id: number, value: number): void {
    switch (id) {
      case SETTING.HEADER_TABLE_SIZE:
        this.encoder.setLimit(value);
        break;
      case SETTING.ENABLE_PUSH:
        if (value > 1 || (value === 1 && !this.#side.isServer))
          this.fail(CODE.PROTOCOL_ERROR, "http2.protocol_error");
        break;
      case SETTING.MAX_CONCURRENT_STREAMS:
        this.peerMaxStreams = value;
        break;
      case SETTING.INITIAL_WINDOW_SIZE:
        if (value > LARGEST_WINDOW) {
          this.fail(CODE.FLOW_CONTROL_ERROR, "http2.flow_control_error");
          return;
        }
        this.#moveWindows(value - this.peerWindow);
        this.peerWindow = value;
        break;
      case SETTING.MAX_FRAME_SIZE:
        if (value < MAX_FRAME_SIZE || value > LARGEST_FRAME_SIZE)
          this.fail(CODE.PROTOCOL_ERROR, "http2.protocol_error");
        else this.#peerMaxFrame = value;
        break;
      case SETTING.ENABLE_CONNECT_PROTOCOL:
        if (value > 1) this.fail(CODE.PROTOCOL_ERROR, "http2.protocol_error");
        else this.peerAllowsConnect = value === 1;
        break;
    }
  }

  /** RFC 9113 §6.9.2: windows of open streams move with the setting, below zero too. */
  #moveWindows(by: number): void {
    for (const stream of this.streams.values()) {
      stream.sendWindow += by;
      if (stream.sendWindow <= LARGEST_WINDOW) continue;
      this.fail(CODE.FLOW_CONTROL_ERROR, "http2.flow_control_error");
      return;
    }
  }

  #onPing(flags: number, id: number, memory: Uint8Array, at: number, end: number): void {
    if (id !== 0) this.fail(CODE.PROTOCOL_ERROR, "http2.protocol_error");
    else if (end - at !== 8) this.fail(CODE.FRAME_SIZE_ERROR, "http2.frame_size_error");
    else if ((flags & FLAG.ACK) !== 0) this.#onPong();
    else {
      this.#out.head(TYPE.PING, FLAG.ACK, 0, 8);
      this.#out.bytes(memory, at, end);
    }
  }

  #onWindowUpdate(id: number, memory: Uint8Array, at: number, end: number): void {
    if (end - at !== 4) {
      this.fail(CODE.FRAME_SIZE_ERROR, "http2.frame_size_error");
      return;
    }
    const limit =
      5 + 2 * (this.opened + this.options.maxWindowUpdatesPerDataFrame * this.#dataFramesSent);
    if (++this.#windowUpdates > limit) {
      this.stats.windowUpdateFramesFlood.inc();
      this.fail(CODE.ENHANCE_YOUR_CALM, "http2.inbound_window_update_frames_flood");
      return;
    }
    const by = uint31(memory, at);
    if (id !== 0 && this.#isIdle(id)) {
      this.fail(CODE.PROTOCOL_ERROR, "http2.protocol_error");
      return;
    }
    if (by === 0) {
      this.#errorOn(id, CODE.PROTOCOL_ERROR);
      return;
    }
    if (id === 0) {
      this.#sendWindow += by;
      if (this.#sendWindow > LARGEST_WINDOW) {
        this.fail(CODE.FLOW_CONTROL_ERROR, "http2.flow_control_error");
        return;
      }
    } else {
      const stream = this.streams.get(id);
      if (stream === undefined) return;
      stream.sendWindow += by;
      if (stream.sendWindow > LARGEST_WINDOW) {
        this.#streamError(stream, CODE.FLOW_CONTROL_ERROR);
        return;
      }
    }
    this.#sendWaiting();
  }

  // ---- limits

  /** Frames that say nothing, one after the other, are only there to be handled. */
  #countEmpty(isEmpty: boolean): boolean {
    if (!isEmpty) {
      this.#emptyFrames = 0;
      return true;
    }
    if (++this.#emptyFrames <= this.options.maxEmptyFrames) return true;
    this.stats.emptyFramesFlood.inc();
    this.fail(CODE.ENHANCE_YOUR_CALM, "http2.inbound_empty_frames_flood");
    return false;
  }

  /** Answers that a peer provokes and does not read: PING, SETTINGS, resets. */
  #checkFlood(): void {
    if (this.dead) return;
    const out = this.#out;
    if (out.controlFrames > this.options.maxOutboundControlFrames) {
      this.stats.outboundControlFlood.inc();
      this.fail(CODE.ENHANCE_YOUR_CALM, "http2.outbound_control_frames_flood");
    } else if (out.frames > this.options.maxOutboundFrames) {
      this.stats.outboundFlood.inc();
      this.fail(CODE.ENHANCE_YOUR_CALM, "http2.outbound_frames_flood");
    }
  }

  // ---- output

  /** How many of `want` bytes may go now. */
  roomFor(stream: Stream, want: number): number {
    if (want === 0) return 0;
    if (this.connection.blocked) return 0;
    let room = Math.min(want, this.#peerMaxFrame);
    if (stream.sendWindow < room) room = stream.sendWindow;
    if (this.#sendWindow < room) room = this.#sendWindow;
    return room;
  }

  sendData(stream: Stream, memory: Uint8Array, at: number, end: number, ends: boolean): void {
    const size = end - at;
    stream.sendWindow -= size;
    stream.wireSent += FRAME_HEAD + size;
    this.#sendWindow -= size;
    this.#dataFramesSent++;
    if (ends) stream.sentEnd = true;
    this.#out.data(stream.id, memory, at, end, ends ? FLAG.END_STREAM : 0);
  }

  /** A head's frame begins; fields are encoded, then `endHead`. Answers what `endHead` wants to know. */
  beginHead(): number {
    const out = this.#out;
    out.ensure(FRAME_HEAD);
    const at = out.at;
    out.at += FRAME_HEAD;
    this.encoder.begin();
    return at;
  }

  endHead(stream: Stream, at: number, ends: boolean): void {
    const out = this.#out;
    const size = out.at - at - FRAME_HEAD;
    const flags = ends ? FLAG.END_STREAM : 0;
    if (ends) stream.sentEnd = true;
    stream.wireSent += FRAME_HEAD * Math.ceil(size / this.#peerMaxFrame) + size;
    out.frames++;
    if (size <= this.#peerMaxFrame) {
      out.putHead(at, TYPE.HEADERS, flags | FLAG.END_HEADERS, stream.id, size);
      return;
    }
    const block = out.memory.slice(at + FRAME_HEAD, out.at);
    out.at = at;
    for (let k = 0; k < size; k += this.#peerMaxFrame) {
      const end = Math.min(size, k + this.#peerMaxFrame);
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
    if (this.#out.at - at === FRAME_HEAD) {
      this.#out.at = at;
      this.sendData(stream, NOTHING, 0, 0, true);
    } else this.endHead(stream, at, true);
  }

  waitForWindow(stream: Stream): void {
    if (stream.waiting) return;
    stream.waiting = true;
    this.#waiting.push(stream);
  }

  /** Lets every stream that waits send one frame in turn, as long as one can. */
  #sendWaiting(): void {
    const waiting = this.#waiting;
    let moved = true;
    while (moved && waiting.length > 0) {
      moved = false;
      for (let n = waiting.length; n > 0; n--) {
        const stream = waiting.shift()!;
        stream.waiting = false;
        const before = this.#dataFramesSent;
        const more = stream.proceed();
        if (this.#dataFramesSent !== before) moved = true;
        if (more || stream.hasPending) this.waitForWindow(stream);
      }
      if (this.#sendWindow <= 0 || this.connection.blocked) break;
    }
  }

  resumeLater(stream: Stream): void {
    if (!this.#resuming.includes(stream)) this.#resuming.push(stream);
    this.connection.again();
  }

  onBlocked(blocked: boolean): void {
    if (this.dead) return;
    if (blocked) return; // Streams hear of it when they have something to send.
    this.flush();
    this.#sendWaiting();
  }

  flush(): void {
    this.#out.flush();
  }

  // ---- the end of streams

  register(stream: Stream): void {
    this.streams.set(stream.id, stream);
    this.opened++;
    this.stats.streamsActive.inc();
  }

  /** Both halves may be complete. */
  settle(stream: Stream): void {
    if (stream.closed || !stream.sentEnd) return;
    if (stream.deliveredEnd) this.#close(stream, false);
    else if (this.#side.isServer) {
      // RFC 9113 §8.1: the answer is complete, and the rest of the request is of no interest.
      if (!stream.receiveEnded) this.#sendReset(stream.id, CODE.NO_ERROR);
      this.#close(stream, true);
    }
  }

  #close(stream: Stream, byUs: boolean): void {
    this.streams.delete(stream.id);
    const place = this.#closedCount++ % CLOSED_KEPT;
    this.#closedIds[place] = stream.id;
    this.#closedByUs[place] = byUs ? 1 : 0;
    this.stats.streamsActive.dec();
    stream.onClosed();
    this.#side.onStreamClosed(stream);
  }

  #wasClosed(id: number): boolean {
    return this.#closedCount > CLOSED_KEPT || this.#closedIds.includes(id);
  }

  /** Its peer may not have known yet when it sent this. Of streams long gone nobody knows; they get the benefit of the doubt. */
  #wasClosedByUs(id: number): boolean {
    const place = this.#closedIds.indexOf(id);
    return place < 0 ? this.#closedCount > CLOSED_KEPT : this.#closedByUs[place] === 1;
  }

  /** Our own side gives the stream up. */
  resetStream(stream: Stream, code: number): void {
    if (stream.closed) return;
    this.#lose(stream, "us", code, true);
  }

  /** Given up by whoever uses it: it need not be told. */
  abandon(stream: Stream, code: number): void {
    if (stream.closed) return;
    this.#sendReset(stream.id, code);
    this.#close(stream, true);
  }

  /** The peer has broken a rule that concerns this stream alone. */
  #streamError(stream: Stream, code: number): void {
    this.#lose(stream, "us", code, true);
  }

  #lose(stream: Stream, by: "peer" | "us" | "goaway", code: number, tells: boolean): void {
    if (stream.closed) return;
    if (tells) this.#sendReset(stream.id, code);
    this.#close(stream, tells);
    stream.onLost(by, code);
  }

  /** The same by id: on the connection, or on a stream that may be gone. */
  #errorOn(id: number, code: number): void {
    const stream = this.streams.get(id);
    if (stream !== undefined) this.#streamError(stream, code);
    else this.fail(code, "http2.protocol_error");
  }

  /** A message of the peer breaks RFC 9113 §8. */
  onMalformed(stream: Stream, details: string = DETAILS.MESSAGE): void {
    this.stats.rxMessagingError.inc();
    stream.lostDetails = details;
    if (this.options.streamErrors) this.#streamError(stream, CODE.PROTOCOL_ERROR);
    else this.fail(CODE.PROTOCOL_ERROR, details);
  }

  refuse(id: number): void {
    this.stats.streamRefusedErrors.inc();
    this.#sendReset(id, CODE.REFUSED_STREAM);
  }

  #sendReset(id: number, code: number): void {
    this.stats.txReset.inc();
    this.#out.head(TYPE.RST_STREAM, 0, id, 4);
    this.#out.uint32(code);
  }

  /** The peer's GOAWAY: it has not looked at streams above `lastId`. */
  loseAbove(lastId: number): void {
    for (const stream of [...this.streams.values()])
      if (stream.id > lastId) this.#lose(stream, "goaway", CODE.REFUSED_STREAM, false);
  }

  // ---- the end of the connection

  /** No streams above `lastId` will be served. */
  sendGoAway(lastId: number, code: number): void {
    if (this.dead) return;
    this.goAwayId = lastId;
    this.stats.goawaySent.inc();
    this.#out.head(TYPE.GOAWAY, 0, 0, 8);
    this.#out.uint32(lastId);
    this.#out.uint32(code);
  }

  /** RFC 9113 §5.4.1. Streams are lost, and whoever owns the connection closes it. */
  fail(code: number, details: string): void {
    if (this.dead) return;
    this.sendGoAway(this.#side.isServer ? this.lastId : 0, code);
    this.flush();
    this.#die();
    // First, so that nobody who hears of a lost stream begins another here.
    this.#side.onFailed(details);
    this.#loseAll(code);
  }

  #die(): void {
    this.dead = true;
    this.#interval?.cancel();
    this.#pongDue?.cancel();
    this.#rest = this.#stash = this.#block = NOTHING;
    this.#resuming = [];
    if (!this.#restPaused) return;
    this.#restPaused = false;
    this.connection.resume();
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

  /** The socket is gone, or its owner lets go of it. */
  onClosed(): void {
    if (!this.dead) {
      this.flush();
      this.#die();
    }
    this.#loseAll(CODE.NO_ERROR);
  }

  get reading(): boolean {
    return this.#reading;
  }

  // ---- keep-alive

  /** Before a stream on a connection that was silent for long. */
  probeIfIdle(): void {
    const keepAlive = this.options.keepAlive;
    if (keepAlive === undefined || keepAlive.idleMs === 0) return;
    if (this.cx.now() - this.#lastRead >= keepAlive.idleMs) this.#probe();
  }

  #onInterval(): void {
    if (this.dead) return;
    this.#probe();
    this.flush();
  }

  #armInterval(): void {
    const { intervalMs, jitterPercent } = this.options.keepAlive!;
    this.#interval?.arm(intervalMs * (1 + (Math.random() * jitterPercent) / 100));
  }

  #probe(): void {
    if (this.#pongDue?.armed === true) return;
    this.#out.head(TYPE.PING, 0, 0, 8);
    this.#out.uint32(0);
    this.#out.uint32(Math.floor(this.cx.now()) >>> 0);
    this.#pongDue ??= this.cx.timer(() => this.#onPongMissed());
    this.#pongDue.arm(this.options.keepAlive!.timeoutMs);
  }

  #onPong(): void {
    this.#pongDue?.cancel();
    if (this.#interval !== undefined) this.#armInterval();
  }

  #onPongMissed(): void {
    if (this.dead) return;
    this.stats.keepaliveTimeout.inc();
    this.connection.close("abort");
  }
}

function uint32(memory: Uint8Array, at: number): number {
  return (
    ((memory[at]! << 24) | (memory[at + 1]! << 16) | (memory[at + 2]! << 8) | memory[at + 3]!) >>> 0
  );
}

function uint31(memory: Uint8Array, at: number): number {
  return uint32(memory, at) & 0x7fff_ffff;
}
