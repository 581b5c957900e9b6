// Hot path: codec of a connection from an HTTP/2 client.
import {
  type Chunk,
  type CloseEvent,
  type CodecOptions,
  type Connection,
  type HeaderMap,
  headerName,
  http2Options,
  isFinalStatus,
  NAME_ID,
  type RequestDecoder,
  type RequestInfo,
  type ResponseEncoder,
  type ResponseHeaders,
  type ServerCodec,
  type ServerEvents,
} from "@tsproxy/sdk";
import { CODE, DETAILS, LAST_STREAM_ID } from "./frame.ts";
import { dropUnderscores, FAULT, KIND, type Kind } from "./head-builder.ts";
import { SKIPPED } from "./hpack-encoder.ts";
import { Session, type SessionParts, type Side } from "./session.ts";
import type { Http2Stats } from "./stats.ts";
import { Stream } from "./stream.ts";
import { trailersMap } from "./trailers.ts";

const LENGTH_BIT = 1 << NAME_ID.CONTENT_LENGTH;
const CONTENT_LENGTH = headerName("content-length");
const UPGRADE = headerName("upgrade");

export class Http2Server implements ServerCodec, Side {
  readonly isServer = true;
  readonly session: Session;
  readonly #events: ServerEvents;
  readonly #options: CodecOptions;
  readonly #info: RequestInfo = {
    protocol: "HTTP/2",
    isHead: false,
    isConnect: false,
    upgrade: "",
    contentLength: -1,
    expectContinue: false,
  };
  #draining = false;
  #finished = false;

  constructor(
    connection: Connection,
    events: ServerEvents,
    options: CodecOptions,
    stats: Http2Stats,
    parts: SessionParts,
  ) {
    this.#events = events;
    this.#options = options;
    this.session = new Session(
      connection,
      options,
      options.http2 ?? http2Options(),
      stats,
      parts,
      this,
    );
  }

  get active(): boolean {
    return this.session.streams.size > 0;
  }

  onData(chunk: Chunk): void {
    this.session.onData(chunk);
  }

  onAgain(): void {
    this.session.onAgain();
  }

  /** HTTP/2 has no half-closed connections: after a client's FIN, open streams are lost and the connection ends. */
  onEof(): void {
    const { session } = this;
    if (session.dead) return;
    session.onClosed();
    this.#events.onIdleEnd();
  }

  onBlocked(blocked: boolean): void {
    this.session.onBlocked(blocked);
  }

  onClosed(_event: CloseEvent): void {
    this.session.onClosed();
  }

  /** First of two GOAWAYs (RFC 9113 §6.8): the client should open no further streams; those already sent are still served. */
  drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    this.session.sendGoAway(LAST_STREAM_ID, CODE.NO_ERROR);
  }

  finish(): void {
    const { session } = this;
    this.#draining = true;
    if (session.dead) return;
    if (!this.#finished) {
      // As in Envoy, only this GOAWAY is counted: not the first of a drain, not those for errors or sent by the client codec.
      session.stats.goawaySent.inc();
      session.sendGoAway(session.lastId, CODE.NO_ERROR);
    }
    this.#finished = true;
    session.flush();
  }

  // ---- called by the session

  openStream(id: number, _endStream: boolean): Stream | undefined {
    const { session } = this;
    if (id > session.goAwayId) return undefined;
    if (session.streams.size >= session.options.maxConcurrentStreams) {
      session.refuse(id);
      return undefined;
    }
    const stream = new ServerStream(session, id);
    session.register(stream);
    stream.decoder = this.#events.onStream(stream);
    return stream;
  }

  headersOf(stream: Stream): { readonly kind: Kind; readonly headers: HeaderMap } {
    if (stream.headReceived) return trailersMap();
    return { kind: KIND.REQUEST, headers: (stream as ServerStream).decoder.headers };
  }

  onHead(
    stream: ServerStream,
    kind: Kind,
    headers: HeaderMap,
    fault: number,
    endStream: boolean,
  ): void {
    const { session } = this;
    if (fault !== FAULT.NONE) {
      this.#onFault(stream, fault);
      return;
    }
    if (kind !== KIND.REQUEST) return;
    const { builder } = session;
    stream.headReceived = true;
    if (builder.hasUnderscores && !this.#takesUnderscores(stream, headers)) return;
    const { protocol, contentLength } = builder;
    if (this.#isForeign) {
      session.onMalformed(stream, DETAILS.FIELD);
      return;
    }
    if (contentLength > 0 && endStream) {
      session.onMalformed(stream);
      return;
    }
    if (!builder.isConnect) stream.contentLeft = contentLength;
    stream.isHead = builder.isHead;
    stream.isTunnel = builder.isConnect || protocol !== "";
    stream.upgrade = protocol;
    const info = this.#info;
    info.isHead = builder.isHead;
    info.isConnect = builder.isConnect;
    info.upgrade = protocol;
    info.contentLength = contentLength;
    info.expectContinue = builder.expectContinue;
    if (endStream) stream.deliveredEnd = true;
    stream.decoder.onRequestHeaders(info, endStream);
    if (endStream) session.settle(stream);
  }

  /** True for an extended CONNECT that is not allowed: `:protocol` counts as an undefined field then. */
  get #isForeign(): boolean {
    const { builder, options } = this.session;
    return builder.protocol !== "" && !options.allowConnect;
  }

  #onFault(stream: Stream, fault: number): void {
    const { session } = this;
    if (fault === FAULT.MALFORMED && this.#isForeign) session.onMalformed(stream, DETAILS.FIELD);
    else if (fault === FAULT.MALFORMED) session.onMalformed(stream);
    else if (fault === FAULT.BAD_FIELD) session.onMalformed(stream, DETAILS.FIELD);
    else {
      if (fault === FAULT.TOO_MANY) session.stats.headerOverflow.inc();
      else session.stats.headerListTooLarge.inc();
      stream.lostDetails = fault === FAULT.TOO_MANY ? DETAILS.TOO_MANY : DETAILS.TOO_LARGE;
      session.resetStream(stream, CODE.INTERNAL_ERROR);
    }
  }

  #takesUnderscores(stream: Stream, headers: HeaderMap): boolean {
    const { session } = this;
    switch (this.#options.headersWithUnderscores) {
      case "ALLOW":
        return true;
      case "DROP_HEADER":
        session.stats.droppedHeaders.add(dropUnderscores(headers));
        return true;
      case "REJECT_REQUEST":
        session.stats.rejectedRequests.inc();
        stream.lostDetails = DETAILS.UNDERSCORE;
        session.resetStream(stream, CODE.INTERNAL_ERROR);
        return false;
    }
  }

  onStreamClosed(_stream: Stream): void {
    const isLast = this.session.streams.size === 0;
    if (isLast && this.#finished) this.#leave();
  }

  onSettings(): void {}

  /** Does nothing: as in Envoy, the client closes the connection after its GOAWAY, else the idle timeout does. */
  onGoAway(_lastId: number, _code: number): void {}

  #leave(): void {
    this.#events.onIdleEnd();
  }

  onFailed(details: string, isFlood: boolean): void {
    if (this.#events.onConnectionError === undefined) this.#events.onIdleEnd();
    else this.#events.onConnectionError(details, isFlood);
  }
}

/** One exchange on the client's connection: receives the request, sends the response. */
class ServerStream extends Stream implements ResponseEncoder {
  decoder!: RequestDecoder;
  isHead = false;
  /** The response must have no body (to HEAD, or with status 204 or 304): body bytes are dropped. */
  #isBodiless = false;
  /** CONNECT, the extended one too. */
  isTunnel = false;
  /** Protocol that an extended CONNECT asks for, or "". */
  upgrade = "";

  constructor(session: Session, id: number) {
    super(session);
    this.id = id;
  }

  get streamId(): number {
    return this.id;
  }

  encodeInformational(headers: ResponseHeaders): void {
    if (this.closed || this.headSent) return;
    if (headers.status < 100 || headers.status > 199 || headers.status === 101) return;
    this.#writeHead(headers, headers.status, SKIPPED | LENGTH_BIT, false);
  }

  encodeHeaders(headers: ResponseHeaders, endStream: boolean): void {
    if (this.closed || this.headSent) return;
    this.headSent = true;
    let { status } = headers;
    let skip = SKIPPED;
    // RFC 8441 §4: HTTP/2 answers 200 where HTTP/1 answers 101.
    if (status === 101 && this.upgrade !== "" && (!endStream || headers.has(UPGRADE))) {
      status = 200;
      skip |= LENGTH_BIT;
    }
    if (!isFinalStatus(status)) status = 500;
    this.#isBodiless = this.isHead || status === 204 || status === 304;
    if (status === 204) skip |= LENGTH_BIT;
    else if (endStream && !this.isHead && status !== 304 && headers.has(CONTENT_LENGTH)) {
      // RFC 9113 §8.1.1: a content-length without a body would make the response malformed.
      if (headers.get(CONTENT_LENGTH) !== "0") skip |= LENGTH_BIT;
    }
    if (endStream) this.sendEnded = true;
    this.#writeHead(headers, status, skip, endStream);
    if (endStream) this.session.settle(this);
  }

  #writeHead(headers: ResponseHeaders, status: number, skip: number, endStream: boolean): void {
    const { session } = this;
    const at = session.beginHead();
    session.encoder.status(status);
    session.encoder.fields(headers, skip);
    session.endHead(this, at, endStream);
  }

  override encodeBody(memory: Uint8Array, at: number, end: number, endStream: boolean): void {
    super.encodeBody(memory, this.#isBodiless ? end : at, end, endStream);
  }

  reset(lost = false): void {
    const code = lost && this.isTunnel ? CODE.CONNECT_ERROR : CODE.INTERNAL_ERROR;
    this.session.abandon(this, code);
  }

  upstreamLost(): void {
    if (this.isTunnel) this.earlyEndCode = CODE.CONNECT_ERROR;
  }

  /** Does nothing: in HTTP/2 a connection is ended by GOAWAY. */
  closeAfter(): void {}

  // ---- called by Stream, for what the client sends

  // Once the response is complete, the decoder is not called any more: it may already serve another stream.

  protected onBody(chunk: Chunk, endStream: boolean): void {
    if (!this.sendEnded) this.decoder.onRequestBody(chunk, endStream);
  }
  protected onTrailers(trailers: HeaderMap): void {
    if (!this.sendEnded) this.decoder.onRequestTrailers(trailers);
  }
  protected onBlocked(blocked: boolean): void {
    if (!this.sendEnded) this.decoder.onBlocked(blocked);
  }
  onLost(by: "peer" | "us" | "connection" | "goaway", code: number): void {
    if (this.sendEnded) return;
    if (by === "peer") {
      const details = code === CODE.REFUSED_STREAM ? DETAILS.REFUSED : DETAILS.RESET;
      this.decoder.onReset("remote", code === CODE.NO_ERROR ? "" : details);
    } else
      this.decoder.onReset(
        by === "us" || code !== CODE.NO_ERROR ? "protocol_error" : "connection_closed",
        this.lostDetails,
      );
  }
}
