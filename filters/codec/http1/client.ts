// Hot path: test/bench/http1-codec.ts. Codec of a connection to an HTTP/1 upstream.
//
//             newStream          final head            end of the response
//   IDLE ──────────────> HEAD ──────────────> BODY ─────────────────────────┐
//    ▲                    │ ▲                  (a tunnel after 2xx to        │
//    │                    └─┘ 1xx               CONNECT, or after 101)      │
//    └── both halves of the exchange complete, keep-alive ──────────────────┤
//                                                                           └─ otherwise ─> CLOSED
//
// Bytes that belong to no request, errors and `connection: close` retire the connection: it leaves the pool and closes when idle.
import {
  Chunk,
  type ClientCodec,
  type ClientEvents,
  type CloseEvent,
  type CodecOptions,
  type Connection,
  type HeaderMap,
  headerName,
  NAME_ID,
  type RequestEncoder,
  type RequestHeaders,
  type ResetReason,
  type ResponseDecoder,
} from "@tsproxy/sdk";
import { BODY, BodyReader } from "./body-reader.ts";
import { BodyWriter, MODE } from "./body-writer.ts";
import { PARSE, responseError } from "./error.ts";
import { fieldBytes } from "./fields.ts";
import { CONNECT, Framing, GET, HEAD, HOP_BY_HOP, isMethod } from "./framing.ts";
import { HeadReader, KIND } from "./head-reader.ts";
import { recase } from "./name-case.ts";
import {
  LINE,
  lengthOf,
  requestHeadSize,
  upgradeLineBit,
  writeBytes,
  writeRequestHead,
  writeText,
} from "./writer.ts";

const STATE = { IDLE: 0, HEAD: 1, BODY: 2, CLOSED: 3 } as const;

/** More 1xx responses than this before the final response are an error. */
const MAX_INFORMATIONAL = 100;
/** Tunnel bytes kept until the upstream agrees to the tunnel: from the first number on the downstream is paused, so few can follow. */
const EARLY_BYTES_PAUSE = 64 * 1024;
const MAX_EARLY_BYTES = 1024 * 1024;
const NOTHING = new Uint8Array(0);
const UPGRADE = headerName("upgrade");
const LENGTH_BIT = 1 << NAME_ID.CONTENT_LENGTH;
const UPGRADE_BIT = 1 << NAME_ID.UPGRADE;
/** Methods without a defined body: a request without a body needs no `content-length: 0` (RFC 9110 §8.6). */
const BODILESS = new Set(["GET", "HEAD", "DELETE", "TRACE", "CONNECT"]);

export class Http1Client implements ClientCodec {
  readonly connection: Connection;
  readonly options: CodecOptions;
  readonly #events: ClientEvents;
  readonly #reader: HeadReader;
  readonly #body: BodyReader;
  readonly #framing = new Framing();
  readonly #chunk = new Chunk(NOTHING, 0, 0);
  #state: number = STATE.IDLE;
  #stream: ClientStream | undefined = undefined;
  #retired = false;
  #informational = 0;
  /** A part of a response head has been received. */
  #headBegun = false;
  /** While a response head is told: how many bytes of the same read follow it. */
  #behindHead = 0;
  #running = false;
  #paused = false;

  constructor(connection: Connection, events: ClientEvents, options: CodecOptions) {
    this.connection = connection;
    this.options = options;
    this.#events = events;
    this.#reader = new HeadReader(KIND.RESPONSE, options);
    this.#body = new BodyReader(options, options.enableTrailers);
  }

  get active(): boolean {
    return this.#stream !== undefined;
  }

  newStream(decoder: ResponseDecoder): RequestEncoder {
    const stream = new ClientStream(this, decoder);
    if (this.#state !== STATE.IDLE || this.#retired) return stream; // Not the current stream: calls on it have no effect.
    this.#stream = stream;
    this.#state = STATE.HEAD;
    this.#informational = 0;
    this.#headBegun = false;
    return stream;
  }

  onData(chunk: Chunk): void {
    if (this.#state === STATE.CLOSED) return;
    this.#running = true;
    const at = this.#run(chunk.memory, chunk.at, chunk.end);
    this.#running = false;
    if (at < chunk.end) this.#onSurplus();
    else this.#settle();
  }

  /** Closes the connection after bytes that belong to no request, as the next request would take them for its response. */
  #onSurplus(): void {
    const stream = this.#stream;
    if (stream?.responseEnded && stream.requestEnded) {
      // The exchange is complete and ends normally; the pool counts a protocol error.
      this.#stream = undefined;
      this.#events.onIdle();
      this.#events.onFailed?.();
    }
    this.#retireAndClose();
  }

  onBlocked(blocked: boolean): void {
    this.#stream?.decoder.onUpstreamBlocked(blocked);
  }

  onEof(): void {
    const stream = this.#stream;
    if (this.#state === STATE.CLOSED) return;
    if (stream === undefined) this.#retireAndClose();
    else if (this.#state === STATE.BODY && this.#body.isRaw && !stream.isUpgraded) {
      this.#retire();
      this.#endResponse(stream);
      this.#deliver(stream, NOTHING, 0, 0, true);
      this.#settle();
    } else this.#lose(this.#headBegun ? "protocol_error" : "connection_closed", undefined);
  }

  onClosed(event: CloseEvent): void {
    const stream = this.#stream;
    const natural = this.#body.isRaw && event.by === "remote" && event.error === undefined;
    if (this.#state === STATE.BODY && natural && stream !== undefined && !stream.isTunnel) {
      this.#state = STATE.CLOSED;
      this.#stream = undefined;
      this.#retire();
      this.#deliver(stream, NOTHING, 0, 0, true);
    } else if (this.#state !== STATE.CLOSED)
      this.#lose(event.phase === "connecting" ? "connection_failed" : "connection_closed", event);
  }

  /** Reads as far as the state allows and returns the offset of the first byte not read. */
  #run(memory: Uint8Array, from: number, end: number): number {
    let at = from;
    while (at < end) {
      if (this.#state === STATE.HEAD) at = this.#readHead(memory, at, end);
      else if (this.#state === STATE.BODY) at = this.#readBody(memory, at, end);
      else if (this.#state === STATE.CLOSED) return end;
      else break;
    }
    return at;
  }

  /** Reads a response head; returns the offset after the bytes read. */
  #readHead(memory: Uint8Array, at: number, end: number): number {
    const stream = this.#stream!;
    const headers = stream.decoder.responseHeaders;
    let code = this.#reader.read(headers, memory, at, end);
    // A head that is refused is not read to its end.
    stream.wireReceived += (code <= 0 ? end : this.#reader.at) - at;
    this.#headBegun = code === PARSE.INCOMPLETE;
    if (code === PARSE.INCOMPLETE) return end;
    if (code > 0) stream.headerReceived += fieldBytes(headers);
    const framing = this.#framing;
    const { status } = headers;
    const tunnel = stream.isConnect && status >= 200 && status < 300;
    if (code > 0) code = framing.readResponse(headers, stream.upgrade !== "", tunnel);
    if (code > 0 && status < 200 && status !== 101 && ++this.#informational > MAX_INFORMATIONAL)
      code = PARSE.TOO_MANY_HEADERS;
    if (code < 0) {
      this.#fail(code);
      return end;
    }
    const next = this.#reader.at;
    if (status < 200 && status !== 101) {
      stream.decoder.onInformational(headers);
      return next;
    }
    const body = this.#body;
    let endStream = false;
    if (tunnel || framing.upgrade !== "") {
      this.#state = STATE.BODY;
      body.beginRaw();
      this.#retire();
      stream.openTunnel();
    } else {
      this.#state = STATE.BODY;
      stream.denyTunnel();
      if (!framing.keepAlive) this.#retire(true);
      // As in Envoy, a 101 that agrees to no upgrade is a response without a body.
      const bodiless = status === 101 || status === 204 || status === 304;
      if (stream.isHead || bodiless || framing.contentLength === 0) endStream = true;
      else if (framing.chunked) body.beginChunked();
      else if (framing.contentLength > 0) body.beginLength(framing.contentLength);
      else {
        body.beginRaw();
        this.#retire();
      }
      if (endStream) this.#endResponse(stream);
    }
    this.#behindHead = end - next;
    stream.decoder.onResponseHeaders(endStream);
    this.#behindHead = 0;
    return next;
  }

  /** Reads a part of a response body; returns the offset after the bytes read. */
  #readBody(memory: Uint8Array, at: number, end: number): number {
    const body = this.#body;
    const stream = this.#stream!;
    const found = body.next(memory, at, end);
    stream.wireReceived += body.at - at;
    switch (found) {
      case BODY.DATA:
        if (body.last) this.#endResponse(stream);
        this.#deliver(stream, memory, body.dataAt, body.dataEnd, body.last);
        break;
      case BODY.END:
        this.#endResponse(stream);
        this.#deliver(stream, NOTHING, 0, 0, true);
        break;
      case BODY.TRAILERS:
        this.#endResponse(stream);
        stream.decoder.onResponseTrailers(body.trailers);
        break;
      case BODY.BAD:
        this.#lose("protocol_error", undefined);
        return end;
    }
    return body.at;
  }

  #deliver(
    stream: ClientStream,
    memory: Uint8Array,
    at: number,
    end: number,
    endStream: boolean,
  ): void {
    const chunk = this.#chunk;
    chunk.memory = memory;
    chunk.at = at;
    chunk.end = end;
    stream.decoder.onResponseBody(chunk, endStream);
  }

  /** Marks the response as ended. Called before the decoder is told, as the decoder may then reset the stream. */
  #endResponse(stream: ClientStream): void {
    stream.responseEnded = true;
    this.#state = STATE.IDLE;
  }

  /** Called after each read and at the request's end: if both halves are complete, the connection becomes idle or closes. */
  #settle(): void {
    const stream = this.#stream;
    if (stream === undefined || !stream.responseEnded || this.#running) return;
    if (!stream.requestEnded) {
      // A tunnel's request half stays open. Otherwise the upstream has answered early and does not need the rest of the request.
      if (!stream.isTunnel) this.#retireAndClose();
      return;
    }
    if (stream.isCut) {
      this.#retireAndClose();
      return;
    }
    const last = this.#retired;
    this.#stream = undefined;
    this.#updatePause();
    this.#events.onIdle();
    if (last) this.#retireAndClose();
  }

  /** Closes the connection because a response head breaks the protocol; `code`: a PARSE code. */
  #fail(code: number): void {
    const { decoder } = this.#stream!;
    this.#shut();
    decoder.onDecodeError(responseError(code));
    this.connection.close("abort");
  }

  /** Closes the connection and resets a stream whose response is not complete. */
  #lose(reason: ResetReason, event: CloseEvent | undefined): void {
    const stream = this.#stream;
    this.#shut();
    if (stream !== undefined && !stream.responseEnded)
      stream.decoder.onUpstreamReset(reason, event);
    this.connection.close("abort");
  }

  #shut(): void {
    this.#state = STATE.CLOSED;
    this.#stream = undefined;
    this.#updatePause();
    this.#retire();
  }

  #retireAndClose(): void {
    this.#shut();
    this.connection.close("flush");
  }

  #retire(announced = false): void {
    if (this.#retired) return;
    this.#retired = true;
    this.#events.onRetire(announced);
  }

  #updatePause(): void {
    const pause = this.#stream?.paused === true;
    if (pause === this.#paused) return;
    this.#paused = pause;
    if (pause) this.connection.pause();
    else this.connection.resume();
  }

  // ---- called by ClientStream

  /** That of the last response, or, before the first, of the requests. */
  get protocol(): "HTTP/1.0" | "HTTP/1.1" {
    return this.#framing.minor === 0 ? "HTTP/1.0" : "HTTP/1.1";
  }

  isCurrent(stream: ClientStream): boolean {
    return this.#stream === stream;
  }

  onRequestEnded(): void {
    this.#settle();
  }

  onStreamReset(stream: ClientStream): void {
    const complete = stream.responseEnded && stream.requestEnded;
    if (complete && this.#running) return; // `onData` calls #settle next.
    // As in Envoy, what came with a head that is given up (for another try, say) counts, in the log of this try too.
    stream.wireReceived += this.#behindHead;
    this.#shut();
    this.connection.close("abort");
  }

  onReadingPaused(): void {
    this.#updatePause();
  }
}

/** One exchange on the upstream connection: encodes the request and keeps the state of both halves. */
class ClientStream implements RequestEncoder {
  readonly decoder: ResponseDecoder;
  isHead = false;
  isConnect = false;
  isTunnel = false;
  upgrade = "";
  paused = false;
  requestEnded = false;
  responseEnded = false;
  wireReceived = 0;
  headerReceived = 0;
  headerSent = 0;
  readonly #client: Http1Client;
  readonly #writer = new BodyWriter();
  #headSent = false;
  /** A tunnel was asked for and the upstream has not answered yet. */
  #waiting = false;
  #early: Uint8Array[] | undefined = undefined;
  #earlyBytes = 0;
  #earlyEnd = false;

  constructor(client: Http1Client, decoder: ResponseDecoder) {
    this.#client = client;
    this.decoder = decoder;
  }

  get protocol(): "HTTP/1.0" | "HTTP/1.1" {
    return this.#client.protocol;
  }

  get wireSent(): number {
    return this.#writer.wireSent;
  }

  /** A tunnel after 101: its end is one of the connection, and as in Envoy never an end of the message. */
  get isUpgraded(): boolean {
    return this.isTunnel && !this.isConnect;
  }

  /** True if the request ended with fewer body bytes than its content-length. */
  get isCut(): boolean {
    return this.#writer.left > 0;
  }

  encodeHeaders(headers: RequestHeaders, endStream: boolean, upgrade: string): void {
    if (!this.#isOpen || this.#headSent) return;
    this.#headSent = true;
    this.upgrade = upgrade;
    this.isHead = isMethod(headers, HEAD);
    const isConnectMethod = isMethod(headers, CONNECT);
    this.isConnect = isConnectMethod && upgrade === "";
    let skip = HOP_BY_HOP | (upgrade === "" ? UPGRADE_BIT : 0);
    const upgradeLine = upgrade === "" ? 0 : upgradeLineBit(headers);
    const length = lengthOf(headers);
    let mode: number = MODE.NONE;
    let noBody = false;
    if (upgrade !== "" || this.isConnect) {
      if (this.isConnect) skip |= LENGTH_BIT;
      this.#waiting = true;
    } else if (endStream) {
      if (length !== 0) {
        skip |= LENGTH_BIT;
        noBody = length > 0 || !(isMethod(headers, GET) || BODILESS.has(headers.method));
      }
    } else if (length >= 0) mode = MODE.LENGTH;
    else {
      skip |= LENGTH_BIT;
      mode = MODE.CHUNKED;
    }
    this.#writer.begin(mode, length);
    const { connection, options } = this.#client;
    const plain = options.sendsAbsoluteUrl === true ? "absolute" : "";
    const form = this.isConnect ? "connect" : isConnectMethod ? "asGet" : plain;
    const out = connection.reserve(requestHeadSize(headers, form) + upgrade.length);
    const from = out.at;
    const fields = from + writeRequestHead(out, headers, skip & ~upgradeLine, form);
    if (upgrade !== "") {
      if (!headers.has(UPGRADE)) writeText(out, `upgrade: ${upgrade}\r\n`);
      if (upgradeLine === 0) writeBytes(out, LINE.UPGRADE);
    }
    if (noBody) writeBytes(out, LINE.NO_BODY);
    else if (mode === MODE.CHUNKED) writeBytes(out, LINE.CHUNKED);
    this.headerSent = out.at - fields;
    writeBytes(out, LINE.END);
    const { headerKeyFormat } = options;
    if (headers.originalNames !== undefined || headerKeyFormat === "proper_case_words") {
      recase(out.memory, from, out.at, headers.originalNames);
    }
    this.#writer.wireSent += out.at - from;
    connection.commit(out);
    if (!endStream) {
      // The connection tells of a change only, and it may have been blocked before this exchange.
      if (connection.blocked) this.decoder.onUpstreamBlocked(true);
    } else if (this.#waiting) this.#earlyEnd = true;
    else this.#finish();
  }

  encodeBody(memory: Uint8Array, at: number, end: number, endStream: boolean): void {
    if (!this.#isOpen || !this.#headSent || this.requestEnded) return;
    if (this.#waiting) {
      this.#keepEarly(memory, at, end, endStream);
      return;
    }
    this.#writer.write(this.#client.connection, memory, at, end, endStream);
    if (endStream) this.#finish();
  }

  encodeTrailers(trailers: HeaderMap): void {
    if (!this.#isOpen || !this.#headSent || this.requestEnded) return;
    if (this.#waiting) {
      this.#earlyEnd = true;
      return;
    }
    const client = this.#client;
    this.#writer.writeTrailers(client.connection, trailers, client.options.enableTrailers);
    this.#finish();
  }

  /** Keeps tunnel bytes until the upstream agrees: an upstream that refuses would read them as another request. */
  #keepEarly(memory: Uint8Array, at: number, end: number, endStream: boolean): void {
    if (endStream) this.#earlyEnd = true;
    if (end === at) return;
    const before = this.#earlyBytes;
    this.#earlyBytes += end - at;
    if (this.#earlyBytes > MAX_EARLY_BYTES) {
      const { decoder } = this;
      this.reset();
      decoder.onUpstreamReset("overflow", undefined);
      return;
    }
    if (before < EARLY_BYTES_PAUSE && this.#isEarlyFull) this.decoder.onUpstreamBlocked(true);
    this.#early ??= [];
    this.#early.push(memory.slice(at, end));
  }

  get #isEarlyFull(): boolean {
    return this.#earlyBytes >= EARLY_BYTES_PAUSE;
  }

  /** The upstream agreed to the tunnel: sends the kept bytes. */
  openTunnel(): void {
    const { connection } = this.#client;
    this.isTunnel = true;
    this.#waiting = false;
    // As in Envoy, the request half of an upgrade is not closed on its own; that of CONNECT is.
    this.#writer.begin(this.isConnect ? MODE.TUNNEL : MODE.UNTIL_CLOSE, 0);
    const early = this.#early;
    this.#early = undefined;
    if (early !== undefined) {
      for (const bytes of early) this.#writer.write(connection, bytes, 0, bytes.length, false);
      if (this.#isEarlyFull && !connection.blocked) this.decoder.onUpstreamBlocked(false);
    }
    if (this.#earlyEnd) {
      if (this.isConnect) connection.end();
      this.requestEnded = true;
    }
  }

  /**
   * The upstream refused the tunnel: kept tunnel bytes are dropped. A request that has not ended ends with the connection, as in
   * Envoy, for who knows what the upstream would take further bytes for.
   */
  denyTunnel(): void {
    if (!this.#waiting) return;
    this.#waiting = false;
    this.requestEnded = this.#earlyEnd;
    this.#early = undefined;
    if (this.#isEarlyFull && !this.#client.connection.blocked)
      this.decoder.onUpstreamBlocked(false);
  }

  #finish(): void {
    this.requestEnded = true;
    this.#client.onRequestEnded();
  }

  reset(): void {
    if (this.#isOpen) this.#client.onStreamReset(this);
  }

  pauseReading(paused: boolean): void {
    if (paused === this.paused) return;
    this.paused = paused;
    if (this.#isOpen) this.#client.onReadingPaused();
  }

  get #isOpen(): boolean {
    return this.#client.isCurrent(this);
  }
}
