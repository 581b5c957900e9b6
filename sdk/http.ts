import type { Chunk } from "./bytes.ts";
import type { Cluster, Host } from "./cluster.ts";
import type { WireBytes } from "./codec.ts";
import type { HeaderMap, RequestHeaders, ResponseHeaders } from "./headers.ts";
import type { Address, DownstreamConnection } from "./network.ts";
import type { Route, VirtualCluster } from "./route.ts";
import type { TlsInfo } from "./transport.ts";

/** A local reply: the answer of a filter in the place of an upstream's. */
export interface Reply {
  readonly type: "reply";
  readonly status: number;
  readonly body: string;
  readonly headers: readonly (readonly [string, string])[];
  /** The route's header rules leave it alone. */
  readonly unedited?: boolean;
  /** Response flags, Envoy's short names (`RL`). */
  readonly flags: readonly string[];
  /** %RESPONSE_CODE_DETAILS% */
  readonly details: string;
  /** What a gRPC client gets as `grpc-status`; absent: what the HTTP status stands for. */
  readonly grpcStatus?: number;
}

export function reply(
  status: number,
  options: Partial<Omit<Reply, "type" | "status">> = {},
): Reply {
  return {
    type: "reply",
    status,
    body: "",
    headers: [],
    flags: [],
    details: "local_reply",
    ...options,
  };
}

/**
 * Keeps the head back. `buffer`: the whole body is collected (at most `max` bytes, else 413 or 500) and passed on with the head
 * when it is complete, after this filter's body hook has seen it as one chunk. `stream`: the head goes on with the first chunk.
 */
export interface Hold {
  readonly type: "hold";
  readonly body: "buffer" | "stream";
  readonly max: number;
  /** The chunk that ends the body may be of any size. */
  readonly exceptLast: boolean;
  /** With `buffer`: head and body wait for the trailers too, if there are any, and their hook may edit the head. */
  readonly trailers: boolean;
}

export function hold(
  options: {
    readonly body?: "buffer" | "stream";
    readonly max?: number;
    readonly exceptLast?: boolean;
    readonly trailers?: boolean;
  } = {},
): Hold {
  const { body = "buffer", max = 1024 * 1024, exceptLast = false, trailers = false } = options;
  return { type: "hold", body, max, exceptLast, trailers };
}

/** This filter is not called again for this stream (but for `onEnd`). */
export const done = Object.freeze({ type: "done" as const });
export type Done = typeof done;

/** Of a trailers hook: the message ends with these bytes in the place of the trailers. Of the hook of a head that ends its message: they are its body. */
export interface LastChunk {
  readonly type: "last_chunk";
  readonly bytes: Uint8Array;
}

export function lastChunk(bytes: Uint8Array): LastChunk {
  return { type: "last_chunk", bytes };
}

export type Verdict = void | Reply | Hold | Done;
/**
 * What a hook answers. A promise pauses this direction of the stream at this filter until it settles; a rejection is an error
 * of the filter (500). Streams that end cancel their promises: a late verdict is dropped.
 */
export type HookResult = Verdict | PromiseLike<Verdict>;
export type EndResult = Verdict | LastChunk | PromiseLike<Verdict | LastChunk>;

/**
 * A promise that mostly settles before the event that it was made in ends, while the bytes of that event still stand. `call` is
 * called once it is known that it will not; at once, if it is known already.
 */
export interface PromptAnswer extends PromiseLike<Verdict | LastChunk> {
  onLate(call: () => void): void;
}

/** One filter's part in one stream. Requests pass filters in the order of the config, responses in reverse. */
export interface HttpFilter {
  onRequestHeaders?(headers: RequestHeaders, endStream: boolean): EndResult;
  onRequestBody?(chunk: Chunk, endStream: boolean): HookResult;
  onRequestTrailers?(trailers: HeaderMap): EndResult;
  onResponseHeaders?(headers: ResponseHeaders, endStream: boolean): EndResult;
  onResponseBody?(chunk: Chunk, endStream: boolean): HookResult;
  onResponseTrailers?(trailers: HeaderMap): EndResult;
  /** The filter behind it in the chain of this stream, before any hook: neighbours may have something to settle between them. */
  meets?(next: HttpFilter): void;
  /** Exactly once, whatever became of the stream. */
  onEnd?(): void;
  /** Terminal filters: the client does not take what was sent (true), or takes it again. */
  onResponseBlocked?(blocked: boolean): void;
  /** Terminal filters: the stream is gone (client left, timeout, local reply): stop working for it. */
  onReset?(): void;
}

/** What an http package's setup returns: called once per stream. */
export interface HttpFilterFactory {
  (stream: HttpStream): HttpFilter;
  /** Made by `defineHttpFilter` from `setupRoute`: what `stream.routeConfig` and `routeConfigs` give. */
  readonly routes?: RouteSetups;
  /**
   * What of their stream its filters read: nothing else is brought into a sandbox for them, and what they find there is as good as
   * empty. Streams of routes with a config of their own get all parts that the package's source names; absent: so do all.
   */
  readonly reads?: readonly StreamPart[];
}

const places = new WeakMap<object, string>();

/** Whoever owns routes tells where each per-route config stands, before filters set it up. */
export function placeRouteConfig(config: unknown, place: string): void {
  if (typeof config === "object" && config !== null) places.set(config, place);
}

/** Where in its chain's config a per-route config stands, for names of cells; "" if nobody has said. */
export function placeOfRouteConfig(config: object): string {
  return places.get(config) ?? "";
}

/** Per-route configs of one use of a filter, each set up once. */
export class RouteSetups {
  readonly #setup: (config: unknown) => unknown;
  readonly #made = new WeakMap<object, unknown>();

  constructor(setup: (config: unknown) => unknown) {
    this.#setup = setup;
  }

  /** May throw: the config is refused. */
  one(config: unknown): unknown {
    if (typeof config !== "object" || config === null) return config;
    let made = this.#made.get(config);
    if (made === undefined) {
      made = this.#setup(config);
      this.#made.set(config, made);
    }
    return made;
  }

  all(configs: readonly unknown[]): readonly unknown[] {
    let made = this.#made.get(configs);
    if (made === undefined) {
      made = configs.map((config) => this.one(config));
      this.#made.set(configs, made);
    }
    return made as readonly unknown[];
  }
}

/** What is known of a stream, for access logs and filters. Times are epoch milliseconds, sizes body bytes. */
export interface StreamInfo {
  protocol: "HTTP/1.0" | "HTTP/1.1" | "HTTP/2";
  /** Of a connection that is logged by itself: what its requests spoke. */
  connectionProtocol?: "HTTP/1.1" | "HTTP/2" | undefined;
  startTime: number;
  /** The same moment on the clock of `cx.now()`. */
  startedAt?: number;
  /** Milliseconds from the start, -1 if it has not happened: last request byte in, first upstream byte in, last byte out. */
  requestDuration: number;
  responseDuration: number;
  duration: number;
  bytesReceived: number;
  bytesSent: number;
  responseCode: number;
  responseCodeDetails: string;
  /** Short flags in the order set. */
  readonly flags: string[];
  routeName: string;
  virtualHostName: string;
  clusterName: string;
  /** What the route's virtual host counts the request as; undefined: it counts nothing by itself. */
  virtualCluster?: VirtualCluster | undefined;
  upstreamHost: Address | undefined;
  upstreamLocalAddress: Address | undefined;
  /** The address of `upstreamHost` that the connection is to, which may have several; absent while there is no connection. */
  upstreamRemoteAddress?: Address | undefined;
  upstreamTransportFailure: string;
  /** Protocol of the exchange with the upstream, once there is one. */
  upstreamProtocol?: string | undefined;
  attempts: number;
  /** A TCP connection's hosts of attempts before that at `upstreamHost`; absent: none. */
  attemptedBefore?: readonly AttemptedHost[] | undefined;
  /** More moments, as these: of the exchange with the upstream, and the first byte to the client. Absent: as -1. */
  /** Of the connection, which may be older than the request; NaN: it has not come. */
  upstreamConnectBegin?: number;
  upstreamConnectEnd?: number;
  upstreamHandshakeEnd?: number;
  upstreamTxBegin?: number;
  upstreamTxEnd?: number;
  upstreamRxEnd?: number;
  downstreamTxBegin?: number;
  /** Behind `clusterName`, `upstreamHost` and the upstream connection. */
  cluster?: Pick<Cluster, "metadata" | "observabilityName"> | undefined;
  host?: Pick<Host, "hostname" | "metadata"> | undefined;
  upstreamConnectionId?: number | undefined;
  upstreamTls?: TlsInfo | undefined;
  /** What the exchange takes on the wire on either side, all attempts at the upstream's together. They go on counting. */
  downstreamWire?: WireBytes | undefined;
  upstreamWire?: WireBytes | undefined;
  /** Why the client's TLS handshake failed. */
  downstreamTransportFailure?: string;
  /** %CONNECTION_TERMINATION_DETAILS% */
  connectionTerminationDetails?: string;
  /** A health check that this proxy answers or passes on. */
  healthCheck?: boolean;
  /** The request is traced because its sender asked for that. */
  traceForced?: boolean;
  connectionId: number;
  downstreamRemoteAddress: Address;
  downstreamDirectAddress: Address;
  downstreamLocalAddress: Address;
  /** It is where the client wanted to go, not where this proxy listens. */
  downstreamLocalAddressRestored?: boolean;
}

export interface AttemptedHost {
  readonly address: Address;
  readonly hostname: string;
}
/** Printed as nothing. */
const NO_ADDRESS: Address = { ip: "", port: 0, path: "" };

/** What is known of a stream of which nothing is known yet but these facts. */
export function newStreamInfo(facts: Partial<StreamInfo> = {}): StreamInfo {
  return {
    // Printed only where there is a request.
    protocol: "HTTP/1.1",
    startTime: 0,
    requestDuration: -1,
    responseDuration: -1,
    duration: -1,
    bytesReceived: 0,
    bytesSent: 0,
    responseCode: 0,
    responseCodeDetails: "",
    flags: [],
    routeName: "",
    virtualHostName: "",
    clusterName: "",
    upstreamHost: undefined,
    upstreamLocalAddress: undefined,
    upstreamTransportFailure: "",
    attempts: 0,
    connectionId: 0,
    downstreamRemoteAddress: NO_ADDRESS,
    downstreamDirectAddress: NO_ADDRESS,
    downstreamLocalAddress: NO_ADDRESS,
    ...facts,
  };
}

/** What is known of the connection that a stream came on. */
export type DownstreamFacts = Pick<
  DownstreamConnection,
  | "listener"
  | "serverName"
  | "ja3Fingerprint"
  | "ja4Fingerprint"
  | "transportProtocol"
  | "applicationProtocols"
  | "filterChainName"
  | "filterChainMetadata"
  | "metadata"
  | "secure"
  | "tls"
> &
  // Absent in a sandbox: there `StreamInfo` tells them.
  Partial<Pick<DownstreamConnection, "remoteAddress" | "localAddress">>;

/** Parts of a stream that cost something to bring into a sandbox. */
export type StreamPart =
  | "info"
  | "route"
  | "metadata"
  | "filterState"
  | "connectionState"
  | "downstreamConnection";

/** A stream as its filters see it. */
export interface HttpStream {
  readonly id: number;
  readonly info: StreamInfo;
  readonly request: RequestHeaders;
  /** The response head, once there is one. */
  readonly response: ResponseHeaders | undefined;
  /** The chosen route (chosen when first asked, after the filters before may have edited the head); undefined: none matches. */
  readonly route: Route | undefined;
  /** Forget the choice: the head was edited. */
  clearRoute(): void;
  /** `typed_per_filter_config` for this filter, the most specific level; undefined: none. What `setupRoute` made of it. */
  readonly routeConfig: unknown;
  /** The same of every level that has one: route table, virtual host, route, weighted cluster. For filters that merge them. */
  readonly routeConfigs: readonly unknown[];
  /** False: no route has a config for this filter, whatever route the stream takes. Absent: one may. */
  readonly isOverridden?: boolean;
  /** Values that filters leave for each other and for logs, by namespace. */
  readonly metadata: Map<string, Record<string, unknown>>;
  /**
   * What filters keep for each other and for logs (`%FILTER_STATE(key)%`), by key, as long as the stream. A sandboxed filter sees and
   * sets what JSON can carry of it.
   */
  readonly filterState: Map<string, unknown>;
  /** False: `filterState` is empty. (Asking for the map makes it.) Absent: look. */
  readonly hasFilterState?: boolean;
  /** What is known of the client's connection, its TLS handshake among it. Absent: nothing is (tests). */
  readonly downstreamConnection?: DownstreamFacts | undefined;
  /** Values that live as long as the client's connection, for all its streams. */
  readonly connectionState: Map<string, unknown>;
  /** For terminal filters. */
  readonly responder: Responder;
  /** What internal redirects have left behind; undefined before the first. It stays with the request through all of them. */
  internalRedirects?: InternalRedirects | undefined;
  /** A timer that is cancelled with the stream. */
  sleep(ms: number): Promise<void>;
}

export interface InternalRedirects {
  count: number;
  /** Routes that were redirected to, by `from route` and `to route`. */
  readonly taken: Set<string>;
}

/** How a terminal filter answers. Each call passes the filters in reverse before it reaches the codec. */
export interface Responder {
  sendInformational(headers: ResponseHeaders): void;
  /** `headers` belong to the stream from here on. */
  sendHeaders(headers: ResponseHeaders, endStream: boolean): void;
  sendBody(memory: Uint8Array, at: number, end: number, endStream: boolean): void;
  sendTrailers(trailers: HeaderMap): void;
  /** `editedBy`: the route whose response header rules this reply takes. */
  sendReply(reply: Reply, editedBy?: Route): void;
  /** The upstream failed in mid-response: the client must see that it is cut. */
  reset(details: string, flag: string): void;
  /** The request body is not taken for now (true), or again. */
  pauseRequest(paused: boolean): void;
  /**
   * An internal redirect: the request, with its head as it is now and this body, begins anew at the first filter. What was so
   * far ends as a stream of its own, which `response` has answered; the caller is at its end when this returns true.
   */
  recreate?(response: ResponseHeaders, body: Uint8Array): boolean;
}
