// Hot path: every downstream read.
import type {
  Chunk,
  CloseEvent,
  CodecFactory,
  DownstreamConnection,
  Generation,
  NetworkFilter,
  RequestDecoder,
  ResponseEncoder,
  ServerCodec,
  ServerEvents,
  Timer,
} from "@tsproxy/sdk";
import type { ConnectionManager } from "./manager.ts";
import { Peer } from "./request-head.ts";
import type { Runtime } from "./runtime.ts";
import type { CodeCounters } from "./stats.ts";
import type { HcmStream } from "./stream.ts";

/** One downstream connection: its codec, its streams, and when it closes. */
export class HcmConnection implements NetworkFilter, ServerEvents {
  readonly connection: DownstreamConnection;
  peer: Peer;
  #state: Map<string, unknown> | undefined = undefined;
  readonly #manager: ConnectionManager;
  /** The config that new streams take; looked at for each. */
  #runtime: Runtime;
  readonly #codec: ServerCodec;
  readonly #codecGeneration: Generation<CodecFactory>;
  readonly #idle: Timer;
  #durationTimer: Timer | undefined = undefined;
  #codes: CodeCounters;
  /** An event of this connection is being handled. */
  #inTurn = false;
  #active = 0;
  #requests = 0;
  /** Streams whose heads came in this turn. */
  readonly #fresh: HcmStream[] = [];
  #draining = false;
  /** Whoever asked to drain also wants the connection closed when it has been idle for the drain timeout. */
  #leaving = false;
  #closing = false;
  /** The client has sent FIN. */
  #clientLeft = false;
  #lingers = false;
  #bytesSent = 0;

  constructor(manager: ConnectionManager, connection: DownstreamConnection) {
    this.#manager = manager;
    this.connection = connection;
    this.#runtime = manager.runtime;
    const runtime = this.#runtime;
    this.peer = new Peer(connection, runtime.requestHead.addresses);
    this.#codes = runtime.listenerCodes(connection.listener.statPrefix);
    this.#codecGeneration = runtime.codec.current;
    this.#codecGeneration.acquire();
    this.#codec = this.#codecGeneration.value.createServer(connection, this, runtime.codecOptions);
    this.#idle = manager.cx.timer(() => this.#onIdleTimeout());
  }

  /** What filters keep for the connection. */
  get state(): Map<string, unknown> {
    this.#state ??= new Map();
    return this.#state;
  }

  onConnect(): void {
    const { stats } = this.#runtime;
    stats.cxTotal.inc();
    stats.cxHttp1Total.inc();
    stats.cxActive.inc();
    stats.cxHttp1Active.inc();
    if (this.peer.tls) {
      stats.cxSslTotal.inc();
      stats.cxSslActive.inc();
    }
    this.#armIdle();
    const longest = this.#runtime.config.common_http_protocol_options.max_connection_duration;
    if (longest > 0) {
      this.#durationTimer = this.#manager.cx.timer(() => this.#onMaxDuration());
      this.#durationTimer.arm(longest);
    }
  }

  onData(chunk: Chunk, endStream: boolean): void {
    this.#manager.reuseStreams();
    if (chunk.end > chunk.at) {
      this.#runtime.stats.cxRxBytes.add(chunk.end - chunk.at);
      this.#inTurn = true;
      this.#codec.onData(chunk);
      this.#endTurn();
    }
    if (!endStream) return;
    this.#clientLeft = true;
    this.#codec.onEof();
  }

  onAgain(): void {
    this.#manager.reuseStreams();
    this.#inTurn = true;
    this.#codec.onAgain();
    this.#endTurn();
  }

  onBlocked(): void {
    this.#codec.onBlocked(true);
  }

  onDrained(): void {
    this.#inTurn = true;
    this.#codec.onBlocked(false);
    this.#endTurn();
  }

  /** The listener drains: the next response is the last. Idle connections are the listener's to close. */
  onDrain(): void {
    this.#drain();
  }

  onClose(event: CloseEvent): void {
    this.#closing = true;
    this.#idle.cancel();
    this.#durationTimer?.cancel();
    const { stats } = this.#runtime;
    // Envoy counts a close that answers the client's own as the client's.
    const remote = event.by === "remote" || this.#clientLeft;
    stats.cxDestroy.inc();
    if (event.timeout) stats.cxDelayedCloseTimeout.inc();
    if (remote) stats.cxDestroyRemote.inc();
    else stats.cxDestroyLocal.inc();
    if (this.#active > 0) {
      stats.cxDestroyActiveRq.inc();
      if (remote) stats.cxDestroyRemoteActiveRq.inc();
      else stats.cxDestroyLocalActiveRq.inc();
    }
    this.#codec.onClosed(event);
    this.#countSent();
    stats.cxActive.dec();
    stats.cxHttp1Active.dec();
    if (this.peer.tls) stats.cxSslActive.dec();
    const length = this.#runtime.clock.now() - this.connection.startTime;
    stats.cxLength.record(Math.max(0, Math.floor(length)));
    this.#codecGeneration.release();
  }

  #endTurn(): void {
    this.#inTurn = false;
    const fresh = this.#fresh;
    if (fresh.length === 0) return;
    while (fresh.length > 0) fresh.pop()!.onTurnEnded();
  }

  // ---- from the codec

  onStream(encoder: ResponseEncoder): RequestDecoder {
    const runtime = this.#manager.runtime;
    if (runtime !== this.#runtime) this.#takeRuntime(runtime);
    this.#idle.cancel();
    this.#active++;
    const most = runtime.config.common_http_protocol_options.max_requests_per_connection;
    if (most > 0 && ++this.#requests >= most && !this.#draining) {
      runtime.stats.cxMaxRequestsReached.inc();
      this.#drain();
    }
    const stream = this.#manager.takeStream();
    stream.begin(this, runtime, encoder);
    return stream;
  }

  onIdleEnd(): void {
    this.close();
  }

  /** A response is cut: the client may take what it got of it before the connection is gone. */
  onCut(): void {
    this.#lingers = true;
  }

  #takeRuntime(runtime: Runtime): void {
    this.#moveGauges(runtime);
    this.#runtime = runtime;
    this.peer = new Peer(this.connection, runtime.requestHead.addresses);
    this.#codes = runtime.listenerCodes(this.connection.listener.statPrefix);
  }

  /** Another stat_prefix: the connection is counted where its streams are. */
  #moveGauges(to: Runtime): void {
    if (to.config.stat_prefix === this.#runtime.config.stat_prefix) return;
    const from = this.#runtime.stats;
    from.cxActive.dec();
    from.cxHttp1Active.dec();
    to.stats.cxActive.inc();
    to.stats.cxHttp1Active.inc();
    if (!this.peer.tls) return;
    from.cxSslActive.dec();
    to.stats.cxSslActive.inc();
  }

  // ---- from the streams

  /** The bytes of the stream's head are lent to it until this event ends; it is still there then. */
  keep(stream: HcmStream): void {
    if (this.#inTurn) this.#fresh.push(stream);
    else stream.onTurnEnded();
  }

  listenerCodes(runtime: Runtime): CodeCounters {
    return runtime === this.#runtime
      ? this.#codes
      : runtime.listenerCodes(this.connection.listener.statPrefix);
  }

  /** A final response head is about to be written: is it the last of its connection? */
  beforeResponse(encoder: ResponseEncoder, faulty: boolean, requestComplete: boolean): void {
    if (this.#draining) this.#runtime.stats.cxDrainClose.inc();
    // A client that still sends must get the chance to read the answer before the connection is gone.
    if (faulty || !requestComplete) this.#lingers = true;
    if (faulty || !requestComplete || this.#draining) encoder.closeAfter();
  }

  /** `quiet`: nobody can still name the stream, so its object may serve again. */
  onStreamEnded(
    stream: HcmStream,
    requestComplete: boolean,
    faulty: boolean,
    quiet: boolean,
  ): void {
    this.#active--;
    this.#countSent();
    if (quiet && requestComplete && !faulty) this.#manager.giveBack(stream);
    // The codec leaves a connection to us whose request it cannot or need not read to the end.
    if (faulty || !requestComplete) this.close();
    else if (this.#active === 0 && !this.#closing) this.#armIdle();
  }

  #countSent(): void {
    const { bytesSent } = this.connection;
    this.#runtime.stats.cxTxBytes.add(bytesSent - this.#bytesSent);
    this.#bytesSent = bytesSent;
  }

  // ---- closing

  #drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    this.#codec.drain();
  }

  #armIdle(): void {
    const { config } = this.#runtime;
    const ms = this.#leaving
      ? config.drain_timeout
      : config.common_http_protocol_options.idle_timeout;
    if (ms > 0 || this.#leaving) this.#idle.arm(ms);
  }

  /** Envoy drains an idle connection first, so that a request which crosses the close is still answered. */
  #onIdleTimeout(): void {
    if (this.#active > 0 || this.#closing) return;
    if (this.#leaving) {
      this.#lingers = true;
      this.close();
      return;
    }
    this.#runtime.stats.cxIdleTimeout.inc();
    this.#leave();
  }

  #onMaxDuration(): void {
    if (this.#closing) return;
    this.#runtime.stats.cxMaxDurationReached.inc();
    this.#leave();
  }

  /** The next response is the last; without one the connection closes after the drain timeout. */
  #leave(): void {
    this.#leaving = true;
    this.#drain();
    if (this.#active === 0) this.#armIdle();
  }

  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#idle.cancel();
    const ms = this.#runtime.config.delayed_close_timeout;
    if (this.#lingers && ms > 0) this.connection.closeDelayed(ms);
    else this.connection.close("flush");
  }
}
