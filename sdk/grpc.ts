import { type Chunk, latin1Encode, utf8Decode } from "./bytes.ts";
import type { Host, PoolCallbacks, PoolFailure, PoolHandle } from "./cluster.ts";
import type { DecodeError, RequestEncoder, ResetReason, ResponseDecoder } from "./codec.ts";
import type { SetupContext, Timer } from "./extension.ts";
import type { FetchError } from "./fetch.ts";
import { FetchedCall } from "./grpc-fetch.ts";
import { GRPC_STATUS_NAMES, grpcStatusOfHttp, httpStatusOfGrpc } from "./grpc-status.ts";
import { type HeaderMap, headerName, RequestHeaders, ResponseHeaders } from "./headers.ts";
import { headerText } from "./wire-text.ts";

/**
 * One method of a service. How messages are written is the caller's: any protobuf library that is pure ECMAScript will do,
 * `{ path: "/pkg.Service/Method", encode: (m) => Request.encode(m).finish(), decode: (b) => Reply.decode(b) }`. `decode` may throw.
 */
export interface GrpcMethod<Q, A> {
  readonly path: string;
  encode(message: Q): Uint8Array;
  /** `bytes` are the message's own to keep. */
  decode(bytes: Uint8Array): A;
}

/** What a call says beside its message. */
export interface GrpcOptions {
  /** From the call to its status; the server is told (`grpc-timeout`). Absent: no deadline; out of a sandbox ten minutes, as at most. */
  readonly timeoutMs?: number;
  /** Further lines of the head. Values of `…-bin` names are base64. */
  readonly metadata?: readonly (readonly [name: string, value: string])[];
  /** Absent: the name of the cluster. */
  readonly authority?: string;
  /** Limit of one message that is received. Default: 4 MiB, as in gRPC's libraries. */
  readonly maxMessageBytes?: number;
}

/** How a call has ended. */
export interface GrpcStatus {
  /** By number; 0: OK. */
  readonly code: number;
  /** `grpc-message`, decoded; or why there was no status from the server. */
  readonly message: string;
  /** What came with the status: the trailers, or the head of an answer that is a head alone. */
  readonly metadata: HeaderMap | undefined;
}

/** A call that did not end with OK. */
export class GrpcError extends Error implements GrpcStatus {
  readonly code: number;
  readonly metadata: HeaderMap | undefined;

  constructor({ code, message, metadata }: GrpcStatus) {
    super(message === "" ? (GRPC_STATUS_NAMES[code] ?? String(code)) : message);
    this.name = "GrpcError";
    this.code = code;
    this.metadata = metadata;
  }
}

/** What happens on a stream. Nothing is called before `grpcStream` has returned, or after `onEnd`. */
export interface GrpcEvents<A> {
  /** The server's head; not called if the whole answer is a head. */
  onMetadata?(headers: ResponseHeaders): void;
  onMessage(message: A): void;
  /** Once, at the end, unless the stream was cancelled. */
  onEnd(status: GrpcStatus): void;
  /**
   * The server does not take what was sent for now (true), or takes it again. A caller that goes on sending is cut off at
   * MAX_UNSENT.
   */
  onBlocked?(blocked: boolean): void;
}

/** The caller's side of a streaming call. */
export interface GrpcStream<Q> {
  send(message: Q): void;
  /** No more messages will be sent. */
  end(): void;
  /** Nobody wants to hear of it any more. */
  cancel(): void;
  /** No more messages are taken for now; the server has to wait. */
  pause(paused: boolean): void;
}

/** What a call needs of a context. In a sandbox it goes through `fetch`. */
export type GrpcContext = Pick<SetupContext, "clusters" | "fetch" | "sandboxed" | "timer">;

/** The answer to one message, or a GrpcError. */
export interface GrpcCall<A> {
  readonly answer: Promise<A>;
  /** `answer` is rejected with CANCELLED. */
  cancel(): void;
}

const CODE = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  DEADLINE_EXCEEDED: 4,
  RESOURCE_EXHAUSTED: 8,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
} as const;

/** Why there is no answer; UNAVAILABLE stands for what is not here. */
const OF_FETCH: { readonly [R in FetchError["reason"]]?: number } = {
  timeout: CODE.DEADLINE_EXCEEDED,
  too_large: CODE.RESOURCE_EXHAUSTED,
  cancelled: CODE.CANCELLED,
  malformed: CODE.INTERNAL,
  remote: CODE.INTERNAL,
  protocol_error: CODE.INTERNAL,
};

const GRPC_STATUS = headerName("grpc-status");
const GRPC_MESSAGE = headerName("grpc-message");
const CONTENT_TYPE = headerName("content-type");
const MAX_MESSAGE = 4 * 1024 * 1024;
/** Bytes that may wait for a connection, or for a server that does not take them. */
const MAX_UNSENT = 4 * 1024 * 1024;
/** A flag byte and four bytes of length stand before every message. */
const FRAME_HEAD = 5;
const EMPTY = new Uint8Array(0);

/** A unary call: one message there, one back. */
export function grpcCall<Q, A>(
  cx: GrpcContext,
  cluster: string,
  method: GrpcMethod<Q, A>,
  request: Q,
  options: GrpcOptions = {},
): GrpcCall<A> {
  let cancel = (): void => {};
  const answer = new Promise<A>((resolve, reject) => {
    const fail = (status: GrpcStatus): void => reject(new GrpcError(status));
    const answers: A[] = [];
    const stream = grpcStream<Q, A>(cx, cluster, method, options, {
      onMessage: (message) => {
        answers.push(message);
        if (answers.length < 2) return;
        stream.cancel();
        fail(failure(CODE.UNIMPLEMENTED, "the server has sent more than one message"));
      },
      onEnd: (status) => {
        if (status.code !== CODE.OK) fail(status);
        else if (answers.length === 1) resolve(answers[0]!);
        else fail(failure(CODE.UNIMPLEMENTED, "the server has sent no message"));
      },
    });
    cancel = () => {
      stream.cancel();
      fail(failure(CODE.CANCELLED, "cancelled"));
    };
    stream.send(request);
    stream.end();
  });
  return { answer, cancel: () => cancel() };
}

/** A streaming call: messages both ways, for as long as both ends like. */
export function grpcStream<Q, A>(
  cx: GrpcContext,
  cluster: string,
  method: GrpcMethod<Q, A>,
  options: GrpcOptions,
  events: GrpcEvents<A>,
): GrpcStream<Q> {
  const stream = new Stream(cx, cluster, method, options, events);
  stream.begin();
  return stream;
}

const failure = (code: number, message: string): GrpcStatus => ({
  code,
  message,
  metadata: undefined,
});

const late = (ms: number): string => `no status within ${ms} ms`;

class Stream<Q, A> implements GrpcStream<Q>, PoolCallbacks, ResponseDecoder {
  readonly responseHeaders = new ResponseHeaders();
  readonly decoder: ResponseDecoder = this;
  readonly #cx: GrpcContext;
  readonly #cluster: string;
  readonly #method: GrpcMethod<Q, A>;
  readonly #options: GrpcOptions;
  readonly #events: GrpcEvents<A>;
  readonly #messages: MessageReader;
  #deadline: Timer | undefined = undefined;
  #soon: Timer | undefined = undefined;
  #handle: PoolHandle | undefined = undefined;
  #encoder: RequestEncoder | undefined = undefined;
  #host: Host | undefined = undefined;
  /** Frames that wait for a connection, or for a server that takes no more at the moment. */
  #unsent: Uint8Array[] = [];
  #unsentSize = 0;
  #blocked = false;
  #paused = false;
  #ended = false;
  #over = false;

  constructor(
    cx: GrpcContext,
    cluster: string,
    method: GrpcMethod<Q, A>,
    options: GrpcOptions,
    events: GrpcEvents<A>,
  ) {
    this.#cx = cx;
    this.#cluster = cluster;
    this.#method = method;
    this.#options = options;
    this.#events = events;
    this.#messages = new MessageReader(options.maxMessageBytes ?? MAX_MESSAGE);
  }

  begin(): void {
    const { timeoutMs } = this.#options;
    if (this.#cx.sandboxed === true) {
      const target = `${this.#cluster}:${this.#method.path}`;
      this.#encoder = new FetchedCall(this.#cx, target, { head: this.#head(), timeoutMs }, this);
      return;
    }
    if (timeoutMs !== undefined) {
      this.#deadline = this.#cx.timer(() => {
        this.#host?.onTimeout();
        this.#fail(CODE.DEADLINE_EXCEEDED, late(timeoutMs));
      });
      this.#deadline.arm(timeoutMs);
    }
    const cluster = this.#cx.clusters.get(this.#cluster);
    if (cluster === undefined) {
      this.#failSoon(CODE.UNAVAILABLE, `no cluster "${this.#cluster}"`);
      return;
    }
    const handle = cluster.newStream(this, { head: this.#head(), downstreamProtocol: "HTTP/2" });
    if (!this.#over && this.#encoder === undefined) this.#handle = handle;
  }

  /** As Envoy's own clients write it. */
  #head(): RequestHeaders {
    const { metadata = [], timeoutMs } = this.#options;
    const authority = this.#options.authority ?? headerText(this.#cluster, "cluster");
    const headers = new RequestHeaders();
    headers.method = "POST";
    headers.path = this.#method.path;
    headers.set("host", authority);
    headers.set("te", "trailers");
    // Eight digits at most (gRPC over HTTP/2, "Requests").
    if (timeoutMs !== undefined)
      headers.set("grpc-timeout", `${Math.min(Math.ceil(timeoutMs), 99_999_999)}m`);
    headers.set(CONTENT_TYPE, "application/grpc");
    for (const [name, value] of metadata) headers.append(name, value);
    return headers;
  }

  // ---- from the caller

  send(message: Q): void {
    if (this.#over || this.#ended) return;
    const bytes = framed(this.#method.encode(message));
    const encoder = this.#encoder;
    if (encoder !== undefined && !this.#blocked) {
      encoder.encodeBody(bytes, 0, bytes.length, false);
      return;
    }
    this.#unsentSize += bytes.length;
    if (this.#unsentSize > MAX_UNSENT) this.#failSoon(CODE.RESOURCE_EXHAUSTED, "too much to send");
    else this.#unsent.push(bytes);
  }

  end(): void {
    if (this.#over || this.#ended) return;
    this.#ended = true;
    if (this.#unsent.length === 0) this.#encoder?.encodeBody(EMPTY, 0, 0, true);
  }

  cancel(): void {
    this.#soon?.cancel();
    if (!this.#over) this.#giveUp();
  }

  pause(paused: boolean): void {
    if (this.#over || paused === this.#paused) return;
    this.#paused = paused;
    this.#encoder?.pauseReading(paused);
  }

  // ---- from the pool

  onPoolReady(encoder: RequestEncoder, host: Host): void {
    this.#handle = undefined;
    this.#encoder = encoder;
    this.#host = host;
    encoder.encodeHeaders(this.#head(), false, "");
    if (this.#paused) encoder.pauseReading(true);
    this.#sendUnsent();
  }

  onPoolFailure({ reason, transportFailure }: PoolFailure): void {
    this.#handle = undefined;
    const why = transportFailure === "" ? reason : `${reason}: ${transportFailure}`;
    this.#failSoon(CODE.UNAVAILABLE, why);
  }

  #sendUnsent(): void {
    const encoder = this.#encoder;
    while (encoder !== undefined && !this.#over && !this.#blocked) {
      const bytes = this.#unsent.shift();
      if (bytes === undefined) break;
      this.#unsentSize -= bytes.length;
      const isLast = this.#ended && this.#unsent.length === 0;
      encoder.encodeBody(bytes, 0, bytes.length, isLast);
      if (isLast) return;
    }
    if (this.#ended && this.#unsent.length === 0) encoder?.encodeBody(EMPTY, 0, 0, true);
  }

  // ---- from the codec

  onInformational(): void {}

  onResponseHeaders(endStream: boolean): void {
    if (this.#over) return;
    const headers = this.responseHeaders;
    headers.detach();
    if (endStream) {
      this.#onStatus(headers);
      return;
    }
    if (headers.status === 200 && isGrpc(headers)) {
      this.#events.onMetadata?.(headers);
      return;
    }
    this.#host?.onResponse(headers.status);
    const what = headers.status === 200 ? "is no gRPC" : `has the HTTP status ${headers.status}`;
    this.#fail(grpcStatusOfHttp(headers.status), `the answer ${what}`);
  }

  onResponseBody(chunk: Chunk, endStream: boolean): void {
    const fault = this.#messages.read(chunk, (bytes) => this.#onMessage(bytes));
    if (this.#over) return;
    if (fault !== undefined) this.#fail(fault.code, fault.message);
    else if (endStream) this.#fail(CODE.UNKNOWN, "the answer has ended without a status");
  }

  #onMessage(bytes: Uint8Array): boolean {
    let message: A;
    try {
      message = this.#method.decode(bytes);
    } catch (error) {
      this.#fail(CODE.INTERNAL, `a message cannot be read: ${String(error)}`);
      return false;
    }
    this.#events.onMessage(message);
    return !this.#over;
  }

  onResponseTrailers(trailers: HeaderMap): void {
    if (this.#over) return;
    trailers.detach();
    if (this.#messages.inMessage) this.#fail(CODE.INTERNAL, "the answer ends in mid-message");
    else this.#onStatus(trailers);
  }

  #onStatus(metadata: HeaderMap): void {
    const text = metadata.get(GRPC_STATUS);
    const { status: http } = this.responseHeaders;
    const known = text !== undefined && /^[0-9]{1,9}$/.test(text) ? Number(text) : undefined;
    const code = known ?? (http === 200 ? CODE.UNKNOWN : grpcStatusOfHttp(http));
    const message = percentDecode(metadata.get(GRPC_MESSAGE) ?? "");
    this.#host?.onResponse(httpStatusOfGrpc(code));
    // The server has said all it will; what is not sent yet is of no use to it.
    if (!this.#ended) this.#encoder?.reset();
    this.#finish();
    this.#events.onEnd({ code, message, metadata });
  }

  onDecodeError(error: DecodeError): void {
    this.#encoder = undefined;
    this.#fail(CODE.INTERNAL, `the answer is malformed: ${error.details}`);
  }

  /** From a FetchedCall, which is over. */
  onFetchFailed({ reason, message }: FetchError, timeoutMs: number): void {
    this.#encoder = undefined;
    const code = OF_FETCH[reason] ?? CODE.UNAVAILABLE;
    this.#fail(code, reason === "timeout" ? late(timeoutMs) : message);
  }

  onUpstreamReset(reason: ResetReason): void {
    this.#encoder = undefined;
    this.#host?.onReset();
    this.#fail(OF_FETCH[reason] ?? CODE.UNAVAILABLE, `the call was cut: ${reason}`);
  }

  onUpstreamBlocked(blocked: boolean): void {
    this.#blocked = blocked;
    if (!blocked) this.#sendUnsent();
    if (!this.#over) this.#events.onBlocked?.(blocked);
  }

  // ---- the end

  /** Ends the call in a later turn, since `onEnd` may not come while the caller is still within one of our methods. */
  #failSoon(code: number, message: string): void {
    if (this.#over) return;
    this.#giveUp();
    this.#soon = this.#cx.timer(() => this.#events.onEnd(failure(code, message)));
    this.#soon.arm(0);
  }

  #fail(code: number, message: string): void {
    if (this.#over) return;
    this.#giveUp();
    this.#events.onEnd(failure(code, message));
  }

  #giveUp(): void {
    const encoder = this.#encoder;
    const handle = this.#handle;
    this.#finish();
    handle?.cancel();
    encoder?.reset();
  }

  #finish(): void {
    this.#over = true;
    this.#encoder = undefined;
    this.#handle = undefined;
    this.#unsent = [];
    this.#deadline?.cancel();
  }
}

/** Cuts a body into messages. */
class MessageReader {
  readonly #max: number;
  readonly #head = new Uint8Array(FRAME_HEAD);
  #headSize = 0;
  #message: Uint8Array = EMPTY;
  #size = 0;

  constructor(max: number) {
    this.#max = max;
  }

  get inMessage(): boolean {
    return this.#headSize > 0;
  }

  /** `take` gets each message that is complete and answers whether to go on. Answers what is wrong with the body, if anything. */
  read(chunk: Chunk, take: (message: Uint8Array) => boolean): GrpcStatus | undefined {
    const { memory, end } = chunk;
    let at = chunk.at;
    while (at < end) {
      if (this.#headSize < FRAME_HEAD) {
        this.#head[this.#headSize++] = memory[at++]!;
        if (this.#headSize < FRAME_HEAD) continue;
        const fault = this.#begin();
        if (fault !== undefined) return fault;
      } else {
        const size = Math.min(end - at, this.#message.length - this.#size);
        this.#message.set(memory.subarray(at, at + size), this.#size);
        this.#size += size;
        at += size;
      }
      if (this.#size < this.#message.length) continue;
      const message = this.#message;
      this.#message = EMPTY;
      this.#headSize = this.#size = 0;
      if (!take(message)) return undefined;
    }
    return undefined;
  }

  #begin(): GrpcStatus | undefined {
    const head = this.#head;
    // We offer no compression (`grpc-accept-encoding`), so none may come.
    if (head[0] !== 0) return failure(CODE.INTERNAL, `a message with the flag ${head[0]}`);
    const size = new DataView(head.buffer).getUint32(1);
    if (size > this.#max)
      return failure(
        CODE.RESOURCE_EXHAUSTED,
        `a message of ${size} bytes, where ${this.#max} are taken`,
      );
    this.#message = new Uint8Array(size);
    return undefined;
  }
}

function framed(message: Uint8Array): Uint8Array {
  const frame = new Uint8Array(FRAME_HEAD + message.length);
  new DataView(frame.buffer).setUint32(1, message.length);
  frame.set(message, FRAME_HEAD);
  return frame;
}

function isGrpc(headers: ResponseHeaders): boolean {
  return headers.get(CONTENT_TYPE)?.startsWith("application/grpc") === true;
}

/** `grpc-message` is percent-encoded UTF-8; what is no such thing is left as it is (gRPC over HTTP/2, "Responses"). */
function percentDecode(text: string): string {
  if (!text.includes("%")) return text;
  const byte = (_: string, hex: string): string => String.fromCharCode(Number.parseInt(hex, 16));
  const bytes = latin1Encode(text.replace(/%([0-9A-Fa-f]{2})/g, byte));
  return utf8Decode(bytes, 0, bytes.length);
}
