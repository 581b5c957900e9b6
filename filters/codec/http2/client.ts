// Hot path: codec of a connection to an HTTP/2 upstream.
import {
  ByteQueue,
  type Chunk,
  type ClientCodec,
  type ClientEvents,
  type CloseEvent,
  type CodecOptions,
  type Connection,
  type HeaderMap,
  headerName,
  http2Options,
  NAME_ID,
  type RequestEncoder,
  type RequestHeaders,
  type ResponseDecoder,
} from "@tsproxy/sdk";
import { CODE } from "./frame.ts";
import { FAULT, KIND, type Kind } from "./head-builder.ts";
import { SKIPPED } from "./hpack-encoder.ts";
import { Session, type SessionParts, type Side } from "./session.ts";
import type { Http2Stats } from "./stats.ts";
import { Stream } from "./stream.ts";
import { trailersMap } from "./trailers.ts";

/** More 1xx responses than this before the final response are an error. */
const MAX_INFORMATIONAL = 100;
/** Stream ids end at 2^31 - 1 (RFC 9113 §5.1.1); the connection is retired well before. */
const LAST_USED_ID = 0x4000_0000;
const LENGTH_BIT = 1 << NAME_ID.CONTENT_LENGTH;
const UPGRADE = headerName("upgrade");
const NOTHING = new Uint8Array(0);

export class Http2Client implements ClientCodec, Side {
  readonly isServer = false;
  readonly session: Session;
  readonly #connection: Connection;
  #events: ClientEvents;
  #retired = false;
  #finished = false;
  #capacity: number;

  constructor(
    connection: Connection,
    events: ClientEvents,
    options: CodecOptions,
    stats: Http2Stats,
    parts: SessionParts,
  ) {
    this.#connection = connection;
    this.#events = events;
    const h2 = options.http2 ?? http2Options();
    this.#capacity = h2.maxConcurrentStreams;
    this.session = new Session(connection, options, h2, stats, parts, this);
  }

  get active(): boolean {
    return this.session.streams.size > 0;
  }

  get capacity(): number {
    return this.#capacity;
  }

  adopt(events: ClientEvents): void {
    this.#events = events;
  }

  newStream(decoder: ResponseDecoder): RequestEncoder {
    this.session.keepAlive.probeIfIdle();
    return new ClientStream(this, decoder);
  }

  onData(chunk: Chunk): void {
    this.session.onData(chunk);
  }
  onAgain(): void {
    this.session.onAgain();
  }
  onBlocked(blocked: boolean): void {
    this.session.onBlocked(blocked);
  }

  onEof(): void {
    if (this.session.dead) return;
    this.#retire();
    this.session.onClosed();
    this.#connection.close("flush");
  }

  onClosed(_event: CloseEvent): void {
    this.session.onClosed();
  }

  finish(): void {
    if (this.#finished || this.session.dead) return;
    this.#finished = true;
    this.session.sendGoAway(0, CODE.NO_ERROR);
    this.session.flush();
  }

  #retire(): void {
    if (this.#retired) return;
    this.#retired = true;
    this.#events.onRetire();
  }

  /** Gives the stream the next id; called when its head is about to be sent. */
  open(stream: ClientStream): void {
    const { session } = this;
    session.lastId = session.lastId === 0 ? 1 : session.lastId + 2;
    stream.id = session.lastId;
    session.register(stream);
    if (stream.id > LAST_USED_ID) this.#retire();
  }

  /** Called when a stream is reset before its head was sent. */
  onUnopened(): void {
    this.#events.onIdle();
  }

  // ---- called by the session

  openStream(_id: number, _endStream: boolean): Stream | undefined {
    return undefined;
  }

  headersOf(stream: Stream): { readonly kind: Kind; readonly headers: HeaderMap } {
    if (stream.headReceived) return trailersMap();
    return { kind: KIND.RESPONSE, headers: (stream as ClientStream).decoder.responseHeaders };
  }

  onHead(
    stream: ClientStream,
    _kind: Kind,
    _headers: HeaderMap,
    fault: number,
    endStream: boolean,
  ): void {
    const { session } = this;
    if (fault === FAULT.MALFORMED || fault === FAULT.BAD_FIELD) session.onMalformed(stream);
    else if (fault !== FAULT.NONE) {
      stream.isTooLarge = true;
      session.stats.headerOverflow.inc();
      session.resetStream(stream, CODE.INTERNAL_ERROR);
    } else if (stream.decoder.responseHeaders.status < 200) {
      if (endStream || ++stream.informational > MAX_INFORMATIONAL) session.onMalformed(stream);
      else stream.decoder.onInformational(stream.decoder.responseHeaders);
    } else stream.onFinalHead(session.builder.contentLength, endStream);
  }

  onStreamClosed(stream: Stream): void {
    this.#events.onIdle(stream.deliveredEnd);
  }

  onSettings(): void {
    const before = this.#capacity;
    const { session } = this;
    this.#capacity = Math.min(session.options.maxConcurrentStreams, session.peerMaxStreams);
    if (this.#capacity > before) this.#events.onCapacity?.();
  }

  onGoAway(lastId: number, _code: number): void {
    this.#retire();
    this.session.loseAbove(lastId);
  }

  onStreamLost(by: "us" | "peer" | "connection"): void {
    this.#events.onStreamLost?.(by);
  }

  onFailed(_details: string): void {
    this.#events.onFailed?.();
    this.#retire();
    this.#connection.close("abort");
  }
}

/** One exchange on the upstream connection: sends the request, receives the response. */
class ClientStream extends Stream implements RequestEncoder {
  readonly protocol = "HTTP/2";
  readonly decoder: ResponseDecoder;
  isTooLarge = false;
  informational = 0;
  readonly #client: Http2Client;
  #isHead = false;
  /** A CONNECT, also an extended one. */
  #asksTunnel = false;
  #upgrade = "";
  /** What has been sent while the upstream has not answered to the CONNECT, and whether that was all. */
  #early: ByteQueue | undefined = undefined;
  #earlyEnd = false;
  #refused = false;

  constructor(client: Http2Client, decoder: ResponseDecoder) {
    super(client.session);
    this.#client = client;
    this.decoder = decoder;
  }

  encodeHeaders(headers: RequestHeaders, endStream: boolean, upgrade: string): void {
    const { session } = this;
    if (this.closed || this.headSent || session.dead) return;
    this.headSent = true;
    this.sendWindow = session.peerWindow;
    this.#client.open(this);
    // In the client's own letters.
    this.#upgrade = upgrade === "" ? "" : (headers.get(UPGRADE) ?? upgrade);
    const { method } = headers;
    this.#isHead = method === "HEAD";
    const isConnect = method === "CONNECT" && upgrade === "";
    this.#asksTunnel = isConnect || upgrade !== "";
    const at = session.beginHead();
    session.encoder.requestLine(headers, isConnect, this.#upgrade);
    session.encoder.fields(headers, this.#asksTunnel ? SKIPPED | LENGTH_BIT : SKIPPED);
    // A request for an upgrade never has END_STREAM, as the tunnel's bytes follow.
    const ends = endStream && upgrade === "";
    if (endStream) this.sendEnded = ends;
    session.endHead(this, at, ends);
    if (ends) session.settle(this);
    else if (this.#asksTunnel) this.#early = new ByteQueue();
  }

  /** As in Envoy, bytes of a tunnel wait until the upstream agrees: one that refuses is not to read them. */
  override encodeBody(memory: Uint8Array, at: number, end: number, endStream: boolean): void {
    const early = this.#early;
    if (early === undefined) {
      super.encodeBody(memory, this.#refused ? end : at, end, endStream);
      return;
    }
    if (endStream) this.#earlyEnd = true;
    const isFirst = early.size === 0;
    early.push(memory, at, end);
    if (isFirst && early.size > 0) this.decoder.onUpstreamBlocked(true);
  }

  override encodeTrailers(trailers: HeaderMap): void {
    if (this.#early === undefined) super.encodeTrailers(trailers);
    else this.#earlyEnd = true;
  }

  /** The upstream has answered to the CONNECT: what waited is sent, or dropped. */
  #onAnswered(agreed: boolean): void {
    const early = this.#early;
    if (early === undefined) return;
    this.#early = undefined;
    this.#refused = !agreed;
    if (agreed) for (const bytes of early.pieces) super.encodeBody(bytes, 0, bytes.length, false);
    if (early.size > 0 && !this.hasPending && !this.closed) this.decoder.onUpstreamBlocked(false);
    if (this.#earlyEnd) super.encodeBody(NOTHING, 0, 0, true);
  }

  onFinalHead(contentLength: number, endStream: boolean): void {
    const { decoder, session } = this;
    const headers = decoder.responseHeaders;
    this.headReceived = true;
    const bodiless = this.#isHead || headers.status === 304 || headers.status === 204;
    // RFC 9110 §8.6: a content-length says nothing of a tunnel's bytes.
    const tunnels = this.#asksTunnel && headers.status >= 200 && headers.status < 300;
    this.contentLeft = tunnels ? -1 : bodiless ? 0 : contentLength;
    if (endStream && this.contentLeft > 0) {
      session.onMalformed(this);
      return;
    }
    if (this.#upgrade !== "" && headers.status === 200) {
      // RFC 8441 §4: a 200 accepts the upgrade; the router expects the 101 of HTTP/1.
      headers.status = 101;
      headers.append("upgrade", this.#upgrade);
      headers.append("connection", "upgrade");
    }
    if (endStream) this.deliveredEnd = true;
    decoder.onResponseHeaders(endStream);
    this.#onAnswered(tunnels);
    if (endStream) session.settle(this);
  }

  reset(): void {
    if (this.closed) return;
    // As in Envoy, INTERNAL_ERROR for every exchange that the proxy gives up.
    if (this.headSent) {
      this.#client.onStreamLost("us");
      this.session.abandon(this, CODE.INTERNAL_ERROR);
    } else {
      this.closed = true;
      this.#client.onUnopened();
    }
  }

  // ---- called by Stream, for what the upstream sends

  protected onBody(chunk: Chunk, endStream: boolean): void {
    this.decoder.onResponseBody(chunk, endStream);
  }
  protected onTrailers(trailers: HeaderMap): void {
    this.decoder.onResponseTrailers(trailers);
  }
  protected onBlocked(blocked: boolean): void {
    this.decoder.onUpstreamBlocked(blocked);
  }

  onLost(by: "peer" | "us" | "connection" | "goaway", code: number): void {
    if (this.deliveredEnd) return;
    const { decoder } = this;
    if (by === "goaway" || (by === "peer" && code === CODE.REFUSED_STREAM)) {
      decoder.onUpstreamReset("refused", undefined);
      return;
    }
    // Reset reasons as in Envoy: connection lost, reset by the upstream, or reset by us for a protocol error.
    if (by === "connection" && code === CODE.NO_ERROR) {
      this.#client.onStreamLost("connection");
      decoder.onUpstreamReset("connection_closed", undefined);
    } else if (by === "peer" && code === CODE.CONNECT_ERROR) {
      // As in Envoy, none of the counts of lost streams has those.
      decoder.onUpstreamReset("connect_error", undefined);
    } else if ((by === "peer" && code !== CODE.PROTOCOL_ERROR) || this.isTooLarge) {
      this.#client.onStreamLost("peer");
      decoder.onUpstreamReset("remote", undefined);
    } else {
      this.#client.onStreamLost("us");
      decoder.onUpstreamReset("protocol_error", undefined);
    }
  }
}
