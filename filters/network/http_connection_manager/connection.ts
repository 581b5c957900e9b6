// Hot path: every downstream read.
import {
  Chunk,
  type CloseEvent,
  type CodecFactory,
  type DownstreamConnection,
  type Drain,
  type Gauge,
  type Generation,
  jittered,
  latin1Decode,
  type NetworkFilter,
  type RequestDecoder,
  type ResponseEncoder,
  type ServerCodec,
  type ServerEvents,
  type Slot,
  type StreamInfo,
  type Timer,
} from "@tsproxy/sdk";
import type { ConnectionManager } from "./manager.ts";
import { Peer } from "./request-head.ts";
import type { Runtime } from "./runtime.ts";
import type { CodeCounters, HcmStats } from "./stats.ts";
import type { HcmStream } from "./stream.ts";

/** How every HTTP/2 connection begins, and no HTTP/1 request does (RFC 9113 §3.4). As in Envoy the rest is left to the codec. */
const PREFACE = "PRI * HTTP/2";

/** Envoy's `overload.premature_reset_total_stream_count` and `…_min_stream_lifetime_seconds`. */
const PREMATURE_RESETS = 500;
const PREMATURE_MS = 1000;

/** One downstream connection: its codec, its streams, and when it closes. */
export class HcmConnection implements NetworkFilter, ServerEvents {
  readonly connection: DownstreamConnection;
  peer: Peer;
  #state: Map<string, unknown> | undefined = undefined;
  readonly #manager: ConnectionManager;
  /** The config of the newest stream; a new stream takes the manager's. */
  #runtime: Runtime;
  /** Undefined until ALPN or the first bytes have shown the protocol. */
  #codec: ServerCodec | undefined = undefined;
  #codecGeneration: Generation<CodecFactory> | undefined = undefined;
  /** The slot that new connections take their codec from, and the generation in it when this one last looked. */
  #codecSlot: Slot<CodecFactory> | undefined = undefined;
  #codecLatest: Generation<CodecFactory> | undefined = undefined;
  /** HTTP/2: several streams at once, and the end of one does not end the connection. */
  isHttp2 = false;
  /** The first bytes, while they may still be the beginning of an HTTP/2 preface. */
  #early: Uint8Array | undefined = undefined;
  readonly #idle: Timer;
  #durationTimer: Timer | undefined = undefined;
  /** Runs from when the client is asked to leave; until it fires the client may still send requests. */
  #drainTimer: Timer | undefined = undefined;
  /** Armed while the listener drains. */
  #leaveTimer: Timer | undefined = undefined;
  /** Details of the error for which the codec has given up the connection; "": none. */
  errorDetails = "";
  #codes: CodeCounters;
  /** An event of this connection is being handled. */
  #inTurn = false;
  #active = 0;
  #requests = 0;
  /** Streams whose heads came in the event being handled. */
  readonly #fresh: HcmStream[] = [];
  #draining = false;
  /** The listener or the whole proxy drains. Envoy counts that, but not the end of an idle, old or used-up connection. */
  #toldToDrain = false;
  #listenerDrain: Drain | undefined = undefined;
  /** HTTP/1: each response says `connection: close`, and the connection is closed when the drain timeout is over. */
  #leaving = false;
  /** `http1_safe_max_connection_duration` is over: the next request is the last. */
  #isOld = false;
  #closing = false;
  /** The client has sent FIN. */
  #clientLeft = false;
  /** The client sent FIN in the middle of an exchange. */
  #leftBusy = false;
  /** Why this proxy closed the connection, in Envoy's words; undefined: it did not, or Envoy says nothing. */
  #closeReason: string | undefined = undefined;
  /** The connection is closed with a delay (`delayed_close_timeout`), so that the client can read what was sent. */
  #lingers = false;
  /** Size of the last read. */
  #lastRead = 0;
  #bytesReceived = 0;
  #bytesSent = 0;
  #streamsEnded = 0;
  #prematureResets = 0;
  /** The client has sent what its protocol forbids, so the access log of the connection gets the flag DPE too. */
  hasProtocolError = false;

  constructor(manager: ConnectionManager, connection: DownstreamConnection) {
    this.#manager = manager;
    this.connection = connection;
    this.#runtime = manager.runtime;
    const runtime = this.#runtime;
    this.peer = new Peer(connection, runtime.requestHead);
    this.#codes = runtime.listenerCodes(connection.listener.statPrefix);
    this.#idle = manager.cx.timer(() => this.#onIdleTimeout());
    connection.describedBy = this;
    // As in Envoy, counts and limits connections that a filter before this one may refuse.
    const { stats } = runtime;
    stats.cxTotal.inc();
    stats.cxActive.inc();
    connection.countUnsent?.(stats.cxTxBuffered);
    if (this.peer.tls) {
      stats.cxSslTotal.inc();
      stats.cxSslActive.inc();
    }
    this.#armIdle();
    const options = runtime.config.common_http_protocol_options;
    const longest = options.max_connection_duration;
    if (longest > 0) {
      this.#durationTimer = manager.cx.timer(() => this.#onMaxDuration());
      this.#durationTimer.arm(jittered(longest, options.max_connection_duration_jitter));
    }
  }

  describe(): Partial<StreamInfo> {
    const protocol = this.isHttp2 ? "HTTP/2" : "HTTP/1.1";
    return {
      bytesReceived: this.#bytesReceived,
      bytesSent: this.#bytesSent,
      connectionProtocol: this.#codec === undefined ? undefined : protocol,
      ...(this.hasProtocolError && { flags: ["DPE"] }),
      downstreamLocalCloseReason: this.#closeReason,
    };
  }

  /** What filters keep for the connection. */
  get state(): Map<string, unknown> {
    this.#state ??= new Map();
    return this.#state;
  }

  onData(chunk: Chunk, endStream: boolean): void {
    this.#manager.reuseStreams();
    if (chunk.end > chunk.at) {
      const size = chunk.end - chunk.at;
      const { stats } = this.#runtime;
      stats.cxRxBytes.add(size);
      stats.cxRxBuffered.add(size - this.#lastRead);
      this.#lastRead = size;
      this.#bytesReceived += size;
      this.#inTurn = true;
      if (this.#codec !== undefined) this.#codec.onData(chunk);
      else this.#sniff(chunk, endStream);
      this.#endTurn();
    }
    if (!endStream) return;
    this.#clientLeft = true;
    this.#leftBusy = this.#active > 0;
    if (this.#codec !== undefined) this.#codec.onEof();
    // A client that has said nothing had no protocol: it counts in neither total, as in Envoy.
    else this.close();
  }

  // ---- the protocol

  /** Chooses the codec: by `codec_type`, else by ALPN, else by the first bytes. */
  #sniff(chunk: Chunk, endStream: boolean): void {
    const { codec_type } = this.#runtime.config;
    const agreed = this.connection.tls?.alpn ?? "";
    if (codec_type !== "AUTO") this.#useCodec(codec_type === "HTTP2");
    else if (agreed !== "") this.#useCodec(agreed === "h2");
    else {
      const bytes = this.#early === undefined ? chunk : join(this.#early, chunk);
      const size = Math.min(bytes.length, PREFACE.length);
      let k = 0;
      while (k < size && bytes.memory[bytes.at + k] === PREFACE.charCodeAt(k)) k++;
      if (k === size && size < PREFACE.length && !endStream) {
        this.#early = bytes.copy();
        return;
      }
      this.#early = undefined;
      // RFC 9113 §3.4: a client that sends neither a preface nor a request gets no answer in HTTP/1.
      if (isNoHttp(bytes)) this.connection.close("abort");
      else this.#useCodec(k === PREFACE.length).onData(bytes);
      return;
    }
    this.#codec!.onData(chunk);
  }

  #useCodec(isHttp2: boolean): ServerCodec {
    const runtime = this.#runtime;
    const { stats } = runtime;
    this.isHttp2 = isHttp2;
    (isHttp2 ? stats.cxHttp2Total : stats.cxHttp1Total).inc();
    (isHttp2 ? stats.cxHttp2Active : stats.cxHttp1Active).inc();
    this.#codecSlot = isHttp2 ? runtime.http2 : runtime.http1;
    const generation = this.#codecSlot.current;
    generation.acquire();
    this.#codecGeneration = this.#codecLatest = generation;
    const codec = generation.value.createServer(this.connection, this, runtime.codecOptions);
    this.#codec = codec;
    if (this.#draining) codec.drain();
    return codec;
  }

  onAgain(): void {
    this.#manager.reuseStreams();
    this.#inTurn = true;
    this.#codec?.onAgain();
    this.#endTurn();
  }

  onBlocked(): void {
    this.#codec?.onBlocked(true);
  }

  onDrained(): void {
    this.#inTurn = true;
    this.#codec?.onBlocked(false);
    this.#endTurn();
  }

  /** The listener drains: responses ask the client to leave, and late in the drain time idle connections leave as well. */
  onDrain(drain: Drain): void {
    if (!drain.immediate) {
      this.#listenerDrain = drain;
      const ms = drain.leavesIn?.(this.#runtime.config.drain_timeout);
      if (ms === undefined) return;
      this.#leaveTimer ??= this.#manager.cx.timer(() => this.#onDrainEnding());
      this.#leaveTimer.arm(ms);
      return;
    }
    this.#toldToDrain = true;
    this.#drain();
  }

  /** A codec lasts as long as its connection. If there is newer code, the connection drains, so that the client connects anew. */
  onPackagesChanged(): void {
    if (this.#codecSlot?.current !== this.#codecLatest) this.#drain();
    const { runtime } = this.#manager;
    if (runtime !== this.#runtime) this.#takeRuntime(runtime);
  }

  onClose(event: CloseEvent): void {
    this.#closing = true;
    this.#idle.cancel();
    this.#durationTimer?.cancel();
    this.#drainTimer?.cancel();
    this.#leaveTimer?.cancel();
    const { stats } = this.#runtime;
    // As in Envoy, a close that follows the client's own counts as the client's.
    const remote = event.by === "remote" || this.#clientLeft;
    stats.cxDestroy.inc();
    if (event.timeout) {
      stats.cxDelayedCloseTimeout.inc();
      this.#closeReason = "triggered_delayed_close_timeout";
    }
    if (remote) stats.cxDestroyRemote.inc();
    else stats.cxDestroyLocal.inc();
    if (this.#active > 0 || this.#leftBusy) {
      stats.cxDestroyActiveRq.inc();
      if (remote) stats.cxDestroyRemoteActiveRq.inc();
      else stats.cxDestroyLocalActiveRq.inc();
    }
    this.#codec?.onClosed(event);
    this.#countSent();
    stats.cxActive.dec();
    stats.cxRxBuffered.add(-this.#lastRead);
    if (this.#codec !== undefined) this.#activeOf(stats).dec();
    if (this.peer.tls) stats.cxSslActive.dec();
    const length = this.#runtime.clock.now() - this.connection.startTime;
    stats.cxLength.record(Math.max(0, Math.floor(length)));
    this.#codecGeneration?.release();
  }

  #activeOf(stats: HcmStats): Gauge {
    return this.isHttp2 ? stats.cxHttp2Active : stats.cxHttp1Active;
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
    if (this.#isOld) this.#drain();
    const most = runtime.config.common_http_protocol_options.max_requests_per_connection;
    if (most > 0 && ++this.#requests >= most) {
      runtime.stats.cxMaxRequestsReached.inc();
      if (!this.#draining) this.#drain();
    }
    const stream = this.#manager.takeStream();
    stream.begin(this, runtime, encoder);
    return stream;
  }

  /** As in Envoy, a client that is answered at once, while its bytes are read, is given time to leave first. */
  onIdleEnd(): void {
    if (this.#inTurn && !this.isHttp2 && !this.#clientLeft) this.#lingers = true;
    this.close();
  }

  /** HTTP/2: the codec resets all streams after this call. */
  onConnectionError(details: string, isFlood: boolean): void {
    this.hasProtocolError = true;
    this.errorDetails = details;
    const { stats } = this.#runtime;
    // As in Envoy, floods are counted by the codec alone.
    if (!isFlood) stats.cxProtocolError.inc();
    if (this.isHttp2 && this.#active > 0) {
      // As in Envoy its streams are lost by us, whoever closes the connection in the end.
      stats.cxDestroyActiveRq.inc();
      stats.cxDestroyLocalActiveRq.inc();
    }
    this.#lingers = true;
    this.close();
  }

  /**
   * A response was cut off: the client may read what came of it before the connection is gone. As in Envoy one that has sent its
   * whole request, and was told that the connection closes, is not kept waiting: nothing it sends can cross the close. Over HTTP/2
   * the connection goes on, and is nothing to wait for when the client leaves later.
   */
  onCut(encoder: ResponseEncoder, requestComplete: boolean): void {
    if (this.isHttp2) return;
    if (encoder.saidClose !== true || !requestComplete) this.#lingers = true;
  }

  #takeRuntime(runtime: Runtime): void {
    this.#moveGauges(runtime);
    this.#runtime = runtime;
    if (this.#codecSlot !== undefined) {
      this.#codecSlot = this.isHttp2 ? runtime.http2 : runtime.http1;
      this.#codecLatest = this.#codecSlot.current;
    }
    this.peer = new Peer(this.connection, runtime.requestHead);
    this.#codes = runtime.listenerCodes(this.connection.listener.statPrefix);
  }

  /** With another `stat_prefix`, moves the connection's gauges to where its streams are counted. */
  #moveGauges(to: Runtime): void {
    if (to.config.stat_prefix === this.#runtime.config.stat_prefix) return;
    const from = this.#runtime.stats;
    from.cxActive.dec();
    to.stats.cxActive.inc();
    from.cxRxBuffered.add(-this.#lastRead);
    to.stats.cxRxBuffered.add(this.#lastRead);
    this.connection.countUnsent?.(to.stats.cxTxBuffered);
    if (this.#codec !== undefined) {
      this.#activeOf(from).dec();
      this.#activeOf(to.stats).inc();
    }
    if (!this.peer.tls) return;
    from.cxSslActive.dec();
    to.stats.cxSslActive.inc();
  }

  // ---- from the streams

  /** Arranges `onTurnEnded` for the end of this event: the bytes of the stream's head are lent only until then. */
  keep(stream: HcmStream): void {
    if (this.#inTurn) this.#fresh.push(stream);
    else stream.onTurnEnded();
  }

  listenerCodes(runtime: Runtime): CodeCounters {
    return runtime === this.#runtime
      ? this.#codes
      : runtime.listenerCodes(this.connection.listener.statPrefix);
  }

  /** Called before a final response head is written: decides whether it is the last of its connection. */
  beforeResponse(encoder: ResponseEncoder, faulty: boolean, requestComplete: boolean): void {
    if (!this.#draining && this.#mayLeave()) this.#leave(true);
    if (this.isHttp2) return;
    if (this.#toldToDrain) this.#runtime.stats.cxDrainClose.inc();
    // A client that still sends must get the chance to read the answer before the connection is gone.
    if (faulty || !requestComplete) this.#lingers = true;
    if (faulty || !requestComplete || (this.#draining && !this.#leaving)) encoder.closeAfter();
    else if (this.#leaving) encoder.announceClose?.();
  }

  /** Whether the client is to be asked to leave: Envoy's DrainManager::drainClose. */
  #mayLeave(): boolean {
    if (this.#manager.leaving && this.connection.listener.drainType !== "MODIFY_ONLY") return true;
    return this.#listenerDrain?.closes() === true;
  }

  /** `quiet`: nothing can call the stream any more, so its object may be reused. */
  onStreamEnded(
    stream: HcmStream,
    requestComplete: boolean,
    faulty: boolean,
    quiet: boolean,
  ): void {
    this.#active--;
    this.#countSent();
    if (quiet && requestComplete && !faulty) this.#manager.giveBack(stream);
    if (this.isHttp2) {
      this.#countReset(stream.info);
      if (this.#active === 0 && !this.#closing) this.#armIdle();
      return;
    }
    // HTTP/1: the codec leaves it to this class to close a connection whose request was not read to its end.
    if (faulty || !requestComplete) this.close();
    else if (this.#active === 0 && !this.#closing) this.#armIdle();
  }

  /** Closes the connection of a client that opens streams only to reset them, at the proxy's expense (CVE-2023-44487). */
  #countReset(info: StreamInfo): void {
    this.#streamsEnded++;
    if (info.responseCode === 0 && info.duration < PREMATURE_MS) this.#prematureResets++;
    else if (this.#prematureResets === 0) return;
    const most = Math.max(this.#streamsEnded, PREMATURE_RESETS);
    if (this.#prematureResets * 2 < most || this.#closing) return;
    this.#runtime.stats.rqTooManyPrematureResets.inc();
    this.#closing = true;
    this.#idle.cancel();
    this.connection.close("abort");
  }

  #countSent(): void {
    const { bytesSent } = this.connection;
    this.#runtime.stats.cxTxBytes.add(bytesSent - this.#bytesSent);
    this.#bytesSent = bytesSent;
  }

  // ---- closing

  /** Ends the connection. HTTP/1: the next response is the last. HTTP/2: GOAWAY now, and the end after the drain timeout. */
  #drain(): void {
    if (this.#draining && !this.#leaving) return;
    this.#draining = true;
    this.#leaving = false;
    this.#codec?.drain();
    if (!this.isHttp2) return;
    if (this.#active > 0 && this.#toldToDrain) this.#runtime.stats.cxDrainClose.inc();
    this.#armDrain();
  }

  #armDrain(): void {
    if (this.#drainTimer !== undefined) return;
    this.#drainTimer = this.#manager.cx.timer(() => this.#onDrained());
    const { drain_timeout, drain_timeout_jitter } = this.#runtime.config;
    this.#drainTimer.arm(jittered(drain_timeout, drain_timeout_jitter));
  }

  /** The drain timeout is over: requests that the client sent before it was asked to leave have come by now. */
  #onDrained(): void {
    if (this.#closing) return;
    if (this.isHttp2) this.#codec?.finish?.();
    else this.#drain();
    if (this.#codec?.active === true) return;
    this.#lingers ||= !this.isHttp2;
    this.close();
  }

  #armIdle(): void {
    const { idle_timeout } = this.#runtime.config.common_http_protocol_options;
    if (idle_timeout > 0) this.#idle.arm(idle_timeout);
  }

  /** As in Envoy, an idle connection drains first, so that a request that crosses the close is still answered. */
  #onIdleTimeout(): void {
    if (this.#active > 0 || this.#closing) return;
    this.#runtime.stats.cxIdleTimeout.inc();
    // No byte has ever come, so no request can cross the close.
    if (this.#codec === undefined) this.close();
    else this.#leave(false);
  }

  #onMaxDuration(): void {
    if (this.#closing) return;
    this.#runtime.stats.cxMaxDurationReached.inc();
    const waits = this.#runtime.config.http1_safe_max_connection_duration && !this.isHttp2;
    if (this.#codec === undefined) this.close();
    else if (waits) this.#isOld = true;
    else this.#leave(false);
  }

  /** The listener's drain comes to its end, and no response has made the client leave. */
  #onDrainEnding(): void {
    if (this.#closing) return;
    if (this.#codec === undefined) this.close();
    else this.#leave(true);
  }

  /** A filter asks for it (`WISH.DRAIN_CONNECTION`): the next response is the last. */
  leave(): void {
    this.#drain();
  }

  /** Begins Envoy's drain sequence: over HTTP/1 responses first ask the client to leave. `counted`: in `cx_drain_close`. */
  #leave(counted: boolean): void {
    if (this.#draining) return;
    if (counted) this.#runtime.stats.cxDrainClose.inc();
    if (this.isHttp2) {
      this.#drain();
      return;
    }
    this.#draining = true;
    this.#leaving = true;
    this.#armDrain();
  }

  /** Closes the connection once all that was written is sent; `#lingers` delays it, unless the client has ended it. */
  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#idle.cancel();
    this.#codec?.finish?.();
    const ms = this.#runtime.config.delayed_close_timeout;
    if (this.#lingers && !this.#clientLeft && ms > 0) this.connection.closeDelayed(ms);
    else this.connection.close("flush");
  }
}

const NO_HTTP = /^\S+ \S+ [^\s/]+\r\n\r\n$/;
const LONGEST_GREETING = 64;

/** Whether the bytes are three words and nothing else, the third without a slash, so that it is no `HTTP/1.1`. */
function isNoHttp(bytes: Chunk): boolean {
  if (bytes.length > LONGEST_GREETING) return false;
  return NO_HTTP.test(latin1Decode(bytes.memory, bytes.at, bytes.end));
}

function join(early: Uint8Array, chunk: Chunk): Chunk {
  const all = new Uint8Array(early.length + chunk.length);
  all.set(early);
  all.set(chunk.memory.subarray(chunk.at, chunk.end), early.length);
  return new Chunk(all, 0, all.length);
}
