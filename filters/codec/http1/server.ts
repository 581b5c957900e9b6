// Hot path: test/bench/http1-codec.ts. Codec of a connection from an HTTP/1 client.
//
//            ┌───────────────── response ended, keep-alive ──────────────────┐
//            ▼                                                               │
//   HEAD ──head──> BODY ──end of the request──> RESPONSE ──response ended────┤
//     │   │         │                             ▲                          └─ close ─> CLOSED
//     │   └─no body─│─────────────────────────────┘
//     │   └─CONNECT, upgrade─> BODY (of a tunnel: until the client's FIN, or a response that refuses the tunnel)
//     └─ malformed ─┴──────────────────────────────────────────────────────> CLOSED (input is ignored)
//
// One exchange at a time: bytes after a request wait in `#pending` until its response has ended.
import {
  Chunk,
  type CloseEvent,
  type CodecOptions,
  type Connection,
  type HeaderMap,
  headerName,
  isFinalStatus,
  NAME_ID,
  type RequestDecoder,
  type RequestInfo,
  type ResetReason,
  type ResponseEncoder,
  type ResponseHeaders,
  type ServerCodec,
  type ServerEvents,
} from "@tsproxy/sdk";
import { BODY, BodyReader } from "./body-reader.ts";
import { BodyWriter, MODE } from "./body-writer.ts";
import { type Http1Stats, PARSE, requestError } from "./error.ts";
import { fieldBytes } from "./fields.ts";
import { Framing, fillInfo, HOP_BY_HOP } from "./framing.ts";
import { HeadReader, KIND } from "./head-reader.ts";
import { recase } from "./name-case.ts";
import {
  HEAD_EXTRA,
  LINE,
  lengthOf,
  upgradeLineBit,
  writeBytes,
  writeFields,
  writeReason,
  writeStatusLine,
  writeText,
} from "./writer.ts";

const STATE = { HEAD: 0, BODY: 1, RESPONSE: 2, CLOSED: 3 } as const;

/** After this many pipelined exchanges in one turn, other connections are served first. */
const EXCHANGES_A_TURN = 32;
/** Limit for bytes that wait; reading is paused meanwhile, so only a few more reads can follow. */
const MAX_PENDING = 1024 * 1024;
const NOTHING = new Uint8Array(0);
const UPGRADE = headerName("upgrade");
const LENGTH_BIT = 1 << NAME_ID.CONTENT_LENGTH;
const UPGRADE_BIT = 1 << NAME_ID.UPGRADE;

export class Http1Server implements ServerCodec {
  readonly connection: Connection;
  readonly options: CodecOptions;
  readonly #events: ServerEvents;
  readonly #stats: Http1Stats;
  readonly #reader: HeadReader;
  readonly #body: BodyReader;
  readonly #framing = new Framing();
  readonly #info: RequestInfo = {
    protocol: "HTTP/1.1",
    isHead: false,
    isConnect: false,
    upgrade: "",
    contentLength: -1,
    expectContinue: false,
  };
  readonly #chunk = new Chunk(NOTHING, 0, 0);
  #state: number = STATE.HEAD;
  #stream: ServerStream | undefined = undefined;
  #streams = 0;
  /** Received bytes not read yet: [#pendingAt, #pendingEnd). */
  #pending: Uint8Array = NOTHING;
  #pendingAt = 0;
  #pendingEnd = 0;
  #running = false;
  #exchanges = 0;
  #draining = false;
  #eof = false;
  #paused = false;
  /** The last byte was the CR of an empty line before a request. */
  #sawCr = false;

  constructor(
    connection: Connection,
    events: ServerEvents,
    options: CodecOptions,
    stats: Http1Stats,
  ) {
    this.connection = connection;
    this.options = options;
    this.#events = events;
    this.#stats = stats;
    this.#reader = new HeadReader(KIND.REQUEST, options);
    this.#body = new BodyReader(options, options.enableTrailers);
  }

  get active(): boolean {
    return this.#stream !== undefined;
  }

  get draining(): boolean {
    return this.#draining;
  }

  drain(): void {
    this.#draining = true;
  }

  onData(chunk: Chunk): void {
    if (this.#state === STATE.CLOSED) return;
    if (this.#pendingAt < this.#pendingEnd) {
      this.#keep(chunk.memory, chunk.at, chunk.end);
      this.#proceed();
      return;
    }
    this.#exchanges = 0;
    const at = this.#run(chunk.memory, chunk.at, chunk.end);
    if (at < chunk.end) this.#keep(chunk.memory, at, chunk.end);
    else this.#updatePause();
  }

  onAgain(): void {
    this.#proceed();
  }

  onBlocked(blocked: boolean): void {
    this.#stream?.decoder.onBlocked(blocked);
    if (!blocked) this.#proceed();
  }

  /** As in Envoy, a client's FIN abandons the exchange, upgrades too; in a CONNECT tunnel the other half stays open. */
  onEof(): void {
    if (this.#state === STATE.CLOSED || this.#eof) return;
    this.#eof = true;
    const stream = this.#stream;
    if (stream === undefined) {
      if (this.#pendingAt === this.#pendingEnd) this.#leave();
    } else if (this.#state === STATE.BODY && stream.isTunnel && stream.isConnect) {
      this.#state = STATE.RESPONSE;
      this.#deliver(stream, NOTHING, 0, 0, true);
      if (stream.ended && this.#stream === stream) this.#leave();
    } else this.#abandon("connection_closed");
  }

  onClosed(_event: CloseEvent): void {
    this.#reset("connection_closed");
  }

  /** Reads as far as the state allows and returns the offset of the first byte not read. */
  #run(memory: Uint8Array, from: number, end: number): number {
    let at = from;
    this.#running = true;
    while (at < end) {
      if (this.#state === STATE.HEAD) {
        if (this.#stream === undefined) {
          if (this.#exchanges === EXCHANGES_A_TURN) {
            this.connection.again();
            break;
          }
          // No further request is read while the client does not read its responses.
          if (this.connection.blocked) break;
        }
        at = this.#readHead(memory, at, end);
      } else if (this.#state === STATE.BODY) at = this.#readBody(memory, at, end);
      else if (this.#state === STATE.CLOSED) at = end;
      else break;
    }
    this.#running = false;
    return at;
  }

  /** RFC 9112 §2.2: empty lines before a request line are skipped. */
  #skipEmptyLines(memory: Uint8Array, at: number, end: number): number {
    let q = at;
    while (q < end) {
      const c = memory[q]!;
      if (c === 10) this.#sawCr = false;
      else if (c === 13 && !this.#sawCr) this.#sawCr = true;
      else break;
      q++;
    }
    return q;
  }

  /** Reads a request head; returns the offset after the bytes read. */
  #readHead(memory: Uint8Array, from: number, end: number): number {
    // As in Envoy, a request begins with its first byte, and empty lines before it are a part of it.
    const stream = this.#stream ?? this.#begin();
    // `onStream` may have closed the connection or reset the stream.
    if (this.#state !== STATE.HEAD || !this.connection.open) return end;
    let at = from;
    if (!this.#reader.started) {
      at = this.#skipEmptyLines(memory, from, end);
      stream.wireReceived += at - from;
      if (at === end) return end;
    }
    if (this.#sawCr) {
      this.#fail(PARSE.MALFORMED);
      return end;
    }
    const headers = stream.decoder.headers;
    let code = this.#reader.read(headers, memory, at, end);
    // A head that is refused is not read to its end.
    stream.wireReceived += (code <= 0 ? end : this.#reader.at) - at;
    if (code === PARSE.INCOMPLETE) return end;
    const framing = this.#framing;
    if (code > 0) {
      stream.headerReceived = fieldBytes(headers);
      const secure = this.connection.tls !== undefined;
      code = framing.readRequest(headers, this.options, this.#stats, secure);
      if (code < 0) stream.wireReceived += end - this.#reader.at;
      // As in Envoy, whose parser ends there, before it has a head.
      if (code === PARSE.MALFORMED) stream.headerReceived = 0;
    }
    if (code < 0) {
      this.#fail(code);
      return end;
    }
    this.#exchanges++;
    stream.expect(framing);
    fillInfo(this.#info, framing);
    const next = this.#reader.at;
    let endStream = false;
    this.#state = STATE.BODY;
    if (framing.isConnect || framing.upgrade !== "") this.#body.beginRaw();
    else if (framing.chunked) this.#body.beginChunked();
    else if (framing.contentLength > 0) this.#body.beginLength(framing.contentLength);
    else {
      endStream = true;
      this.#state = STATE.RESPONSE;
    }
    stream.decoder.onRequestHeaders(this.#info, endStream);
    return next;
  }

  #begin(): ServerStream {
    const stream = new ServerStream(this, ++this.#streams);
    this.#stream = stream;
    stream.decoder = this.#events.onStream(stream);
    return stream;
  }

  /** Reads a part of a request body; returns the offset after the bytes read. */
  #readBody(memory: Uint8Array, at: number, end: number): number {
    const body = this.#body;
    const stream = this.#stream!;
    const found = body.next(memory, at, end);
    stream.wireReceived += body.at - at;
    switch (found) {
      case BODY.DATA:
        if (body.last) this.#state = STATE.RESPONSE;
        this.#deliver(stream, memory, body.dataAt, body.dataEnd, body.last);
        break;
      case BODY.END:
        this.#state = STATE.RESPONSE;
        this.#deliver(stream, NOTHING, 0, 0, true);
        break;
      case BODY.TRAILERS:
        this.#state = STATE.RESPONSE;
        stream.decoder.onRequestTrailers(body.trailers);
        break;
      case BODY.BAD:
        this.#fail(body.error);
        return end;
    }
    return body.at;
  }

  #deliver(
    stream: ServerStream,
    memory: Uint8Array,
    at: number,
    end: number,
    endStream: boolean,
  ): void {
    const chunk = this.#chunk;
    chunk.memory = memory;
    chunk.at = at;
    chunk.end = end;
    stream.decoder.onRequestBody(chunk, endStream);
  }

  /** Reports a protocol error; the connection manager replies and closes. Later input is ignored. */
  #fail(code: number): void {
    const stream = this.#stream!;
    this.#state = STATE.CLOSED;
    stream.failed = true;
    this.#dropPending();
    this.#updatePause();
    stream.decoder.onDecodeError(requestError(code));
  }

  #abandon(reason: ResetReason): void {
    this.#reset(reason);
    this.connection.close("flush");
  }

  #reset(reason: ResetReason): void {
    const stream = this.#stream;
    this.#close();
    // A tunnel whose response half has ended is already complete for the decoder.
    if (stream !== undefined && !stream.ended) stream.decoder.onReset(reason);
  }

  /** Ends the connection: no exchange is in progress and no further request is read. */
  #leave(): void {
    this.#close();
    this.#events.onIdleEnd();
  }

  #close(): void {
    this.#state = STATE.CLOSED;
    this.#stream = undefined;
    this.#dropPending();
    this.#updatePause();
  }

  // ---- pending bytes

  #keep(memory: Uint8Array, at: number, end: number): void {
    if (this.#state === STATE.CLOSED) return;
    const kept = this.#pendingEnd - this.#pendingAt;
    const size = kept + end - at;
    if (size > MAX_PENDING) {
      this.#abandon("overflow");
      return;
    }
    if (this.#pendingEnd + end - at > this.#pending.length) {
      // The old buffer is never reused: headers parsed in this turn may still point into it.
      const bigger = new Uint8Array(kept === 0 ? size : size * 2);
      bigger.set(this.#pending.subarray(this.#pendingAt, this.#pendingEnd));
      this.#pending = bigger;
      this.#pendingAt = 0;
      this.#pendingEnd = kept;
    }
    this.#pending.set(memory.subarray(at, end), this.#pendingEnd);
    this.#pendingEnd += end - at;
    this.#updatePause();
  }

  #dropPending(): void {
    this.#pending = NOTHING;
    this.#pendingAt = this.#pendingEnd = 0;
  }

  /** Reads pending bytes as far as the state allows. */
  #proceed(): void {
    if (this.#running) return;
    if (this.#pendingAt < this.#pendingEnd) {
      this.#exchanges = 0;
      const at = this.#run(this.#pending, this.#pendingAt, this.#pendingEnd);
      if (at === this.#pendingEnd) this.#dropPending();
      else this.#pendingAt = at;
    }
    this.#updatePause();
    if (this.#eof && this.#pendingAt === this.#pendingEnd) this.#endInput();
  }

  /** Called when the client's FIN and all bytes before it have been read. */
  #endInput(): void {
    if (this.#state === STATE.CLOSED) return;
    if (this.#stream === undefined) this.#leave();
    else if (this.#state !== STATE.RESPONSE) this.#abandon("connection_closed");
  }

  /** Pauses the connection while bytes are pending or the stream is paused; keeps calls of pause and resume balanced. */
  #updatePause(): void {
    const waiting = this.#pendingAt < this.#pendingEnd;
    const pause = waiting || this.#stream?.paused === true;
    if (pause === this.#paused) return;
    this.#paused = pause;
    if (pause) this.connection.pause();
    else this.connection.resume();
  }

  // ---- called by ServerStream

  isCurrent(stream: ServerStream): boolean {
    return this.#stream === stream;
  }

  get isRequestComplete(): boolean {
    return this.#state === STATE.RESPONSE;
  }

  onReadingPaused(): void {
    this.#updatePause();
  }

  onResponseEnded(stream: ServerStream): void {
    if (stream.failed) {
      this.#close();
    } else if (stream.writer.left > 0) {
      // RFC 9112 §8: with fewer bytes than announced the message is incomplete; the close tells the client.
      this.#close();
      this.connection.close("flush");
    } else if (stream.isTunnel && this.#state === STATE.BODY) {
      // The client's half of the tunnel is still open.
    } else if (stream.close || this.#state !== STATE.RESPONSE) this.#leave();
    else {
      this.#state = STATE.HEAD;
      this.#stream = undefined;
      const isNextKept = this.#pendingAt < this.#pendingEnd && !this.#running;
      // As in Envoy, a request that waits begins only when the upstream connection of this one is free again.
      if (isNextKept) this.connection.again();
      else this.#proceed();
    }
  }

  onStreamReset(stream: ServerStream): void {
    // The client must not take this for the regular end of a response without a length, so the connection is reset.
    if (stream.writer.mode === MODE.UNTIL_CLOSE) {
      this.#close();
      this.connection.close("reset");
    } else this.#leave();
  }
}

/** One exchange on the client's connection: encodes the response. */
class ServerStream implements ResponseEncoder {
  readonly streamId: number;
  readonly writer = new BodyWriter();
  wireReceived = 0;
  headerReceived = 0;
  headerSent = 0;
  decoder!: RequestDecoder;
  saidClose = false;
  /** The connection closes after this exchange. */
  close = false;
  failed = false;
  paused = false;
  isTunnel = false;
  /** The response is complete. */
  ended = false;
  readonly #server: Http1Server;
  #headSent = false;
  #announcesClose = false;
  #minor = 1;
  #isHead = false;
  isConnect = false;
  #upgrade = "";

  constructor(server: Http1Server, streamId: number) {
    this.#server = server;
    this.streamId = streamId;
  }

  /** Called when the request head has been read. */
  expect(framing: Framing): void {
    this.#minor = framing.minor;
    this.#isHead = framing.isHead;
    this.isConnect = framing.isConnect;
    this.#upgrade = framing.upgrade;
    if (!framing.keepAlive) this.close = true;
  }

  get wireSent(): number {
    return this.writer.wireSent;
  }

  encodeInformational(headers: ResponseHeaders): void {
    // RFC 9110 §15.2: a client of HTTP/1.0 must not be sent a 1xx.
    if (!this.#isOpen || this.#headSent || this.#minor === 0) return;
    if (headers.status < 100 || headers.status > 199 || headers.status === 101) return;
    const { connection } = this.#server;
    const out = connection.reserve(headers.wireSize + HEAD_EXTRA);
    const from = out.at;
    writeStatusLine(out, 1, headers.status);
    const fields = out.at;
    writeFields(out, headers, HOP_BY_HOP | UPGRADE_BIT | LENGTH_BIT, -1);
    this.headerSent += out.at - fields;
    writeBytes(out, LINE.END);
    this.writer.wireSent += out.at - from;
    connection.commit(out);
  }

  encodeHeaders(headers: ResponseHeaders, endStream: boolean): void {
    if (!this.#isOpen || this.#headSent) return;
    this.#headSent = true;
    const server = this.#server;
    let { status } = headers;
    const switches = status === 101 && !this.failed;
    // As in Envoy, a 101 that ends at once and names no protocol agrees to nothing.
    const upgraded = switches && this.#upgrade !== "" && (!endStream || headers.has(UPGRADE));
    const tunnel = upgraded || (this.isConnect && status >= 200 && status < 300 && !this.failed);
    // No other 1xx can be a final response; a filter that sends one has failed.
    if (!switches && !isFinalStatus(status)) status = 500;
    // As in Envoy, the connection closes after a response that begins before the request has ended.
    if (server.draining || this.failed || (!tunnel && !server.isRequestComplete)) this.close = true;
    let skip = HOP_BY_HOP | (upgraded ? 0 : UPGRADE_BIT);
    const upgradeLine = upgraded ? upgradeLineBit(headers) : 0;
    const length = lengthOf(headers);
    let mode: number = MODE.NONE;
    let noBody = false;
    // RFC 9110 §9.3.2: HEAD gets the headers that GET would; without content-length that includes `transfer-encoding: chunked`.
    let framedLikeGet = false;
    if (tunnel) {
      mode = MODE.TUNNEL;
      skip |= LENGTH_BIT; // RFC 9110 §8.6, §9.3.6
    } else if (switches || status === 204) skip |= LENGTH_BIT;
    else if (this.#isHead || status === 304) {
      if (length === -2) skip |= LENGTH_BIT;
      framedLikeGet = length === -1 && status !== 304 && this.#minor === 1;
    } else if (endStream) {
      noBody = length !== 0;
      if (noBody) skip |= LENGTH_BIT;
    } else if (length >= 0) mode = MODE.LENGTH;
    else {
      skip |= LENGTH_BIT;
      mode = this.#minor === 0 ? MODE.UNTIL_CLOSE : MODE.CHUNKED;
    }
    // As in Envoy, a client of HTTP/1.0 need not know which statuses have no body.
    const isFramed = this.#minor === 1 || noBody || (length >= 0 && (skip & LENGTH_BIT) === 0);
    if (!isFramed) this.close = true;
    this.writer.begin(mode, length);
    const { connection } = server;
    const out = connection.reserve(headers.wireSize + HEAD_EXTRA + this.#upgrade.length);
    const from = out.at;
    if (headers.reason === undefined) writeStatusLine(out, this.#minor, status);
    else writeReason(out, this.#minor, status, headers.reason);
    const fields = out.at;
    writeFields(out, headers, skip & ~upgradeLine, -1);
    if (upgraded) {
      if (!headers.has(UPGRADE)) writeText(out, `upgrade: ${this.#upgrade}\r\n`);
      if (upgradeLine === 0) writeBytes(out, LINE.UPGRADE);
    } else if (tunnel) {
      // RFC 9110 §9.3.6: a 2xx to CONNECT has no Connection header, as a tunnel follows.
    } else if (this.close || this.#announcesClose) {
      writeBytes(out, LINE.CLOSE);
      this.saidClose = true;
    } else if (this.#minor === 0) writeBytes(out, LINE.KEEP_ALIVE);
    if (noBody) writeBytes(out, LINE.NO_BODY);
    else if (mode === MODE.CHUNKED || framedLikeGet) writeBytes(out, LINE.CHUNKED);
    this.headerSent += out.at - fields;
    writeBytes(out, LINE.END);
    const { headerKeyFormat } = server.options;
    if (headers.originalNames !== undefined || headerKeyFormat === "proper_case_words") {
      recase(out.memory, from, out.at, headers.originalNames);
    }
    this.writer.wireSent += out.at - from;
    connection.commit(out);
    if (tunnel) {
      this.isTunnel = true;
      this.close = true;
    }
    if (endStream) this.#end();
  }

  encodeBody(memory: Uint8Array, at: number, end: number, endStream: boolean): void {
    if (!this.#isOpen || !this.#headSent || this.ended) return;
    this.writer.write(this.#server.connection, memory, at, end, endStream);
    if (endStream) this.#finish();
  }

  encodeTrailers(trailers: HeaderMap): void {
    if (!this.#isOpen || !this.#headSent || this.ended) return;
    const server = this.#server;
    this.writer.writeTrailers(server.connection, trailers, server.options.enableTrailers);
    this.#finish();
  }

  /** Ends a response that has only a head; for a tunnel this also closes our half of the connection. */
  #end(): void {
    if (this.isTunnel) this.#server.connection.end();
    this.#finish();
  }

  #finish(): void {
    this.ended = true;
    this.#server.onResponseEnded(this);
  }

  reset(): void {
    if (this.#isOpen) this.#server.onStreamReset(this);
  }

  closeAfter(): void {
    this.close = true;
  }

  announceClose(): void {
    // HTTP/1.0 has no `connection: close` to announce: the connection closes after this response.
    if (this.#minor === 0) this.close = true;
    else this.#announcesClose = true;
  }

  pauseReading(paused: boolean): void {
    if (paused === this.paused) return;
    this.paused = paused;
    if (this.#isOpen) this.#server.onReadingPaused();
  }

  get #isOpen(): boolean {
    return this.#server.isCurrent(this);
  }
}
