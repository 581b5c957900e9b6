import {
  type Chunk,
  type Cluster,
  HeaderMap,
  type Host,
  headerName,
  type PoolFailure,
  type RequestEncoder,
  type RequestHeaders,
  type ResetReason,
  type ResponseHeaders,
  type Timer,
  type TrackedStats,
} from "@tsproxy/sdk";
import { Attempt, type AttemptOwner } from "./attempt.ts";
import { KeptBody } from "./kept-body.ts";
import { isNoHandshake } from "./local-replies.ts";
import { MirrorStream } from "./mirror-stream.ts";
import type { MirrorOptions } from "./mirrors.ts";
import type { Router } from "./router.ts";
import type { Answered, ClusterCharges } from "./stats.ts";
import { TrackedAttempt } from "./tracked-attempt.ts";
import { UpstreamChain } from "./upstream-chain.ts";
import { FAILURE, NO_HOST, ofCut, ofPool, type UpstreamFailure } from "./upstream-failure.ts";
import { LoggedAttempt } from "./upstream-log.ts";

const CANARY = headerName("x-envoy-upstream-canary");

/**
 * One mirrored copy of a request: its head and body go out as they come, its response is counted and dropped. As in Envoy it passes
 * upstream filters and is logged like any attempt.
 *
 *   begin ──> waits (the body is kept) ──> runs (the attempt has its connection) ──> over
 */
export class Mirror implements AttemptOwner, Answered {
  readonly internal = true;
  readonly withoutCode = false;
  canary = false;
  /** The connection, or what is kept for it, takes no more of the body for now. */
  full = false;
  readonly #router: Router;
  readonly #cluster: Cluster;
  readonly #charges: ClusterCharges;
  readonly #headers: RequestHeaders;
  readonly #options: MirrorOptions;
  readonly #timer: Timer;
  readonly #attempt: Attempt;
  /** What logs and upstream filters see of it; undefined: there are none. */
  #stream: MirrorStream | undefined = undefined;
  /** Called when `full` changes, until the request has ended. */
  #onFull: (() => void) | undefined = undefined;
  #kept: KeptBody | undefined = undefined;
  #requestEnded = false;
  #requestEndedAt = 0;
  #isHttp1 = true;
  #informed = false;
  #answered = false;
  /** The answer is a 101: what follows is no message. */
  #switched = false;
  #over = false;

  constructor(router: Router, cluster: Cluster, headers: RequestHeaders, options: MirrorOptions) {
    this.#router = router;
    this.#cluster = cluster;
    this.#charges = router.charges(cluster);
    this.#headers = headers;
    this.#options = options;
    this.#timer = router.cx.timer(() => this.#onTimeout());
    this.#attempt = new Attempt(this, router.cx);
  }

  /** `onFull` undefined: the request has ended with its head. */
  begin(onFull: (() => void) | undefined): void {
    this.#router.mirrors.add(this);
    this.#router.mirrored.inc();
    this.#onFull = onFull;
    if (onFull === undefined) this.#onRequestEnded();
    if (this.#isTurnedAway()) {
      this.#count(503);
      this.#end();
      return;
    }
    const head = this.#headers;
    const { metadataMatch } = this.#options;
    if (this.#attempt.begin(this.#cluster, { head, metadataMatch }))
      this.#attempt.beginFilters(head, onFull === undefined);
  }

  #isTurnedAway(): boolean {
    const { dropOverload = 0 } = this.#cluster;
    return this.#charges.turnsAway() || (dropOverload > 0 && Math.random() < dropOverload);
  }

  // ---- the request

  body(chunk: Chunk, endStream: boolean): void {
    if (this.#over) return;
    if (endStream) this.#onRequestEnded();
    const { encoder } = this.#attempt;
    if (encoder !== undefined) {
      this.#onSent(chunk.length, endStream);
      encoder.encodeBody(chunk.memory, chunk.at, chunk.end, endStream);
      return;
    }
    this.#kept ??= new KeptBody();
    this.#kept.add(chunk);
    if (this.#kept.size > this.#options.bufferLimit) this.#setFull(true);
  }

  #onSent(bytes: number, endStream: boolean): void {
    this.#attempt.logged?.onSent(bytes, endStream);
    this.#attempt.tracked?.onSent(bytes);
  }

  trailers(trailers: HeaderMap): void {
    if (this.#over) return;
    this.#onRequestEnded();
    const { encoder } = this.#attempt;
    if (encoder !== undefined) {
      encoder.encodeTrailers(trailers);
      return;
    }
    // A copy, as the request may be over before there is a connection.
    const copy = new HeaderMap();
    for (const [name, value] of trailers) copy.append(name, value);
    this.#kept ??= new KeptBody();
    this.#kept.trailers = copy;
  }

  /** As in Envoy, a mirror has the route's timeout from the end of the request on. */
  #onRequestEnded(): void {
    this.#requestEnded = true;
    this.#requestEndedAt = this.#router.cx.now();
    this.#onFull = undefined;
    const { timeoutMs } = this.#options;
    if (timeoutMs > 0) this.#timer.arm(timeoutMs);
  }

  #setFull(full: boolean): void {
    if (this.full === full) return;
    this.full = full;
    this.#onFull?.();
  }

  // ---- how the attempt goes

  #ownStream(): MirrorStream {
    this.#stream ??= new MirrorStream(this.#router.cx, this.#cluster, this.#headers);
    return this.#stream;
  }

  logAttempt(cluster: Cluster): LoggedAttempt | undefined {
    const { upstreamLog } = this.#router;
    return upstreamLog && new LoggedAttempt(upstreamLog, this.#ownStream(), cluster);
  }

  upstreamChain(attempt: Attempt, cluster: Cluster): UpstreamChain | undefined {
    const filters = cluster.httpFilters ?? this.#router.upstreamFilters;
    return filters && new UpstreamChain(attempt, this.#ownStream(), filters);
  }

  trackAttempt(cluster: Cluster, tracks: TrackedStats): TrackedAttempt {
    const startedAt = this.#router.cx.now();
    return new TrackedAttempt(cluster, tracks, this.#headers, { startedAt, perTryMs: 0 });
  }

  /** An upstream filter answers: nobody waits for the answer. */
  onLocalReply(): void {
    this.giveUp();
  }

  onFilterError(error: unknown, filter: string): void {
    this.#router.onFilterError(error, filter);
  }

  onReady(attempt: Attempt, encoder: RequestEncoder, host: Host): void {
    const kept = this.#kept;
    const ended = this.#requestEnded;
    const headOnly = ended && (kept === undefined || kept.empty);
    this.#kept = undefined;
    this.#isHttp1 = encoder.protocol !== "HTTP/2";
    attempt.logged?.onReady(encoder, host, attempt.connection!, encoder);
    this.#setFull(false);
    this.#onSent(headOnly || kept === undefined ? 0 : kept.size, ended);
    encoder.encodeHeaders(this.#headers, headOnly, this.#options.upgrade);
    if (!headOnly) kept?.send(encoder, ended);
  }

  onNoConnection(_attempt: Attempt, { reason }: PoolFailure): void {
    if (reason === "no_host") {
      this.#count(NO_HOST.status);
      this.#end();
    } else this.#onFailed(ofPool(reason));
  }

  onFull(_attempt: Attempt, full: boolean): void {
    this.#setFull(full);
  }

  /** As in Envoy, the first interim response is counted, if it is 100, 102 or 103. */
  onInformational(_attempt: Attempt, { status }: ResponseHeaders): void {
    if (this.#informed || (status !== 100 && status !== 102 && status !== 103)) return;
    this.#informed = true;
    this.#count(status);
  }

  onHead(attempt: Attempt, headers: ResponseHeaders, endStream: boolean): void {
    const { status } = headers;
    if (this.#options.upgrade === "websocket" && isNoHandshake(headers, attempt.encoder)) {
      this.giveUp();
      return;
    }
    this.#answered = true;
    this.#switched = status === 101;
    this.canary =
      attempt.host?.canary === true || (headers.has(CANARY) && headers.get(CANARY) === "true");
    attempt.host?.onResponse(status);
    this.#count(status);
    if (endStream) this.#onResponseEnded();
  }
  onBody(_attempt: Attempt, _chunk: Chunk, endStream: boolean): void {
    if (endStream) this.#onResponseEnded();
  }
  onTrailers(): void {
    this.#onResponseEnded();
  }
  onMalformed(): void {
    this.#charges.traffic.cxProtocolError.inc();
    this.#onFailed(FAILURE.protocolError);
  }
  onCut(_attempt: Attempt, reason: ResetReason): void {
    const isHttp1 = this.#isHttp1;
    const failure = ofCut(reason, this.#answered && isHttp1 && !this.#switched);
    if (failure === FAILURE.protocolError && isHttp1) this.#charges.traffic.cxProtocolError.inc();
    this.#onFailed(failure);
  }

  /** Mirrors have no limits for one try. */
  onTryTimeout(): void {}
  onStreamDuration(): void {}

  /** After its head the response has been counted already. */
  #onFailed(failure: UpstreamFailure): void {
    if (!this.#answered) {
      // An overflow of the cluster's circuit breaker is not the host's fault.
      if (failure !== FAILURE.overflow) this.#attempt.host?.onReset();
      if (!this.#informed) this.#count(failure.status);
    }
    this.#end();
  }

  #onTimeout(): void {
    this.#charges.traffic.rqTimeout.inc();
    this.#attempt.host?.onTimeout(this.#answered);
    if (!this.#answered) this.#count(504);
    this.giveUp();
  }

  /** As in Envoy, an answer that comes before the end of the request ends the exchange. */
  #onResponseEnded(): void {
    if (!this.#requestEnded) {
      this.giveUp();
      return;
    }
    if (this.#router.config.dynamic_stats)
      this.#charges.time(this.#router.cx.now() - this.#requestEndedAt, this, "");
    this.#attempt.complete();
    this.#attempt.endLog();
    this.#end();
  }

  #count(status: number): void {
    if (this.#router.config.dynamic_stats) this.#charges.response(status, this, "");
  }

  get zone(): string {
    return this.#attempt.host?.zone ?? "";
  }

  // ---- the end

  giveUp(): void {
    this.#end();
    this.#attempt.giveUp();
  }

  #end(): void {
    this.#over = true;
    this.#timer.cancel();
    this.#kept = undefined;
    this.#stream?.end();
    this.#router.mirrors.delete(this);
    this.#setFull(false);
  }
}
