import { type Chunk, latin1Encode, utf8Decode, utf8Encode } from "./bytes.ts";
import type { Clusters, Host, PoolCallbacks, PoolFailure, PoolHandle } from "./cluster.ts";
import type { DecodeError, RequestEncoder, ResetReason, ResponseDecoder } from "./codec.ts";
import type { Timer } from "./extension.ts";
import { FetchStats } from "./fetch-stats.ts";
import { httpStatusOfGrpc, isGrpcRequest } from "./grpc-status.ts";
import { type HeaderMap, headerName, RequestHeaders, ResponseHeaders } from "./headers.ts";
import type { Stats } from "./stats.ts";
import { headerText } from "./wire-text.ts";

/** Bytes of a string are its UTF-8. An iterable is sent as it comes, and asked for more as the upstream takes it. */
export type FetchBody = string | Uint8Array | AsyncIterable<string | Uint8Array>;

/** What is asked, and how long and how much of an answer is waited for. */
export interface FetchInit {
  /** Default: GET. */
  readonly method?: string;
  readonly headers?:
    | Readonly<Record<string, string>>
    | readonly (readonly [name: string, value: string])[];
  readonly body?: FetchBody;
  /** From the call to the end of the response. Default: 15,000. */
  readonly timeoutMs?: number;
  /** Limit of the response's body for `bytes`, `text` and `json`. Default: 1 MiB. */
  readonly maxBytes?: number;
  /** Ends the exchange when it is aborted. */
  readonly signal?: FetchSignal;
  /** Called once the cluster has been given the request, which may still fail. What the caller sends later comes behind it. */
  readonly onBegun?: () => void;
}

/** As much of an AbortSignal as a fetch needs. */
export interface FetchSignal {
  readonly aborted: boolean;
  addEventListener(type: "abort", listener: () => void): void;
  removeEventListener(type: "abort", listener: () => void): void;
}

/** Why there is no answer, or not all of it. */
export class FetchError extends Error {
  readonly reason:
    | "no_cluster"
    | "timeout"
    | "too_large"
    | "cancelled"
    | "malformed"
    | PoolFailure["reason"]
    | ResetReason;

  constructor(reason: FetchError["reason"], message: string) {
    super(message);
    this.name = "FetchError";
    this.reason = reason;
  }
}

/** An answer of any status, once its head is there. Its body is read once. */
export interface FetchResponse {
  readonly status: number;
  /** 200-299 */
  readonly ok: boolean;
  readonly headers: ResponseHeaders;
  /** The body as it arrives; the upstream has to wait while nobody reads. */
  readonly body: AsyncIterable<Uint8Array>;
  /** What came behind the body, once that is read to its end. Undefined: it is not yet, or there were none. */
  readonly trailers: HeaderMap | undefined;
  bytes(): Promise<Uint8Array>;
  text(): Promise<string>;
  json(): Promise<unknown>;
  /** The rest is not wanted. */
  cancel(): void;
}

/** What a fetch needs of a context. */
export interface FetchContext {
  readonly clusters: Clusters;
  timer(onFired: () => void): Timer;
}

const GRPC_STATUS = headerName("grpc-status");
const TIMEOUT_MS = 15_000;
const MAX_BYTES = 1024 * 1024;
/** Unread bytes past which the upstream is asked to wait. */
const BUFFER_BYTES = 64 * 1024;

/**
 * Returns the same answer, but a FetchError gets the stack of the code that awaits it. The error is made where a message from
 * core is read, so its own stack would name no line of the filter.
 */
export async function traced<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof FetchError) captureStack(error, traced);
    throw error;
  }
}

/** V8's own. */
const { captureStackTrace: captureStack } = Error as unknown as {
  captureStackTrace(error: Error, below: unknown): void;
};

/** `target`: `cluster:/path?query`. Rejects with a FetchError; an answer of any status is an answer. */
export function fetchFrom(
  cx: FetchContext,
  target: string,
  init: FetchInit = {},
): Promise<FetchResponse> {
  const at = target.indexOf(":");
  const name = at < 0 ? target : target.slice(0, at);
  const rest = at < 0 ? "" : target.slice(at + 1);
  const cluster = cx.clusters.get(name);
  if (cluster === undefined)
    return Promise.reject(new FetchError("no_cluster", noCluster(name, target)));
  return new Promise((resolve, reject) => {
    const headers = requestHead(name, rest.startsWith("/") ? rest : `/${rest}`, init);
    new Exchange(cx, cluster.stats, headers, init, { resolve, reject }).begin((callbacks) =>
      cluster.newStream(callbacks, {
        head: headers,
        ...(isGrpcRequest(headers) && { downstreamProtocol: "HTTP/2" }),
      }),
    );
    init.onBegun?.();
  });
}

function requestHead(cluster: string, path: string, init: FetchInit): RequestHeaders {
  const headers = new RequestHeaders();
  headers.method = init.method ?? "GET";
  headers.path = path;
  const given = init.headers ?? [];
  const lines = Array.isArray(given) ? given : Object.entries(given);
  for (const [name, value] of lines as readonly (readonly [string, string])[])
    headers.append(name, value);
  if (!headers.has("host")) headers.set("host", headerText(cluster, "cluster"));
  const { body } = init;
  headers.remove("content-length");
  headers.remove("transfer-encoding");
  if (typeof body === "string") headers.set("content-length", String(utf8Encode(body).length));
  else if (body instanceof Uint8Array) headers.set("content-length", String(body.length));
  return headers;
}

interface Settle {
  resolve(response: FetchResponse): void;
  reject(error: FetchError): void;
}

/** One exchange: waits for a connection, sends, and hands the answer on as it comes. */
class Exchange implements PoolCallbacks, ResponseDecoder {
  readonly responseHeaders = new ResponseHeaders();
  readonly decoder: ResponseDecoder = this;
  readonly #head: RequestHeaders;
  readonly #init: FetchInit;
  readonly #settle: Settle;
  readonly #timer: Timer;
  readonly #stats: FetchStats;
  #handle: PoolHandle | undefined = undefined;
  #encoder: RequestEncoder | undefined = undefined;
  #host: Host | undefined = undefined;
  #response: FetchedResponse | undefined = undefined;
  /** The whole request has been sent. */
  #sent = false;
  #over = false;
  #blocked: Promise<void> | undefined = undefined;
  #unblock: () => void = () => {};
  readonly #onAbort = (): void => this.#fail("cancelled", "cancelled by its signal");

  constructor(
    cx: FetchContext,
    stats: Stats,
    head: RequestHeaders,
    init: FetchInit,
    settle: Settle,
  ) {
    this.#stats = new FetchStats(stats);
    this.#head = head;
    this.#init = init;
    this.#settle = settle;
    const ms = init.timeoutMs ?? TIMEOUT_MS;
    this.#timer = cx.timer(() => {
      this.#host?.onTimeout(this.#response !== undefined);
      this.#fail("timeout", `no answer within ${ms} ms`);
    });
    this.#timer.arm(ms);
  }

  begin(newStream: (callbacks: PoolCallbacks) => PoolHandle | undefined): void {
    const { signal } = this.#init;
    if (signal?.aborted === true) {
      this.#onAbort();
      return;
    }
    signal?.addEventListener("abort", this.#onAbort);
    const handle = newStream(this);
    if (!this.#over && this.#encoder === undefined) this.#handle = handle;
  }

  // ---- from the pool

  onPoolReady(encoder: RequestEncoder, host: Host): void {
    this.#handle = undefined;
    this.#encoder = encoder;
    this.#host = host;
    const { body } = this.#init;
    this.#sent = body === undefined;
    encoder.encodeHeaders(this.#head, body === undefined, "");
    if (body === undefined) return;
    if (typeof body === "string") this.#send(utf8Encode(body), true);
    else if (body instanceof Uint8Array) this.#send(body, true);
    else void this.#sendAll(body);
  }

  onPoolFailure({ reason, transportFailure }: PoolFailure): void {
    this.#handle = undefined;
    this.#fail(reason, transportFailure === "" ? reason : `${reason}: ${transportFailure}`);
  }

  #send(bytes: Uint8Array, endStream: boolean): void {
    this.#sent = endStream;
    this.#encoder?.encodeBody(bytes, 0, bytes.length, endStream);
  }

  async #sendAll(body: AsyncIterable<string | Uint8Array>): Promise<void> {
    try {
      for await (const part of body) {
        if (this.#over) return;
        this.#send(typeof part === "string" ? utf8Encode(part) : part, false);
        await this.#blocked;
      }
      if (!this.#over) this.#send(latin1Encode(""), true);
    } catch (error) {
      this.#fail("cancelled", `its body failed: ${String(error)}`);
    }
  }

  // ---- from the codec

  onInformational(): void {}

  onResponseHeaders(endStream: boolean): void {
    this.responseHeaders.detach();
    // How a gRPC call went is in its trailers, unless its head says it.
    if (endStream || !this.#isCall) this.#tellHost(this.responseHeaders);
    this.#stats.onStatus(this.responseHeaders.status);
    const response = new FetchedResponse(this.responseHeaders, this.#init.maxBytes ?? MAX_BYTES, {
      pause: (paused) => this.#encoder?.pauseReading(paused),
      cancel: () => this.#fail("cancelled", "cancelled by its reader"),
    });
    this.#response = response;
    if (endStream) this.#end();
    this.#settle.resolve(response);
  }

  onResponseBody(chunk: Chunk, endStream: boolean): void {
    this.#response?.push(chunk.copy());
    if (!endStream) return;
    if (this.#isCall) this.#tellHost(this.responseHeaders);
    this.#end();
  }

  onResponseTrailers(trailers: HeaderMap): void {
    trailers.detach();
    if (this.#isCall) this.#tellHost(trailers);
    this.#end(trailers);
  }

  /** The answer to a gRPC request, and gRPC itself. */
  get #isCall(): boolean {
    return this.responseHeaders.status === 200 && isGrpcRequest(this.#head);
  }

  #tellHost(ended: HeaderMap): void {
    const { status } = this.responseHeaders;
    const text = this.#isCall ? ended.get(GRPC_STATUS) : undefined;
    this.#host?.onResponse(text === undefined ? status : httpStatusOfGrpc(Number(text)));
  }

  onDecodeError(error: DecodeError): void {
    this.#encoder = undefined;
    this.#fail("malformed", `the upstream's answer is malformed: ${error.details}`);
  }

  onUpstreamReset(reason: ResetReason): void {
    this.#encoder = undefined;
    this.#host?.onReset();
    this.#fail(reason, `the exchange was cut: ${reason}`);
  }

  onUpstreamBlocked(blocked: boolean): void {
    if (!blocked) {
      this.#unblock();
      this.#blocked = undefined;
      return;
    }
    this.#blocked ??= new Promise((resolve) => {
      this.#unblock = resolve;
    });
  }

  #end(trailers?: HeaderMap): void {
    if (this.#over) return;
    const encoder = this.#encoder;
    const sent = this.#sent;
    this.#finish();
    // The server has said all it will; what is not sent yet is of no use to it, and HTTP/2 would wait for its end.
    if (!sent) encoder?.reset();
    this.#stats.onEnd();
    this.#response?.end(undefined, trailers);
  }

  #fail(reason: FetchError["reason"], message: string): void {
    if (this.#over) return;
    const encoder = this.#encoder;
    this.#finish();
    this.#handle?.cancel();
    encoder?.reset();
    if (this.#response === undefined && reason !== "cancelled")
      this.#stats.onFailure(reason === "timeout");
    const error = new FetchError(reason, message);
    if (this.#response === undefined) this.#settle.reject(error);
    else this.#response.end(error);
  }

  #finish(): void {
    this.#over = true;
    this.#encoder = undefined;
    this.#timer.cancel();
    // One signal may serve many fetches, and would keep those that are over.
    this.#init.signal?.removeEventListener("abort", this.#onAbort);
    this.#unblock();
  }
}

/** The side of a FetchedResponse that carries out the fetch. */
export interface FetchSource {
  /** True: send no more bytes for now, since enough are unread. False: go on. */
  pause(paused: boolean): void;
  cancel(): void;
}

/** The reader's side of an answer; its source calls `push` with bytes, and `end` once. */
export class FetchedResponse implements FetchResponse {
  readonly status: number;
  readonly headers: ResponseHeaders;
  readonly #maxBytes: number;
  readonly #source: FetchSource;
  readonly #chunks: Uint8Array[] = [];
  #size = 0;
  #paused = false;
  #ended = false;
  #error: FetchError | undefined = undefined;
  #trailers: HeaderMap | undefined = undefined;
  #wake: () => void = () => {};

  constructor(headers: ResponseHeaders, maxBytes: number, source: FetchSource) {
    this.status = headers.status;
    this.headers = headers;
    this.#maxBytes = maxBytes;
    this.#source = source;
  }

  get ok(): boolean {
    return this.status >= 200 && this.status < 300;
  }

  push(bytes: Uint8Array): void {
    if (bytes.length > 0) this.#chunks.push(bytes);
    this.#size += bytes.length;
    if (this.#size > BUFFER_BYTES && !this.#paused) {
      this.#paused = true;
      this.#source.pause(true);
    }
    this.#wake();
  }

  end(error: FetchError | undefined, trailers?: HeaderMap): void {
    this.#ended = true;
    this.#error = error;
    this.#trailers = trailers;
    this.#wake();
  }

  get trailers(): HeaderMap | undefined {
    return this.#chunks.length === 0 ? this.#trailers : undefined;
  }

  get body(): AsyncIterable<Uint8Array> {
    return { [Symbol.asyncIterator]: () => this.#read() };
  }

  async *#read(): AsyncGenerator<Uint8Array> {
    try {
      for (;;) {
        const chunk = this.#chunks.shift();
        if (chunk !== undefined) {
          this.#size -= chunk.length;
          if (this.#paused && this.#size <= BUFFER_BYTES / 2) {
            this.#paused = false;
            this.#source.pause(false);
          }
          yield chunk;
        } else if (this.#error !== undefined) throw this.#error;
        else if (this.#ended) return;
        else
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
      }
    } finally {
      // A reader that stops in the middle does not want the rest.
      if (!this.#ended) this.cancel();
    }
  }

  async bytes(): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    let size = 0;
    for await (const part of this.body) {
      parts.push(part);
      size += part.length;
      if (size > this.#maxBytes)
        throw new FetchError("too_large", `its body is longer than ${this.#maxBytes} bytes`);
    }
    const whole = new Uint8Array(size);
    let at = 0;
    for (const part of parts) {
      whole.set(part, at);
      at += part.length;
    }
    return whole;
  }
  async text(): Promise<string> {
    const bytes = await this.bytes();
    return utf8Decode(bytes, 0, bytes.length);
  }
  async json(): Promise<unknown> {
    return JSON.parse(await this.text());
  }
  cancel(): void {
    if (!this.#ended) this.#source.cancel();
  }
}

/** Why there is nobody to ask for `target`, which begins with the name of a cluster. */
function noCluster(name: string, target: string): string {
  if (/^https?$|[/?]|^$/.test(name))
    return `"${target}" is no target; write "cluster:/path", with the name of a cluster of the config`;
  return `no cluster "${name}" in the config; write one of that name under static_resources.clusters`;
}
