import type { Chunk } from "./bytes.ts";
import type { HeaderMap, RequestHeaders, ResponseHeaders } from "./headers.ts";
import type { Http2Options } from "./http2-options.ts";
import type { CloseEvent, Connection } from "./network.ts";
import type { Stats } from "./stats.ts";

export type ResetReason =
  | "local"
  | "remote"
  /** The peer has not looked at the request (REFUSED_STREAM, GOAWAY): it may be sent again. */
  | "refused"
  | "protocol_error"
  | "connection_closed"
  | "connection_failed"
  | "overflow";

export interface CodecOptions {
  /** Bytes of a head (request or response). */
  readonly maxHeadBytes: number;
  readonly maxHeaders: number;
  readonly enableTrailers: boolean;
  readonly acceptHttp10: boolean;
  readonly defaultHostForHttp10: string;
  readonly allowAbsoluteUrl: boolean;
  readonly allowChunkedLength: boolean;
  readonly allowCustomMethods: boolean;
  readonly headersWithUnderscores: "ALLOW" | "REJECT_REQUEST" | "DROP_HEADER";
  /** HTTP/1: how names of headers are written. Absent: in lower case. `preserve_case`: as the peer of this head wrote them. */
  readonly headerKeyFormat?: "proper_case_words" | "preserve_case" | undefined;
  /** Absent: Envoy's defaults. */
  readonly http2?: Http2Options;
  /** HTTP/2: milliseconds that the end of a message may wait for its peer to take it; 0 or absent: for ever. */
  readonly flushTimeoutMs?: number;
  /** Where the codec counts; absent: its own scope (`http1.`, `http2.`), else a scope of that name in this one. */
  readonly stats?: Stats;
}

/** A codec package's setup returns this. One codec object per connection. */
export interface CodecFactory {
  readonly protocol: "HTTP/1.1" | "HTTP/2";
  createServer(connection: Connection, events: ServerEvents, options: CodecOptions): ServerCodec;
  createClient(connection: Connection, events: ClientEvents, options: CodecOptions): ClientCodec;
}

/** The wire did not keep to the protocol. */
export interface DecodeError {
  /** 400, 408, 413, 426, 431, 501 for requests; 502 for responses. */
  readonly status: number;
  readonly body: string;
  /** Envoy's word for %RESPONSE_CODE_DETAILS%: `http1.codec_error`. */
  readonly details: string;
}

/** Bytes of one exchange on the wire, heads and framing among them. Absent: its codec does not count them. */
export interface WireBytes {
  readonly wireReceived?: number;
  readonly wireSent?: number;
  /** Of these, fields of heads: over HTTP/1 their lines, without that of the request or status; over HTTP/2 their frames. */
  readonly headerReceived?: number;
  readonly headerSent?: number;
}

// ---- server side

/** Implemented by the connection manager. */
export interface ServerEvents {
  /** First byte of a request. The head follows on the decoder returned; `headers` is filled before `onRequestHeaders`. */
  onStream(encoder: ResponseEncoder): RequestDecoder;
  /** Nothing is in progress and the client has closed its half or asked to close: the codec wants the connection closed. */
  onIdleEnd(): void;
  /**
   * The client broke the protocol, or a limit that guards it, and the connection is lost: the codec has told it why, streams
   * are reset next (`protocol_error`), the rest is to close. `details`: Envoy's word for %RESPONSE_CODE_DETAILS%.
   */
  onConnectionError?(details: string): void;
}

export interface RequestDecoder {
  /** `headers` is the decoder's to keep until its stream has ended; the codec fills it (its bytes are lent until the end of the turn). */
  readonly headers: RequestHeaders;
  onRequestHeaders(info: RequestInfo, endStream: boolean): void;
  onRequestBody(chunk: Chunk, endStream: boolean): void;
  onRequestTrailers(trailers: HeaderMap): void;
  onDecodeError(error: DecodeError): void;
  /** The client went away. `details`: Envoy's word for %RESPONSE_CODE_DETAILS% where it spoilt this one stream. */
  onReset(reason: ResetReason, details?: string): void;
  /** The client does not take what was encoded (true), or takes it again. */
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
  /** The connection is about to be closed: names the last stream (GOAWAY) and writes what waits in the codec. */
  finish?(): void;
}

export interface ResponseEncoder extends WireBytes {
  readonly streamId: number;
  encodeInformational(headers: ResponseHeaders): void;
  /** Writes the head. Framing headers (content-length kept, transfer-encoding, connection) are the codec's own. */
  encodeHeaders(headers: ResponseHeaders, endStream: boolean): void;
  encodeBody(memory: Uint8Array, at: number, end: number, endStream: boolean): void;
  encodeTrailers(trailers: HeaderMap): void;
  /** Ends the stream without an end: HTTP/1 closes the connection. */
  reset(): void;
  /** No further request after this stream (HTTP/1: `connection: close`). Before `encodeHeaders`. */
  closeAfter(): void;
  /** HTTP/1.1: the head says `connection: close`, and whoever asks for it closes the connection later. Before `encodeHeaders`. */
  announceClose?(): void;
  /** Request bytes are not taken for now. */
  pauseReading(paused: boolean): void;
}

// ---- client side

/** Implemented by the pool. */
export interface ClientEvents {
  /**
   * An exchange has ended and the connection may take another. A codec with a capacity says so of every exchange, however it
   * ended, until the connection itself is lost.
   */
  onIdle(): void;
  /** The capacity has grown. */
  onCapacity?(): void;
  /** The peer asked to leave, or the codec can take no more requests: out of the pool; closes when idle. */
  onRetire(): void;
}

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
  /** The connection is about to be closed by its owner: says so (GOAWAY) and writes what waits in the codec. */
  finish?(): void;
  /** Another owner goes on with an idle connection, under the same options: events are its own from here on. Absent: none can. */
  adopt?(events: ClientEvents): void;
}

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
  /** The upstream does not take what was encoded (true), or takes it again. */
  onUpstreamBlocked(blocked: boolean): void;
}

export interface RequestEncoder extends WireBytes {
  /** Absent: HTTP/1.1. */
  readonly protocol?: CodecFactory["protocol"];
  /** `upgrade` as in RequestInfo: the exchange may become a tunnel after 101. */
  encodeHeaders(headers: RequestHeaders, endStream: boolean, upgrade: string): void;
  encodeBody(memory: Uint8Array, at: number, end: number, endStream: boolean): void;
  encodeTrailers(trailers: HeaderMap): void;
  /** Gives the exchange up: no call to its decoder follows. HTTP/1 closes the connection unless the exchange was complete. */
  reset(): void;
  pauseReading(paused: boolean): void;
}
