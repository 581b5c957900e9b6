// Hot path: one object a request, reused with its RoutedRequest.
import {
  type BalancerContext,
  type Chunk,
  type CloseEvent,
  type Cluster,
  type Connection,
  type DecodeError,
  type HeaderMap,
  type Host,
  type PoolCallbacks,
  type PoolFailure,
  type PoolHandle,
  type Reply,
  type RequestEncoder,
  type RequestHeaders,
  type ResetReason,
  type ResponseDecoder,
  ResponseHeaders,
  type SetupContext,
  type Timer,
  type TrackedStats,
} from "@tsproxy/sdk";
import { TcpStream } from "./tcp-stream.ts";
import type { TrackedAttempt } from "./tracked-attempt.ts";
import type { ChainOwner, UpstreamChain } from "./upstream-chain.ts";
import { FAILURE, ofCut, ofPool } from "./upstream-failure.ts";
import type { LoggedAttempt } from "./upstream-log.ts";

/** The RoutedRequest of an attempt, which is told how the attempt goes. */
export interface AttemptOwner {
  /** Undefined: attempts are not logged. */
  logAttempt(cluster: Cluster): LoggedAttempt | undefined;
  /** Upstream filters that the attempt passes; undefined: none. */
  upstreamChain(attempt: Attempt, cluster: Cluster): UpstreamChain | undefined;
  onLocalReply(attempt: Attempt, reply: Reply): void;
  onFilterError(error: unknown, filter: string): void;
  trackAttempt(cluster: Cluster, tracks: TrackedStats): TrackedAttempt;
  onReady(attempt: Attempt, encoder: RequestEncoder, host: Host): void;
  onNoConnection(attempt: Attempt, failure: PoolFailure): void;
  onInformational(attempt: Attempt, headers: ResponseHeaders): void;
  onHead(attempt: Attempt, headers: ResponseHeaders, endStream: boolean): void;
  onBody(attempt: Attempt, chunk: Chunk, endStream: boolean): void;
  onTrailers(attempt: Attempt, trailers: HeaderMap): void;
  /** The response could not be decoded. */
  onMalformed(attempt: Attempt): void;
  /** The exchange was reset. */
  onCut(attempt: Attempt, reason: ResetReason): void;
  /** The upstream connection takes no more bytes (true), or takes them again (false). */
  onFull(attempt: Attempt, full: boolean): void;
  /** `per_try_timeout` is over, or `per_try_idle_timeout` if `idle`. */
  onTryTimeout(attempt: Attempt, idle: boolean): void;
  onStreamDuration(attempt: Attempt): void;
}

/**
 * One exchange with one host of a cluster, from the wait for a connection to the end of the response.
 *
 *   begin ──> waits (`#handle`) ──> runs (`encoder`) ──> over
 */
export class Attempt implements PoolCallbacks, ChainOwner {
  readonly responseHeaders = new ResponseHeaders();
  /** Set while the exchange runs. */
  encoder: RequestEncoder | undefined = undefined;
  host: Host | undefined = undefined;
  /** Set while the exchange runs. */
  connection: Connection | undefined = undefined;
  /** Waits for a connection. */
  waiting = false;
  /** A hedged attempt was begun beside this slow one, so this one causes no further attempt. */
  hedged = false;
  /** Its timeout has passed, but it goes on beside a hedged attempt; outlier detection has counted the timeout. */
  slow = false;
  /** Set until its line is written; undefined: it is not logged. */
  logged: LoggedAttempt | undefined = undefined;
  /** Set while the attempt lasts; undefined: the cluster has no `track_cluster_stats`. */
  tracked: TrackedAttempt | undefined = undefined;
  /** When it began, by `cx.now()`. */
  begunAt = 0;
  /** When it had its connection. */
  readyAt = 0;
  readonly #owner: AttemptOwner;
  readonly #cx: SetupContext;
  #handle: PoolHandle | undefined = undefined;
  #idleMs = 0;
  #timers: TryTimers | undefined = undefined;
  /** Upstream filters between the router and the exchange; undefined: none. */
  #chain: UpstreamChain | undefined = undefined;

  constructor(owner: AttemptOwner, cx: SetupContext) {
    this.#owner = owner;
    this.#cx = cx;
  }

  get decoder(): ResponseDecoder {
    return this.#chain ?? this;
  }
  get over(): boolean {
    return !this.waiting && this.encoder === undefined;
  }

  /** The host to which a connection is awaited; undefined: none is chosen yet, or the connection is there. */
  get awaitedHost(): Host | undefined {
    return this.#handle?.host;
  }

  /**
   * Asks the cluster for a connection. `tcpHeader`: a TCP connection that carries bare bytes after these. True: the attempt waits. False: the
   * owner has been told of the outcome already, and may serve another request by now.
   */
  begin(cluster: Cluster, context: BalancerContext, tcpHeader?: Uint8Array): boolean {
    this.host = undefined;
    this.waiting = true;
    this.hedged = this.slow = false;
    this.begunAt = this.#cx.now();
    this.#idleMs = 0;
    this.logged = this.#owner.logAttempt(cluster);
    const { tracks } = cluster;
    if (tracks !== undefined) this.tracked = this.#owner.trackAttempt(cluster, tracks);
    this.#chain = this.#owner.upstreamChain(this, cluster);
    const handle =
      tcpHeader === undefined
        ? cluster.newStream(this, context)
        : TcpStream.open(cluster, this, context, tcpHeader);
    if (handle === undefined) return false;
    this.#handle = handle;
    return true;
  }

  /** Shows the upstream filters the head while the attempt waits. Called last: a filter may answer, which ends the request. */
  beginFilters(headers: RequestHeaders, endStream: boolean): void {
    if (this.waiting) this.#chain?.begin(headers, endStream);
  }

  /** Starts a timeout of a running attempt. `ms` 0: no timeout. */
  limit(kind: "try" | "idle" | "duration", ms: number): void {
    if (ms === 0) return;
    this.#timers ??= new TryTimers(this, this.#owner, this.#cx);
    if (kind === "idle") this.#idleMs = ms;
    this.#timers[kind].arm(ms);
  }

  /** Cancels the per-try timeout: the response head has come, or the idle timeout is over. */
  endTry(): void {
    this.#timers?.try.cancel();
  }

  /** Cancels the idle timeout, whatever bytes pass. */
  endIdle(): void {
    this.#idleMs = 0;
    this.#timers?.idle.cancel();
  }

  /** Restarts the idle timeout: bytes have passed. */
  touch(): void {
    if (this.#idleMs > 0) this.#timers!.idle.arm(this.#idleMs);
  }

  /**
   * Ends an attempt whose request and response are complete: the codec frees the connection by itself. As in Envoy, its log line
   * tells what the client got, so it is written when the stream ends or another attempt begins (`endLog`).
   */
  complete(): void {
    const chain = this.#chain;
    this.logged?.onComplete();
    this.#end();
    // An upstream filter may still hold a part of the request, which is not sent any more.
    chain?.reset();
  }

  /** Breaks the attempt off. The owner is not called for it any more. */
  giveUp(): void {
    const handle = this.#handle;
    const encoder = this.encoder;
    const host = this.awaitedHost;
    if (host !== undefined) this.logged?.onLeft(host);
    this.#end();
    handle?.cancel();
    encoder?.reset();
    // Only now: the reset counts what came with the last bytes read.
    this.endLog();
  }

  /** Writes the line of an attempt that is over. */
  endLog(): void {
    if (this.logged === undefined) return;
    this.logged.end();
    this.logged = undefined;
  }

  #over(): void {
    this.#end();
    this.endLog();
  }

  #end(): void {
    this.waiting = false;
    this.#handle = undefined;
    this.encoder = undefined;
    this.connection = undefined;
    this.#idleMs = 0;
    this.#timers?.cancel();
    if (this.#chain !== undefined) {
      this.#chain.end();
      this.#chain = undefined;
    }
    if (this.tracked !== undefined) {
      this.tracked.end(this.#cx.now());
      this.tracked = undefined;
    }
  }

  onPoolReady(encoder: RequestEncoder, host: Host, connection: Connection): void {
    this.waiting = false;
    this.#handle = undefined;
    const exchange = this.#chain === undefined ? encoder : this.#chain.over(encoder);
    this.encoder = exchange;
    this.host = host;
    this.connection = connection;
    this.readyAt = this.#cx.now();
    this.#owner.onReady(this, exchange, host);
  }

  onPoolFailure(failure: PoolFailure): void {
    if (this.logged !== undefined) this.#logFailure(this.logged, failure);
    this.#over();
    this.host = failure.host;
    this.#owner.onNoConnection(this, failure);
  }

  #logFailure(logged: LoggedAttempt, failure: PoolFailure): void {
    const { reason, host, transportFailure } = failure;
    if (reason !== "no_host") {
      logged.onFailed(ofPool(reason).flag, host, transportFailure);
      return;
    }
    logged.forget();
    this.logged = undefined;
  }

  onInformational(headers: ResponseHeaders): void {
    this.touch();
    this.#owner.onInformational(this, headers);
  }

  onResponseHeaders(endStream: boolean): void {
    this.touch();
    if (this.responseHeaders.repeated) this.responseHeaders.joinRepeated();
    this.logged?.onHead(this.responseHeaders);
    this.tracked?.onHead(this.responseHeaders);
    this.host?.onLoadReport?.(this.responseHeaders);
    this.#owner.onHead(this, this.responseHeaders, endStream);
  }

  onResponseBody(chunk: Chunk, endStream: boolean): void {
    this.touch();
    if (this.logged !== undefined) this.logged.info.bytesReceived += chunk.length;
    this.tracked?.onReceived(chunk.length);
    this.#owner.onBody(this, chunk, endStream);
  }

  onResponseTrailers(trailers: HeaderMap): void {
    if (this.logged !== undefined) this.logged.trailers = trailers;
    this.host?.onLoadReport?.(trailers);
    this.#owner.onTrailers(this, trailers);
  }

  onDecodeError(_error: DecodeError): void {
    this.logged?.flag(FAILURE.protocolError.flag);
    this.#over();
    this.#owner.onMalformed(this);
  }

  onUpstreamReset(reason: ResetReason, _event: CloseEvent | undefined): void {
    const { logged } = this;
    const isHttp1 = this.encoder?.protocol !== "HTTP/2";
    logged?.flag(ofCut(reason, isHttp1 && logged.response !== undefined).flag);
    this.#over();
    this.#owner.onCut(this, reason);
  }

  onLocalReply(reply: Reply): void {
    this.#owner.onLocalReply(this, reply);
  }

  onFilterError(error: unknown, filter: string): void {
    this.#owner.onFilterError(error, filter);
  }

  onUpstreamBlocked(blocked: boolean): void {
    this.#owner.onFull(this, blocked);
  }
}

/** Timers of an attempt, made only if it has a limit of this kind. */
class TryTimers {
  readonly try: Timer;
  readonly idle: Timer;
  readonly duration: Timer;

  constructor(attempt: Attempt, owner: AttemptOwner, cx: SetupContext) {
    // As in Envoy, the limit that a try meets first is the last: it causes no more than one other try.
    this.try = cx.timer(() => {
      attempt.endIdle();
      owner.onTryTimeout(attempt, false);
    });
    this.idle = cx.timer(() => {
      attempt.endTry();
      owner.onTryTimeout(attempt, true);
    });
    this.duration = cx.timer(() => owner.onStreamDuration(attempt));
  }

  cancel(): void {
    this.try.cancel();
    this.idle.cancel();
    this.duration.cancel();
  }
}
