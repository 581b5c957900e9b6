import {
  type Chunk,
  type Cluster,
  HeaderMap,
  type Host,
  headerName,
  type PoolCallbacks,
  type PoolFailure,
  type PoolHandle,
  type RequestEncoder,
  type RequestHeaders,
  type ResetReason,
  type ResponseDecoder,
  ResponseHeaders,
  type Timer,
} from "@tsproxy/sdk";
import { KeptBody } from "./kept-body.ts";
import { isNoHandshake } from "./local-replies.ts";
import type { MirrorOptions } from "./mirrors.ts";
import type { Router } from "./router.ts";
import type { Answered, ClusterCharges } from "./stats.ts";
import { FAILURE, NO_HOST, ofCut, ofPool, type UpstreamFailure } from "./upstream-failure.ts";

const CANARY = headerName("x-envoy-upstream-canary");

/**
 * One mirrored copy of a request: its head and body go out as they come, its response is counted and dropped.
 *
 *   begin ──> waits (the body is kept) ──> runs (`#encoder`) ──> over
 */
export class Mirror implements PoolCallbacks, ResponseDecoder, Answered {
  readonly responseHeaders = new ResponseHeaders();
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
  /** Called when `full` changes, until the request has ended. */
  #onFull: (() => void) | undefined = undefined;
  #kept: KeptBody | undefined = undefined;
  #requestEnded = false;
  #requestEndedAt = 0;
  #handle: PoolHandle | undefined = undefined;
  #encoder: RequestEncoder | undefined = undefined;
  #host: Host | undefined = undefined;
  #informed = false;
  #answered = false;
  #over = false;

  constructor(router: Router, cluster: Cluster, headers: RequestHeaders, options: MirrorOptions) {
    this.#router = router;
    this.#cluster = cluster;
    this.#charges = router.charges(cluster);
    this.#headers = headers;
    this.#options = options;
    this.#timer = router.cx.timer(() => this.#onTimeout());
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
    } else this.#handle = this.#cluster.newStream(this, { head: this.#headers });
  }

  #isTurnedAway(): boolean {
    const { dropOverload = 0 } = this.#cluster;
    return this.#charges.turnsAway() || (dropOverload > 0 && Math.random() < dropOverload);
  }

  // ---- the request

  body(chunk: Chunk, endStream: boolean): void {
    if (this.#over) return;
    if (endStream) this.#onRequestEnded();
    if (this.#encoder !== undefined) {
      this.#encoder.encodeBody(chunk.memory, chunk.at, chunk.end, endStream);
      return;
    }
    this.#kept ??= new KeptBody();
    this.#kept.add(chunk);
    if (this.#kept.size > this.#options.bufferLimit) this.#setFull(true);
  }

  trailers(trailers: HeaderMap): void {
    if (this.#over) return;
    this.#onRequestEnded();
    if (this.#encoder !== undefined) {
      this.#encoder.encodeTrailers(trailers);
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

  // ---- the connection

  get decoder(): ResponseDecoder {
    return this;
  }
  get zone(): string {
    return this.#host?.zone ?? "";
  }

  onPoolReady(encoder: RequestEncoder, host: Host): void {
    const kept = this.#kept;
    const ended = this.#requestEnded;
    const headOnly = ended && (kept === undefined || kept.empty);
    this.#handle = undefined;
    this.#kept = undefined;
    this.#encoder = encoder;
    this.#host = host;
    this.#setFull(false);
    encoder.encodeHeaders(this.#headers, headOnly, this.#options.upgrade);
    if (!headOnly) kept?.send(encoder, ended);
  }

  onPoolFailure({ reason, host }: PoolFailure): void {
    this.#host = host;
    if (reason === "no_host") {
      this.#count(NO_HOST.status);
      this.#end();
    } else this.#onFailed(ofPool(reason));
  }

  onUpstreamBlocked(blocked: boolean): void {
    this.#setFull(blocked);
  }

  // ---- the response

  /** As in Envoy, the first interim response is counted, if it is 100, 102 or 103. */
  onInformational({ status }: ResponseHeaders): void {
    if (this.#informed || (status !== 100 && status !== 102 && status !== 103)) return;
    this.#informed = true;
    this.#count(status);
  }

  onResponseHeaders(endStream: boolean): void {
    const { responseHeaders: headers } = this;
    const { status } = headers;
    if (this.#options.upgrade === "websocket" && isNoHandshake(headers, this.#encoder)) {
      this.giveUp();
      return;
    }
    this.#answered = true;
    this.canary =
      this.#host?.canary === true || (headers.has(CANARY) && headers.get(CANARY) === "true");
    this.#host?.onResponse(status);
    this.#count(status);
    if (endStream) this.#onResponseEnded();
  }
  onResponseBody(_chunk: unknown, endStream: boolean): void {
    if (endStream) this.#onResponseEnded();
  }
  onResponseTrailers(_trailers: HeaderMap): void {
    this.#onResponseEnded();
  }
  onDecodeError(): void {
    this.#charges.traffic.cxProtocolError.inc();
    this.#onFailed(FAILURE.protocolError);
  }
  onUpstreamReset(reason: ResetReason): void {
    const isHttp1 = this.#encoder?.protocol !== "HTTP/2";
    const inMessage = this.#answered && isHttp1 && this.responseHeaders.status !== 101;
    const failure = ofCut(reason, inMessage);
    if (failure === FAILURE.protocolError && isHttp1) this.#charges.traffic.cxProtocolError.inc();
    this.#onFailed(failure);
  }

  /** After its head the response has been counted already. */
  #onFailed(failure: UpstreamFailure): void {
    if (!this.#answered) {
      // An overflow of the cluster's circuit breaker is not the host's fault.
      if (failure !== FAILURE.overflow) this.#host?.onReset();
      this.#count(failure.status);
    }
    this.#end();
  }

  #onTimeout(): void {
    this.#charges.traffic.rqTimeout.inc();
    this.#host?.onTimeout(this.#answered);
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
    this.#end();
  }

  #count(status: number): void {
    if (this.#router.config.dynamic_stats) this.#charges.response(status, this, "");
  }

  // ---- the end

  giveUp(): void {
    const handle = this.#handle;
    const encoder = this.#encoder;
    this.#end();
    handle?.cancel();
    encoder?.reset();
  }

  #end(): void {
    this.#over = true;
    this.#timer.cancel();
    this.#handle = undefined;
    this.#encoder = undefined;
    this.#kept = undefined;
    this.#router.mirrors.delete(this);
    this.#setFull(false);
  }
}
