import {
  type Address,
  type BalancerContext,
  type Chunk,
  type CloseEvent,
  type Cluster,
  ConfigError,
  type Connection,
  type ConnectionHandler,
  compileFormat,
  compileHeaderRules,
  type Format,
  type FormatSource,
  type HeaderMap,
  type HeaderRules,
  type Host,
  headerText,
  latin1Encode,
  type PoolCallbacks,
  type PoolFailure,
  type PoolHandle,
  type RequestEncoder,
  RequestHeaders,
  type ResponseDecoder,
  ResponseHeaders,
} from "@tsproxy/sdk";
import type { TunnelingConfig } from "./config.ts";

/** The part of Connection that the proxy uses for its upstream. */
export type UpstreamPipe = Pick<
  Connection,
  | "id"
  | "localAddress"
  | "remoteAddress"
  | "tls"
  | "blocked"
  | "write"
  | "end"
  | "close"
  | "pause"
  | "resume"
  | "relayWith"
>;

/** Receives the events of a tunnel, or of a plain upstream connection. */
export interface TunnelHandler extends ConnectionHandler {
  /** Reports the host, and the connection if one was made; called before `onConnected` and `onClosed`. */
  onHost(host: Host, connection: Connection | undefined): void;
  /** Called instead if no connection was attempted; may be called before `open` returns. */
  onRefused(reason: "no_host" | "overflow"): void;
}

/** `tunneling_config`: carries connections over CONNECT (RFC 9110 §9.3.6) or POST requests to an HTTP cluster. */
export class Tunneling {
  readonly #hostname: Format;
  readonly #method: "CONNECT" | "POST";
  readonly #path: string;
  readonly #rules: HeaderRules | undefined;
  readonly #keeps: Keeps;

  constructor(config: TunnelingConfig) {
    this.#hostname = compileHostname(config.hostname);
    this.#method = config.use_post ? "POST" : "CONNECT";
    if (config.post_path !== "" && !config.use_post) {
      throw new ConfigError("tunneling_config.post_path", "has no effect without use_post: true");
    }
    this.#path = headerText(config.post_path || "/", "tunneling_config.post_path");
    this.#rules = compileAdditions(config.headers_to_add);
    const { propagate_response_headers: headers, propagate_response_trailers: trailers } = config;
    this.#keeps = { headers, trailers };
  }

  open(
    cluster: Cluster,
    handler: TunnelHandler,
    source: FormatSource,
    context: BalancerContext,
  ): UpstreamPipe {
    const head = new RequestHeaders();
    head.method = this.#method;
    head.path = this.#path;
    head.authority = this.#hostname.format(source);
    this.#rules?.apply(head, source);
    const tunnel = new Tunnel(head, cluster, handler, this.#keeps, context.downstream);
    // A cluster that uses the downstream protocol gets HTTP/2.
    tunnel.open({ ...context, head, downstreamProtocol: "HTTP/2" });
    return tunnel;
  }
}

/** What of the answer is kept in the filter state of the client's connection. */
interface Keeps {
  readonly headers: boolean;
  readonly trailers: boolean;
}
const KEPT = {
  headers: "envoy.tcp_proxy.propagate_response_headers",
  trailers: "envoy.tcp_proxy.propagate_response_trailers",
} as const;

const NOWHERE: Address = { ip: "", port: 0 };

/**
 * An HTTP exchange that carries one client's connection.
 *
 *   waiting for a connection ──> asking ──2xx──> open ──end of the response──> half open ──end() ──> over
 *          │                       │               └── end() ──> half open (HTTP/2), over (HTTP/1.1)
 *          └── none ─────────────┴── another status, reset ──> over, reported as a connect failure
 */
class Tunnel implements PoolCallbacks, ResponseDecoder, UpstreamPipe {
  readonly decoder: ResponseDecoder = this;
  readonly responseHeaders = new ResponseHeaders();
  blocked = false;
  readonly #head: RequestHeaders;
  readonly #cluster: Cluster;
  readonly #handler: TunnelHandler;
  readonly #keeps: Keeps;
  readonly #downstream: BalancerContext["downstream"];
  #handle: PoolHandle | undefined = undefined;
  #encoder: RequestEncoder | undefined = undefined;
  #connection: Connection | undefined = undefined;
  #connected = false;
  #ended = false;
  #answered = false;
  #over = false;

  constructor(
    head: RequestHeaders,
    cluster: Cluster,
    handler: TunnelHandler,
    keeps: Keeps,
    downstream: BalancerContext["downstream"],
  ) {
    this.#head = head;
    this.#cluster = cluster;
    this.#handler = handler;
    this.#keeps = keeps;
    this.#downstream = downstream;
  }

  open(context: BalancerContext): void {
    const handle = this.#cluster.newStream(this, context);
    if (!this.#over && this.#encoder === undefined) this.#handle = handle;
  }

  // ---- called by the proxy

  get id(): number {
    return this.#connection?.id ?? 0;
  }
  get localAddress(): Address {
    return this.#connection?.localAddress ?? NOWHERE;
  }
  get remoteAddress(): Address {
    return this.#connection?.remoteAddress ?? NOWHERE;
  }
  get tls(): Connection["tls"] {
    return this.#connection?.tls;
  }

  write(memory: Uint8Array, at: number, end: number): void {
    this.#encoder?.encodeBody(memory, at, end, false);
  }
  /** As in Envoy, over HTTP/1.1 the connection ends with the client's half: the rest of the answer is lost. */
  end(): void {
    const encoder = this.#encoder;
    encoder?.encodeBody(NOTHING, 0, 0, true);
    this.#ended = true;
    if (!this.#answered && encoder?.protocol !== "HTTP/2") this.#connection?.close("flush");
  }
  /** Resets an incomplete exchange, the only way in HTTP to tell that the client has left. */
  close(): void {
    this.#giveUp();
  }
  pause(): void {
    this.#encoder?.pauseReading(true);
  }
  resume(): void {
    this.#encoder?.pauseReading(false);
  }

  // ---- called by the pool

  onPoolReady(encoder: RequestEncoder, host: Host, connection: Connection): void {
    this.#handle = undefined;
    this.#encoder = encoder;
    this.#connection = connection;
    this.#handler.onHost(host, connection);
    if (connection.tls !== undefined) this.#head.scheme = "https";
    encoder.encodeHeaders(this.#head, false, "");
  }

  onPoolFailure({ reason, host, transportFailure }: PoolFailure): void {
    this.#over = true;
    this.#handle = undefined;
    if (reason === "no_host" || reason === "overflow") {
      this.#handler.onRefused(reason);
      return;
    }
    if (host !== undefined) this.#handler.onHost(host, undefined);
    this.#tellClosed({ timeout: reason === "connection_timeout", transportFailure });
  }

  // ---- called by the codec

  onInformational(): void {}

  onResponseHeaders(endStream: boolean): void {
    if (this.#over) return;
    const { status } = this.responseHeaders;
    if (this.#keeps.headers) this.#keep("headers", this.responseHeaders, status);
    const accepted =
      this.#encoder?.protocol === "HTTP/2" ? status === 200 : status >= 200 && status < 300;
    if (!accepted) {
      this.#giveUp();
      this.#tellClosed({ transportFailure: `tunnel_response:${status}` });
      return;
    }
    this.#connected = true;
    this.#handler.onConnected?.();
    if (endStream) this.#onResponseEnd();
  }

  onResponseBody(chunk: Chunk, endStream: boolean): void {
    if (this.#over) return;
    if (chunk.end > chunk.at) this.#handler.onData(chunk);
    if (endStream) this.#onResponseEnd();
  }
  onResponseTrailers(trailers: HeaderMap): void {
    if (this.#keeps.trailers && !this.#over) this.#keep("trailers", trailers);
    this.#onResponseEnd();
  }
  /** As the JSON of Envoy's HeaderMap. */
  #keep(what: keyof Keeps, map: HeaderMap, status?: number): void {
    const headers = [...map.entries()].map(([key, value]) => ({ key, value }));
    if (status !== undefined) headers.unshift({ key: ":status", value: String(status) });
    this.#downstream?.setFilterState?.(KEPT[what], { headers });
  }
  #onResponseEnd(): void {
    if (this.#over) return;
    this.#answered = true;
    // Both halves are complete, so the exchange must not be reset any more.
    if (this.#ended) this.#over = true;
    this.#handler.onEof();
  }

  onDecodeError(): void {
    this.#cluster.traffic.cxProtocolError.inc();
    this.onUpstreamReset();
  }
  onUpstreamReset(): void {
    if (this.#over) return;
    this.#over = true;
    this.#encoder = undefined;
    this.#tellClosed({});
  }

  onUpstreamBlocked(blocked: boolean): void {
    if (this.#over) return;
    this.blocked = blocked;
    if (blocked) this.#handler.onBlocked?.();
    else this.#handler.onDrained?.();
  }

  #giveUp(): void {
    if (this.#over) return;
    this.#over = true;
    this.#handle?.cancel();
    this.#encoder?.reset();
    this.#encoder = undefined;
  }

  #tellClosed(why: { readonly timeout?: boolean; readonly transportFailure?: string }): void {
    const event: CloseEvent = {
      by: "remote",
      phase: this.#connected ? "connected" : "connecting",
      timeout: why.timeout ?? false,
      error: undefined,
      transportFailure: why.transportFailure ?? "",
    };
    this.#handler.onClosed(event);
  }
}

const NOTHING = latin1Encode("");

function compileHostname(text: string): Format {
  try {
    return compileFormat(text, { purpose: "header", missing: "-" });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new ConfigError("tunneling_config.hostname", message);
  }
}

function compileAdditions(options: TunnelingConfig["headers_to_add"]): HeaderRules | undefined {
  const rules = {
    request_headers_to_add: options,
    request_headers_to_remove: [],
    response_headers_to_add: [],
    response_headers_to_remove: [],
  };
  try {
    return compileHeaderRules(rules, "request", "tunneling_config");
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new ConfigError(error.path.replace(".request_headers", ".headers"), error.message);
  }
}
