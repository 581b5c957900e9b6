import type { Chunk } from "./bytes.ts";
import type { HeaderMap, RequestHeaders, ResponseHeaders } from "./headers.ts";
import type { HeaderNameCase } from "./http1-options.ts";
import type { Http2Options } from "./http2-options.ts";
import type { CloseEvent, Connection } from "./network.ts";
import type { Stats } from "./stats.ts";

/** Why a stream or an exchange has ended before its end. */
export type ResetReason =
  | "local"
  | "remote"
  /** HTTP/2's CONNECT_ERROR: the peer has lost the connection that a tunnel led to. */
  | "connect_error"
  /** The peer has not looked at the request (REFUSED_STREAM, GOAWAY): it may be sent again. */
  | "refused"
  | "protocol_error"
  | "connection_closed"
  | "connection_failed"
  | "overflow";

/** What a codec accepts, and how it writes: the connection manager's or cluster's protocol options. */
export interface CodecOptions {
  /** Bytes of a head (request or response). */
  readonly maxHeadBytes: number;
  readonly maxHeaders: number;
  readonly enableTrailers: boolean;
  readonly acceptHttp10: boolean;
  readonly defaultHostForHttp10: string;
  readonly allowAbsoluteUrl: boolean;
  /** HTTP/1 servers: an absolute URL with `https` is refused on a connection without TLS. Absent: it is taken at its word. */
  readonly refusesHttpsInPlaintext?: boolean;
  readonly allowChunkedLength: boolean;
  readonly allowCustomMethods: boolean;
  readonly headersWithUnderscores: "ALLOW" | "REJECT_REQUEST" | "DROP_HEADER";
  /** HTTP/1: how header names are written. Absent: in lower case. */
  readonly headerKeyFormat?: HeaderNameCase | undefined;
  /** HTTP/1 clients: responses keep their `reason`. Needs `preserve_case`. */
  readonly forwardsReason?: boolean | undefined;
  /** HTTP/1 servers: true if a client's request for an upgrade of that name is ignored. Absent: none is ignored. */
  readonly ignoresUpgrade?: ((name: string) => boolean) | undefined;
  /** HTTP/1 clients: request targets are absolute URLs, as forward proxies want them. */
  readonly sendsAbsoluteUrl?: boolean | undefined;
  /** Absent: Envoy's defaults. */
  readonly http2?: Http2Options;
  /** HTTP/2: how long the end of a message may wait for the peer's window; 0 or absent: for ever. */
  readonly flushTimeoutMs?: number;
  /** The scope in which the codec has its own (`http1.`, `http2.`). Absent: that of the whole process. */
  readonly stats?: Stats;
}

/** A codec package's setup returns this. One codec object per connection. */
export interface CodecFactory {
  readonly protocol: "HTTP/1.1" | "HTTP/2";
  createServer(connection: Connection, events: ServerEvents, options: CodecOptions): ServerCodec;
  createClient(connection: Connection, events: ClientEvents, options: CodecOptions): ClientCodec;
  /** Defines the stats of client codecs below `owner`. Called before a cluster connects: the stats exist even if that fails. */
  listStats?(owner: Stats): void;
}

/** The peer has broken the protocol. */
export interface DecodeError {
  /** 400, 403, 408, 413, 426, 431, 501 for requests; 502 for responses. */
  readonly status: number;
  readonly body: string;
  /** Envoy's word for %RESPONSE_CODE_DETAILS%: `http1.codec_error`. */
  readonly details: string;
}

/** Bytes of one exchange on the wire, heads and framing included. Absent: its codec does not count them. */
export interface WireBytes {
  readonly wireReceived?: number;
  readonly wireSent?: number;
  /** The part of these in heads: over HTTP/1 the lines of fields, without the request or status line; over HTTP/2 the frames. */
  readonly headerReceived?: number;
  readonly headerSent?: number;
  /** Bytes of the names and values in heads and trailers, as they were before compression; absent: `headerReceived`, `headerSent`. */
  readonly fieldsReceived?: number | undefined;
  readonly fieldsSent?: number | undefined;
  /** The response has said `connection: close`, which the codec adds and logs count among its headers. */
  readonly saidClose?: boolean;
}

// ---- server side

/** Implemented by the connection manager. */
export interface ServerEvents {
  /** A request has begun. The returned decoder gets the rest; its `headers` are filled before `onRequestHeaders`. */
  onStream(encoder: ResponseEncoder): RequestDecoder;
  /** Nothing is in progress, and the client has sent FIN or asked to close: the connection is to be closed. */
  onIdleEnd(): void;
  /**
   * The client has broken the protocol, or passed a limit that guards it, and the connection cannot go on: the codec has told the
   * client why and resets all streams after this call (`protocol_error`); closing is up to the connection manager. `details`:
   * Envoy's word for %RESPONSE_CODE_DETAILS%. `isFlood`: each frame was allowed, but there were too many of them.
   */
  onConnectionError?(details: string, isFlood: boolean): void;
}

/** Is told of one request by the server's codec. `ServerCallbacks` makes one for each stream. */
export interface RequestDecoder {
  /** Filled by the codec. The bytes are lent until the end of the turn; the object is the decoder's until its stream ends. */
  readonly headers: RequestHeaders;
  onRequestHeaders(info: RequestInfo, endStream: boolean): void;
  onRequestBody(chunk: Chunk, endStream: boolean): void;
  onRequestTrailers(trailers: HeaderMap): void;
  onDecodeError(error: DecodeError): void;
  /** The stream is gone. `details`: Envoy's word for %RESPONSE_CODE_DETAILS%, where the client has spoilt this one stream. */
  onReset(reason: ResetReason, details?: string): void;
  /** The client does not take what was encoded for now (true), or takes it again (false). */
  onBlocked(blocked: boolean): void;
}

/** What a codec knows of a request beside its headers; reused, so copy what you keep. */
export interface RequestInfo {
  protocol: "HTTP/1.0" | "HTTP/1.1" | "HTTP/2";
  isHead: boolean;
  isConnect: boolean;
  /** `connection: upgrade` with this `upgrade` value, lower case; "" if none. */
  upgrade: string;
  /** -1: not known beforehand. */
  contentLength: number;
  expectContinue: boolean;
}

/** The codec of one connection with a client. */
export interface ServerCodec {
  onData(chunk: Chunk): void;
  onEof(): void;
  onBlocked(blocked: boolean): void;
  onAgain(): void;
  onClosed(event: CloseEvent): void;
  /** A request head has begun or a stream is in progress. */
  readonly active: boolean;
  /** No further request on this connection: the next response says so (`connection: close`), or a GOAWAY notice does at once. */
  drain(): void;
  /** The connection is about to be closed: the codec names the last stream (GOAWAY) and writes what it still holds. */
  finish?(): void;
}

/** Writes the answer to one request. */
export interface ResponseEncoder extends WireBytes {
  readonly streamId: number;
  /** Received bytes of the request's body that the decoder has not been given, as reading is paused. Absent: the codec keeps none. */
  readonly bodyHeld?: number;
  /** The request is received to its end, though the decoder may not have been given all of it. Absent: the codec keeps nothing. */
  readonly receiveEnded?: boolean;
  encodeInformational(headers: ResponseHeaders): void;
  /** Writes the head. Framing headers (content-length kept, transfer-encoding, connection) are the codec's own. */
  encodeHeaders(headers: ResponseHeaders, endStream: boolean): void;
  encodeBody(memory: Uint8Array, at: number, end: number, endStream: boolean): void;
  encodeTrailers(trailers: HeaderMap): void;
  /** Breaks the stream off: HTTP/1 closes the connection, HTTP/2 sends RST_STREAM. `lost`: the upstream's connection is gone. */
  reset(lost?: boolean): void;
  /**
   * The response tells that the upstream's connection failed: an HTTP/2 tunnel that the client has not ended by then is reset with
   * CONNECT_ERROR (RFC 9113 §8.5). Before `encodeHeaders`.
   */
  upstreamLost?(): void;
  /** No further request after this stream (HTTP/1: `connection: close`). Before `encodeHeaders`. */
  closeAfter(): void;
  /** HTTP/1.1: the head says `connection: close`, and the caller closes the connection later. Before `encodeHeaders`. */
  announceClose?(): void;
  /** Request bytes are not taken for now (true), or taken again. */
  pauseReading(paused: boolean): void;
}

// ---- client side

/** Implemented by the pool. */
export interface ClientEvents {
  /**
   * An exchange is complete: the connection may take another, or closes if `onRetire` was called. A codec with a `capacity` calls
   * this for every exchange, however it ended, until the connection itself is lost; `answered`: by the end of its response.
   */
  onIdle(answered?: boolean): void;
  /** The capacity has grown. */
  onCapacity?(): void;
  /**
   * No new exchange, please: the peer asked to leave, or the codec can take no more. The pool closes the connection when it is
   * idle. `announced`: HTTP/1, the head of an answer says that the connection closes.
   */
  onRetire(announced?: boolean): void;
  /**
   * One exchange of several ended early: reset by us (also for errors of the peer) or by the peer, or its connection is gone.
   */
  onStreamLost?(by: "us" | "peer" | "connection"): void;
  /** The peer broke the protocol. The codec then ends the exchanges in progress and closes the connection. */
  onFailed?(): void;
}

/** The codec of one connection with a host. */
export interface ClientCodec {
  /** Begins an exchange. `decoder` gets the answer. HTTP/1: only when idle. */
  newStream(decoder: ResponseDecoder): RequestEncoder;
  onData(chunk: Chunk): void;
  onEof(): void;
  onBlocked(blocked: boolean): void;
  onAgain?(): void;
  onClosed(event: CloseEvent): void;
  /** An exchange is in progress. */
  readonly active: boolean;
  /** Exchanges that may be in progress at once; absent: one. May change. */
  readonly capacity?: number;
  /** The connection is about to be closed by its owner: the codec says so (GOAWAY) and writes what it still holds. */
  finish?(): void;
  /**
   * Another owner takes over an idle connection, with the same options; events go to it from here on. Absent: that is not
   * possible.
   */
  adopt?(events: ClientEvents): void;
}

/** Is told of the answer to one request by the client's codec. */
export interface ResponseDecoder {
  /** Filled before `onResponseHeaders`, as on the server side. */
  readonly responseHeaders: ResponseHeaders;
  onInformational(headers: ResponseHeaders): void;
  onResponseHeaders(endStream: boolean): void;
  onResponseBody(chunk: Chunk, endStream: boolean): void;
  onResponseTrailers(trailers: HeaderMap): void;
  onDecodeError(error: DecodeError): void;
  /** The exchange ended early. Called at most once, never after the end of the response. */
  onUpstreamReset(reason: ResetReason, event: CloseEvent | undefined): void;
  /**
   * The upstream does not take what was encoded for now (true), or takes it again (false). An exchange that finds its
   * connection blocked is told so with its head, or, if exchanges share the connection, once it has bytes that wait.
   */
  onUpstreamBlocked(blocked: boolean): void;
}

/** Writes one request. */
export interface RequestEncoder extends WireBytes {
  /** Absent: HTTP/1.1. As in Envoy, HTTP/1.0 if the connection's last answer, of an exchange before this one or of this one, was that. */
  readonly protocol?: "HTTP/1.0" | CodecFactory["protocol"];
  /** `upgrade` as in RequestInfo: the exchange may become a tunnel after 101. */
  encodeHeaders(headers: RequestHeaders, endStream: boolean, upgrade: string): void;
  encodeBody(memory: Uint8Array, at: number, end: number, endStream: boolean): void;
  encodeTrailers(trailers: HeaderMap): void;
  /** Gives the exchange up: no call to its decoder follows. HTTP/1 closes the connection unless the exchange was complete. */
  reset(): void;
  pauseReading(paused: boolean): void;
}
