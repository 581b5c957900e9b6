import {
  type BalancerContext,
  Chunk,
  type CloseEvent,
  type Cluster,
  type Connection,
  type ConnectionHandler,
  type HeaderMap,
  type Host,
  type PoolCallbacks,
  type PoolHandle,
  type RequestEncoder,
  type RequestHeaders,
} from "@tsproxy/sdk";

const NOTHING = new Uint8Array(0);

/**
 * A CONNECT or POST that this proxy terminates (`connect_config`): a TCP connection to the cluster instead of an HTTP exchange. The 200
 * is made here; after it, bytes pass both ways, and either side may close its half.
 *
 *   connecting ──connected──> open ──FIN of the upstream──> its half is over ──> closed
 *       └─ failed: reported by `onPoolFailure`, as a connection pool does
 */
export class TcpStream implements ConnectionHandler, RequestEncoder, PoolHandle {
  readonly #callbacks: PoolCallbacks;
  readonly #header: Uint8Array;
  #connection!: Connection;
  #host!: Host;
  /** Closed, failed or reset: no callback follows. */
  #over = false;
  #connected = false;
  /** The upstream has sent FIN. */
  #ended = false;
  wireReceived = 0;
  wireSent = 0;

  private constructor(callbacks: PoolCallbacks, header: Uint8Array) {
    this.#callbacks = callbacks;
    this.#header = header;
  }

  /** Connects, like `Cluster.newStream`. `header` is sent ahead of all bytes. Undefined: no connection was begun, and `onPoolFailure` has been called. */
  static open(
    cluster: Cluster,
    callbacks: PoolCallbacks,
    context: BalancerContext,
    header: Uint8Array,
  ): PoolHandle | undefined {
    const stream = new TcpStream(callbacks, header);
    const opened = cluster.connect(stream, context);
    if (typeof opened === "string") {
      stream.#over = true;
      callbacks.onPoolFailure({ reason: opened, host: undefined, transportFailure: "" });
      return undefined;
    }
    const { connection, host } = opened;
    if (connection === undefined) {
      stream.#over = true;
      callbacks.onPoolFailure({ reason: "overflow", host, transportFailure: "" });
      return undefined;
    }
    stream.#connection = connection;
    stream.#host = host;
    return stream;
  }

  cancel(): void {
    this.reset();
  }

  // ---- from the connection

  onConnected(): void {
    if (this.#over) return;
    this.#connected = true;
    this.#callbacks.onPoolReady(this, this.#host, this.#connection);
  }

  onData(chunk: Chunk): void {
    if (this.#over) return;
    this.wireReceived += chunk.length;
    this.#callbacks.decoder.onResponseBody(chunk, false);
  }

  onEof(): void {
    if (this.#over || !this.#connected) return;
    this.#ended = true;
    this.#callbacks.decoder.onResponseBody(new Chunk(NOTHING, 0, 0), true);
  }

  onClosed(event: CloseEvent): void {
    if (this.#over) return;
    this.#over = true;
    if (this.#connected) {
      if (!this.#ended) this.#callbacks.decoder.onUpstreamReset("connection_closed", event);
      return;
    }
    this.#callbacks.onPoolFailure({
      reason: event.timeout ? "connection_timeout" : "connection_failed",
      host: this.#host,
      transportFailure: event.transportFailure ?? "",
    });
  }

  onBlocked(): void {
    if (!this.#over) this.#callbacks.decoder.onUpstreamBlocked(true);
  }
  onDrained(): void {
    if (!this.#over) this.#callbacks.decoder.onUpstreamBlocked(false);
  }

  // ---- from the router

  encodeHeaders(_headers: RequestHeaders, endStream: boolean): void {
    const { decoder } = this.#callbacks;
    if (this.#header.length > 0) this.#connection.write(this.#header, 0, this.#header.length);
    decoder.responseHeaders.reset();
    decoder.responseHeaders.status = 200;
    decoder.onResponseHeaders(false);
    if (endStream) this.#end();
    else if (this.#connection.blocked) decoder.onUpstreamBlocked(true);
  }

  encodeBody(memory: Uint8Array, at: number, end: number, endStream: boolean): void {
    this.wireSent += end - at;
    if (end > at) this.#connection.write(memory, at, end);
    if (endStream) this.#end();
  }

  encodeTrailers(_trailers: HeaderMap): void {
    this.#end();
  }

  /** Sends FIN: the client's half is over, but the upstream may go on sending. */
  #end(): void {
    this.#connection.end();
  }

  reset(): void {
    if (this.#over) return;
    this.#over = true;
    this.#connection.close("abort");
  }

  pauseReading(paused: boolean): void {
    if (paused) this.#connection.pause();
    else this.#connection.resume();
  }
}
