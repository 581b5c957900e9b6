import type { Chunk } from "./bytes.ts";
import type { Cluster, Host } from "./cluster.ts";
import type { WireBytes } from "./codec.ts";
import {
  checkHeader,
  type HeaderMap,
  type RequestHeaders,
  type ResponseHeaders,
} from "./headers.ts";
import type { Address, DownstreamConnection } from "./network.ts";
import type { Route, VirtualCluster } from "./route.ts";
import type { TlsInfo } from "./transport.ts";

/** A local reply: the answer of a filter in the place of an upstream's. */
export interface Reply {
  readonly type: "reply";
  readonly status: number;
  /** A string is sent as UTF-8, bytes are sent as they are. */
  readonly body: string | Uint8Array;
  readonly headers: readonly (readonly [string, string])[];
  /** What the body is, whatever header rules say; absent: `text/plain`, where none is named. */
  readonly contentType?: string;
  /** True: neither the route's header rules nor `local_reply_config` edit it, and gRPC clients get it as it is. */
  readonly unedited?: boolean;
  /** True: a sandboxed filter answered a request's head before the body; an HTTP/1 connection then closes, as in Envoy. */
  readonly early?: boolean;
  /** Response flags, Envoy's short names (`RL`). */
  readonly flags: readonly string[];
  /** True: the flags are set after the reply is made, so the filters of `local_reply_config` do not see them. */
  readonly flagsLate?: boolean;
  /** %RESPONSE_CODE_DETAILS% */
  readonly details: string;
  /** The `grpc-status` that a gRPC client gets; absent: the one that belongs to the HTTP status. */
  readonly grpcStatus?: number;
}

/** All that a reply may say beside its status; absent: nothing of it. */
export interface ReplyOptions extends Partial<Omit<Reply, "type" | "status" | "headers">> {
  /** Pairs of name and value, or an object with values by name. */
  readonly headers?: Reply["headers"] | Readonly<Record<string, string>>;
}

/**
 * True for what may be the status of a final response: three digits, and no 1xx. Envoy passes the classes on that RFC 9110 §15 does
 * not know, 600 to 999.
 */
export function isFinalStatus(status: number): boolean {
  return Number.isInteger(status) && status >= 200 && status <= 999;
}

/**
 * Makes a local reply; without options it has no body, no headers and the details `local_reply`. Throws what is wrong here, where a stack
 * names the caller.
 */
export function reply(status: number, options: ReplyOptions = {}): Reply {
  if (!isFinalStatus(status))
    throw new RangeError(`reply(${JSON.stringify(status)}): write a whole number from 200 to 999`);
  const { headers = NO_HEADERS } = options;
  return {
    type: "reply",
    status,
    body: "",
    flags: [],
    details: "local_reply",
    ...options,
    headers: Symbol.iterator in headers ? headers : linesOf(headers),
  };
}

function linesOf(headers: Readonly<Record<string, string>>): [string, string][] {
  const lines = Object.entries(headers);
  for (const [name, value] of lines) checkHeader(name, value);
  return lines;
}

const NO_HEADERS: Reply["headers"] = [];

/**
 * Keeps the head back. `buffer`: the whole body is collected (more than `max` bytes are answered 413, or 500 in a response). When
 * it is complete, this filter's body hook sees it as one chunk, and head and body go on. `stream`: the head goes on with the
 * first chunk.
 */
export interface Hold {
  readonly type: "hold";
  readonly body: "buffer" | "stream";
  /** Bytes. 0: the stream's own limit, which is its listener's `per_connection_buffer_limit_bytes` but at most 8 MiB. */
  readonly max: number;
  /** A chunk that is the whole body does not count towards `max`, unless a filter before has held it or the stream's own limit is less. */
  readonly exceptLast: boolean;
  /** With `buffer`: head and body wait for the trailers too, if there are any, and their hook may edit the head. */
  readonly trailers: boolean;
}

/** Keeps the head back until its body is there. By default: all of it, up to 1 MiB. */
export function hold(
  options: {
    readonly body?: "buffer" | "stream";
    readonly max?: number;
    readonly exceptLast?: boolean;
    readonly trailers?: boolean;
  } = {},
): Hold {
  const { body = "buffer", max = 1024 * 1024, exceptLast = false, trailers = false } = options;
  if (body !== "buffer" && body !== "stream")
    throw new TypeError(`hold({ body: ${JSON.stringify(body)} }): write "buffer" or "stream"`);
  if (!(max >= 0)) throw new RangeError(`hold({ max: ${max} }): write a number of bytes`);
  return { type: "hold", body, max, exceptLast, trailers };
}

/** No further hook of this filter is called for this stream, except `onEnd`. */
export const done = Object.freeze({ type: "done" as const });
/** The type of `done`. */
export type Done = typeof done;

/**
 * Answer of a trailers hook: the message ends with these bytes instead of the trailers. Of a hook of a head that ends its
 * message: these bytes become its body.
 */
export interface LastChunk {
  readonly type: "last_chunk";
  readonly bytes: Uint8Array;
}

/** Ends a message with these bytes: `return lastChunk(utf8Encode("…"))` from a trailers hook, say. */
export function lastChunk(bytes: Uint8Array): LastChunk {
  return { type: "last_chunk", bytes };
}

/** What a hook for a head or a chunk may answer, by itself or by a promise; nothing: go on. */
export type Verdict = void | Reply | Hold | Done;
/**
 * What a hook answers. A promise pauses this direction of the stream at this filter until it settles; a rejection is an error
 * of the filter (500). Streams that end cancel their promises: a late verdict is dropped.
 */
export type HookResult = Verdict | PromiseLike<Verdict>;
/** What a hook answers that may see the end of a message: as any hook, or the message's last bytes. */
export type EndResult = Verdict | LastChunk | PromiseLike<Verdict | LastChunk>;

/**
 * A promise that usually settles within the event that it was made in, while the bytes lent by that event are still valid. When
 * it turns out that it will not, `call` runs; at once, if that is known already. (Sandboxes answer so.)
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
  /** Called before any hook with the filter that follows in this stream's chain, if the two have something to arrange. */
  meets?(next: HttpFilter): void;
  /** Exactly once, whatever became of the stream. */
  onEnd?(): void;
  /** Terminal filters: the client does not take what was sent for now (true), or takes it again. */
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
   * The parts of the stream that its filters read. Only these are brought into a sandbox; all others look empty there. Absent,
   * and for streams whose route has a config for this filter: all parts that the package's source names.
   */
  readonly reads?: readonly StreamPart[];
  /**
   * Its filters keep nothing of their own from one hook to the next: whatever a hook needs is in the stream. When the sandbox is
   * lost, because another stream's hook never returned, their streams go on with new filters; those of others fail.
   */
  readonly stateless?: boolean;
}

const places = new WeakMap<object, string>();

/** Called by the owner of the routes, before filters set a per-route config up: says where in the config it stands. */
export function placeRouteConfig(config: unknown, place: string): void {
  if (typeof config === "object" && config !== null) places.set(config, place);
}

/** Where in its chain's config a per-route config stands, which is part of the names of its cells; "": not known. */
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

/** How a connection of TCP ended: as it should, or reset by the proxy or by its peer. */
export type CloseType = "Normal" | "LocalReset" | "RemoteReset";

/** What is known of a stream, for access logs and filters. Times are epoch milliseconds, sizes body bytes. */
export interface StreamInfo {
  protocol: "HTTP/1.0" | "HTTP/1.1" | "HTTP/2";
  /** For the log of a connection, which has no request: the protocol of its requests. */
  connectionProtocol?: "HTTP/1.1" | "HTTP/2" | undefined;
  startTime: number;
  /** The same moment on the clock of `cx.now()`. */
  startedAt?: number;
  /** Milliseconds from the start to the request's last byte; -1: it has not come. */
  requestDuration: number;
  /** The same to the first byte of the upstream's response. */
  responseDuration: number;
  /** The same to the end; -1: it has not come. */
  duration: number;
  /** The same until now, or to the end if that has come. Absent: it is known at the end alone. */
  readonly elapsed?: number;
  bytesReceived: number;
  bytesSent: number;
  responseCode: number;
  responseCodeDetails: string;
  /** Response flags, short names (`UF`), in the order in which they were set. */
  readonly flags: string[];
  routeName: string;
  virtualHostName: string;
  clusterName: string;
  /** The virtual cluster that counts the request; undefined: none does. */
  virtualCluster?: VirtualCluster | undefined;
  upstreamHost: Address | undefined;
  upstreamLocalAddress: Address | undefined;
  /** Which of the host's addresses the connection leads to; absent: there is no connection yet. */
  upstreamRemoteAddress?: Address | undefined;
  upstreamTransportFailure: string;
  /** Protocol of the exchange with the upstream, once there is one. */
  upstreamProtocol?: string | undefined;
  attempts: number;
  /** Of a TCP connection: the hosts that were tried before `upstreamHost`; absent: none. */
  attemptedBefore?: readonly AttemptedHost[] | undefined;
  /** Moments of the upstream connection, which may lie before the request: milliseconds from the start; NaN: it has not come. */
  upstreamConnectBegin?: number;
  upstreamConnectEnd?: number;
  upstreamHandshakeEnd?: number;
  /** Milliseconds that the last attempt waited for a connection, or for the news that there will be none; absent or -1: there was no attempt. */
  upstreamPoolReady?: number;
  /** Moments of the exchange, and of the first byte and the last to the client; absent or -1: it has not come. */
  upstreamTxBegin?: number;
  upstreamTxEnd?: number;
  upstreamRxEnd?: number;
  downstreamTxBegin?: number;
  downstreamTxEnd?: number;
  /** More of the cluster, the host and the upstream connection. */
  cluster?: Pick<Cluster, "metadata" | "observabilityName"> | undefined;
  host?: Pick<Host, "hostname" | "metadata" | "locality"> | undefined;
  upstreamConnectionId?: number | undefined;
  /** How a connection of TCP ended; absent: `Normal`, as requests always say. Envoy's DetectedCloseType. */
  downstreamCloseType?: CloseType;
  upstreamCloseType?: CloseType;
  /** Why this proxy closed a TCP connection, in Envoy's words; absent: it did not close it, or the reason is not known. */
  downstreamLocalCloseReason?: string | undefined;
  upstreamLocalCloseReason?: string | undefined;
  upstreamTls?: TlsInfo | undefined;
  /** Bytes on the wire so far; on the upstream's side of all attempts together. */
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
  /** Names what has no request id: a connection of TCP. */
  streamId?: string | undefined;
  downstreamRemoteAddress: Address;
  downstreamDirectAddress: Address;
  downstreamLocalAddress: Address;
  /** Where the client's connection was accepted. Absent: `downstreamLocalAddress`. */
  downstreamDirectLocalAddress?: Address | undefined;
  /** True: the local address is where the client wanted to go (`original_dst`, PROXY protocol), not where this proxy listens. */
  downstreamLocalAddressRestored?: boolean;
}

/** A host that a TCP connection was tried with before another one took it. */
export interface AttemptedHost {
  readonly address: Address;
  readonly hostname: string;
}
/** Prints as "". */
const NO_ADDRESS: Address = { ip: "", port: 0, path: "" };

/** The info of a stream of which only these facts are known. */
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
  | "remoteAddress"
  | "localAddress"
  | "listener"
  | "serverName"
  | "ja3Fingerprint"
  | "ja4Fingerprint"
  | "transportProtocol"
  | "applicationProtocols"
  | "filterChainName"
  | "filterChainMetadata"
  | "metadata"
  | "filterState"
  | "secure"
  | "tls"
>;

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
  /** The route, chosen when it is first asked for, by the head as filters have left it so far; undefined: none matches. */
  readonly route: Route | undefined;
  /** Forgets the chosen route, so that it is chosen anew by the head as it is now. */
  clearRoute(): void;
  /** What `setupRoute` made of the most specific `typed_per_filter_config` for this filter; undefined: there is none. */
  readonly routeConfig: unknown;
  /** The same of every level that has one, the least specific first: route table, virtual host, route, weighted cluster. */
  readonly routeConfigs: readonly unknown[];
  /** False: no route at all has a config for this filter. Absent: one may. */
  readonly isOverridden?: boolean;
  /** Dynamic metadata: values that filters leave for each other and for logs, by namespace. */
  readonly metadata: Map<string, Record<string, unknown>>;
  /**
   * What filters keep for each other and for logs (`%FILTER_STATE(key)%`), by key, as long as the stream. A sandboxed filter sees
   * and sets what JSON can carry of it.
   */
  readonly filterState: Map<string, unknown>;
  /** False: `filterState` is empty, and need not be asked for, which would create it. Absent: not known. */
  readonly hasFilterState?: boolean;
  /**
   * Bytes of a request's body that may be kept: the listener's `per_connection_buffer_limit_bytes`, at most 8 MiB, or more if a
   * filter holds more. Absent: 1 MiB.
   */
  readonly bodyLimit?: number;
  /** Facts of the client's connection and its TLS handshake. Absent: not known (in tests). */
  readonly downstreamConnection?: DownstreamFacts | undefined;
  /** Values that live as long as the client's connection, for all its streams. */
  readonly connectionState: Map<string, unknown>;
  /** For terminal filters. */
  readonly responder: Responder;
  /** True: the request's scheme becomes that of the connection it is sent on. Absent: it stays. */
  readonly schemeMatchesUpstream?: boolean;
  /** State of the request's internal redirects; undefined before the first one. */
  internalRedirects?: InternalRedirects | undefined;
  /** A timer that is cancelled with the stream. */
  sleep(ms: number): Promise<void>;
}

/** The internal redirects that a stream has followed. */
export interface InternalRedirects {
  count: number;
  /** Names of the routes that redirects led from and to, joined by a line feed, for the predicate `previous_routes`. */
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
  /** The upstream failed in mid-response: breaks the response off so that the client can tell. */
  reset(details: string, flag: string): void;
  /** The request body is not taken for now (true), or again. */
  pauseRequest(paused: boolean): void;
  /**
   * An internal redirect: the request begins anew at the first filter, with its head as it is now and this body. The stream so
   * far is logged as one that `response` has answered. True: the caller's part has ended; false: not possible.
   */
  recreate?(response: ResponseHeaders, body: Uint8Array): boolean;
}
