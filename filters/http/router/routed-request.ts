// Hot path: one object a request, reused. After a call that may end the stream no field is used: it may be another stream's then.
import {
  type BalancerContext,
  type Chunk,
  type Cluster,
  type HeaderMap,
  type Host,
  type HttpFilter,
  type HttpStream,
  headerName,
  isGrpcRequest,
  overrideHostOf,
  type PoolFailure,
  type Reply,
  type RequestEncoder,
  type RequestHeaders,
  type ResetReason,
  type ResponseHeaders,
  type Route,
  type RouteAction,
  type RoutePolicies,
  type Termination,
  type Timer,
  type TrackedStats,
  WISH,
} from "@tsproxy/sdk";
import type { Attempt, AttemptOwner } from "./attempt.ts";
import { Attempts } from "./attempts.ts";
import { hasOutcome, judgedStatus, wentWell } from "./grpc-outcome.ts";
import { redirectRequest } from "./internal-redirect.ts";
import { KeptBody } from "./kept-body.ts";
import {
  badHeaderReply,
  directReply,
  dropReply,
  isNoHandshake,
  maintenanceReply,
  NO_ROUTE,
  noClusterReply,
  streamDurationReply,
  TOO_LARGE,
  TOO_LARGE_TO_RETRY,
  timeoutReply,
  withoutBody,
} from "./local-replies.ts";
import { Mirrors } from "./mirrors.ts";
import { RequestCharges } from "./request-charges.ts";
import { RequestContext } from "./request-context.ts";
import { Retries } from "./retries.ts";
import type { Router } from "./router.ts";
import { badSteering, isSteeredByFilter, type Steering, takeSteering } from "./steering.ts";
import { Timeouts } from "./timeouts.ts";
import { percentOf, TrackedAttempt } from "./tracked-attempt.ts";
import { UpstreamChain } from "./upstream-chain.ts";
import {
  FAILURE,
  failureReply,
  NO_HOST,
  ofCut,
  ofPool,
  type UpstreamFailure,
} from "./upstream-failure.ts";
import { noteHost, noteUpstream } from "./upstream-info.ts";
import { LoggedAttempt } from "./upstream-log.ts";
import { WireSum } from "./wire-sum.ts";

const UPGRADE = headerName("upgrade");
const INTERNAL = headerName("x-envoy-internal");
const DEGRADED = headerName("x-envoy-degraded");
const IMMEDIATE_HEALTH_CHECK_FAIL = headerName("x-envoy-immediate-health-check-fail");
const SERVICE_TIME = headerName("x-envoy-upstream-service-time");
const ATTEMPT_COUNT = headerName("x-envoy-attempt-count");
const TIMEOUT_RETRY = headerName("x-envoy-is-timeout-retry");
const CANARY = headerName("x-envoy-upstream-canary");
const LOCATION = headerName("location");

/** Bytes of body that are kept before there is a connection. Reading is paused at once, so only what was on its way comes. */
const KEPT_LIMIT = 1024 * 1024;
const NOTHING_TO_CHOOSE_BY: BalancerContext = {};
const FROM_HTTP2: BalancerContext = { downstreamProtocol: "HTTP/2" };
const EMPTY = new Uint8Array(0);
/**
 * One request: where it goes, and what comes back.
 *
 *   head ──► route ──► cluster ──► attempt ··waits··► head and kept body sent ──► response passed on ──► end
 *              │                     ▲    └ failed, or a response to be retried ─┐
 *              │                     └────────────── back-off ◄──────────────────┘
 *              └ redirect, direct response, or a failure: answered here
 *
 * Only hedging has several attempts in progress: the first response that is not retried wins, and the others are given up.
 */
export class RoutedRequest implements HttpFilter, AttemptOwner {
  readonly #router: Router;
  readonly #timer: Timer;
  readonly #attempts: Attempts;
  readonly #retries: Retries;
  readonly #charges: RequestCharges;
  readonly #timeouts: Timeouts;
  #stream!: HttpStream;
  #headers!: RequestHeaders;
  #route: Route | undefined = undefined;
  #action: RouteAction | undefined = undefined;
  #policies: RoutePolicies | undefined = undefined;
  #cluster: Cluster | undefined = undefined;
  /** An interim response was passed on. */
  #hasInformed = false;
  /** A CONNECT (or POST) that this proxy terminates, and how. */
  #termination: Termination | undefined = undefined;
  #context: BalancerContext = NOTHING_TO_CHOOSE_BY;
  #upgrade = "";
  /** gRPC: the host is judged only when the trailers come. */
  #deferred = false;
  #tunnel = false;
  /** The upstream takes no more bytes for now. */
  #full = false;
  #responded = false;
  #requestEnded = false;
  #requestEndedAt = 0;
  /** Some attempt has been sent to an upstream. */
  #sent = false;
  /** The request's body is kept, as long as it may be needed again. */
  #keepsBody = false;
  #kept: KeptBody | undefined = undefined;
  /** The body was longer than may be kept, so no internal redirect is possible. */
  #keptTooMuch = false;
  /** Copies for mirrors that take the request as it comes. */
  #mirrors: Mirrors | undefined = undefined;

  constructor(router: Router) {
    this.#router = router;
    this.#timer = router.cx.timer(() => this.#onTimeout());
    this.#attempts = new Attempts(this, router.cx);
    this.#retries = new Retries(this.#attempts);
    this.#charges = new RequestCharges(router);
    this.#timeouts = new Timeouts(router);
  }

  begin(stream: HttpStream): void {
    this.#stream = stream;
    this.#headers = stream.request;
    this.#route = undefined;
    this.#action = undefined;
    this.#policies = undefined;
    this.#cluster = undefined;
    this.#termination = undefined;
    this.#hasInformed = false;
    this.#context = stream.info.protocol === "HTTP/2" ? FROM_HTTP2 : NOTHING_TO_CHOOSE_BY;
    this.#tunnel = this.#full = this.#responded = this.#deferred = false;
    this.#requestEnded = this.#sent = this.#keepsBody = false;
    this.#upgrade = "";
    this.#retries.begin(stream);
    this.#kept = undefined;
    this.#keptTooMuch = false;
    this.#mirrors = undefined;
  }

  // ---- the request

  onRequestHeaders(headers: RequestHeaders, endStream: boolean): Reply | undefined {
    const { stats, config } = this.#router;
    stats.rqTotal.inc();
    const route = this.#stream.route;
    if (route === undefined) {
      stats.noRoute.inc();
      return NO_ROUTE;
    }
    this.#route = route;
    const { action } = route;
    if (action.type !== "route") {
      stats.rqDirectResponse.inc();
      this.#answer(directReply(action, headers, this.#stream, config.suppress_envoy_headers));
      return undefined;
    }
    const cluster = this.#clusterOf(action);
    if (cluster === undefined) {
      stats.noCluster.inc();
      this.#answer(noClusterReply(action.clusterNotFoundStatus));
      return undefined;
    }
    if (config.strict_check_headers.length > 0) {
      const bad = badSteering(headers, config.strict_check_headers);
      if (bad !== undefined) return badHeaderReply(bad.name, bad.value);
    }
    this.#forward(cluster, action, headers, endStream);
    return undefined;
  }

  #clusterOf(action: RouteAction): Cluster | undefined {
    return action.cluster === undefined ? undefined : this.#router.cx.clusters.get(action.cluster);
  }

  #forward(
    cluster: Cluster,
    action: RouteAction,
    headers: RequestHeaders,
    endStream: boolean,
  ): void {
    this.#cluster = cluster;
    this.#stream.info.virtualCluster = this.#route!.virtualCluster?.(headers);
    this.#charges.open(cluster, action, this.#stream);
    this.#charges.internal = headers.has(INTERNAL);
    if (this.#turnsAway(cluster)) return;
    this.#action = action;
    const { termination } = action;
    const ends = headers.method === "CONNECT" || (termination?.ofPost && headers.method === "POST");
    this.#termination = ends ? termination : undefined;
    this.#policies = action.policies;
    // Before the route edits the headers, which may contain the number of attempts.
    this.#retries.next();
    const steering = this.#prepareHead(cluster, action, headers);
    if (action.policies !== undefined || steering?.retryOn !== undefined) {
      this.#applyPolicies(cluster, action.policies, steering);
    }
    if (cluster.choosesByStream === true) this.#requestContext();
    if (this.#stream.hasFilterState !== false) this.#overrideHost();
    if (endStream) this.#onRequestEnded();
    else if (this.#upgrade !== "") this.#startTimeouts();
    if (this.#mirrors === undefined) this.#beginAttempt(cluster, endStream);
    else this.#beginMirrored(this.#mirrors, cluster, endStream);
  }

  /** Begins the first attempt, and after it, as in Envoy, the copies for mirrors. */
  #beginMirrored(mirrors: Mirrors, cluster: Cluster, endStream: boolean): void {
    const options = {
      upgrade: this.#upgrade,
      timeoutMs: this.#timeouts.totalMs,
      bufferLimit: this.#bufferLimit,
      metadataMatch: this.#context.metadataMatch,
    };
    this.#beginAttempt(cluster, endStream);
    // A request that has failed already is not mirrored; `this` may serve another one.
    if (this.#mirrors !== mirrors) return;
    if (endStream) this.#mirrors = undefined;
    mirrors.begin(options, endStream ? undefined : () => this.#updatePause());
  }

  /** Begins the current attempt. Callers touch no field after it: the request may be over. */
  #beginAttempt(cluster: Cluster, headOnly: boolean): void {
    const { responder } = this.#stream;
    const ended = this.#requestEnded;
    const attempt = this.#attempts.current;
    if (!attempt.begin(cluster, this.#context, this.#tcpHeader())) return;
    // As in Envoy, a request that ends while it waits for a connection is logged with the host it waits for.
    const host = attempt.awaitedHost;
    if (host !== undefined) noteHost(this.#stream.info, host);
    if (!ended) responder.pauseRequest(true);
    attempt.beginFilters(this.#headers, headOnly);
  }

  /** What a TCP connection to the upstream begins with; undefined: the exchange is one of HTTP. */
  #tcpHeader(): Uint8Array | undefined {
    if (this.#termination === undefined) return undefined;
    const { downstreamConnection: client } = this.#stream;
    return client === undefined ? EMPTY : (this.#termination.header?.of(client) ?? EMPTY);
  }

  /** Answers a request that the cluster's maintenance mode or `drop_overloads` turns away. True: this one is. */
  #turnsAway({ dropOverload = 0 }: Cluster): boolean {
    const quiet = this.#router.config.suppress_envoy_headers;
    let answer: Reply;
    if (this.#charges.cluster.turnsAway()) answer = maintenanceReply(quiet);
    else if (dropOverload >= 1) answer = dropReply(true, quiet);
    else if (dropOverload > 0 && Math.random() < dropOverload) answer = dropReply(false, quiet);
    else return false;
    this.#charges.response(answer.status, undefined);
    this.#answer(answer);
    return true;
  }

  /** Takes over the host that a filter before the router asks for (`WISH.UPSTREAM_HOST`). */
  #overrideHost(): void {
    const wanted = overrideHostOf(this.#stream.filterState.get(WISH.UPSTREAM_HOST));
    if (wanted !== undefined) this.#requestContext().overrideHost = wanted;
  }

  #requestContext(): RequestContext {
    if (this.#context instanceof RequestContext) return this.#context;
    const context = new RequestContext(this.#policies, this.#stream, () => this.#retries.choice);
    this.#context = context;
    return context;
  }

  /** Edits the head for the upstream, except for what depends on the host. Undefined: no header steers the request. */
  #prepareHead(
    cluster: Cluster,
    action: RouteAction,
    headers: RequestHeaders,
  ): Steering | undefined {
    const { config } = this.#router;
    const { policies } = action;
    const suppress = config.suppress_envoy_headers;
    let steering: Steering | undefined;
    if (this.#charges.internal || isSteeredByFilter(headers)) {
      steering = takeSteering(headers, config.respect_expected_rq_timeout);
      this.#charges.altName = steering.altStatName;
    }
    if (headers.has(UPGRADE)) this.#upgrade = (headers.get(UPGRADE) ?? "").toLowerCase();
    this.#timeouts.begin(cluster, action, steering, headers);
    if (config.suppress_grpc_request_failure_code_stats)
      this.#charges.withoutCode = isGrpcRequest(headers);
    if (policies?.attemptCountInRequest) headers.replace(ATTEMPT_COUNT, "1");
    this.#route!.editRequest(headers, this.#stream.info, this.#stream);
    action.rewrite(headers, !suppress, this.#stream);
    return steering;
  }

  #applyPolicies(
    cluster: Cluster,
    policies: RoutePolicies | undefined,
    steering: Steering | undefined,
  ): void {
    if (policies?.retry !== undefined || steering?.retryOn !== undefined) {
      this.#keepsBody = this.#retries.allow({
        cx: this.#router.cx,
        cluster,
        priority: policies?.priority ?? "default",
        stats: this.#charges.cluster.retries,
        also: this.#charges.also,
        policy: policies?.retry,
        steering,
        headers: this.#headers,
        onDue: () => this.#onRetryDue(),
      });
    }
    if (policies !== undefined) {
      if (policies.internalRedirect !== undefined) this.#keepsBody = true;
      if (policies.mirrors.length > 0 && this.#headers.method !== "CONNECT") {
        const mirrors = new Mirrors(this.#router, policies.mirrors, this.#stream);
        if (!mirrors.empty) this.#mirrors = mirrors;
      }
    }
    this.#requestContext();
  }

  onRequestBody(chunk: Chunk, endStream: boolean): void {
    const attempt = this.#attempts.current;
    if (this.#keepsBody && !this.#keepForRetries(chunk)) return;
    if (endStream) this.#onRequestEnded();
    if (this.#mirrors !== undefined) this.#mirrorBody(this.#mirrors, chunk, endStream);
    const { encoder } = attempt;
    if (encoder !== undefined) {
      attempt.touch();
      attempt.logged?.onSent(chunk.length, endStream);
      attempt.tracked?.onSent(chunk.length);
      encoder.encodeBody(chunk.memory, chunk.at, chunk.end, endStream);
    } else if (attempt.waiting && !this.#keepsBody) this.#keep(chunk);
  }

  #mirrorBody(mirrors: Mirrors, chunk: Chunk, endStream: boolean): void {
    // From here on the copies go on without the request.
    if (endStream) this.#mirrors = undefined;
    mirrors.body(chunk, endStream);
  }

  onRequestTrailers(trailers: HeaderMap): void {
    const { encoder, waiting } = this.#attempts.current;
    this.#mirrors?.trailers(trailers);
    this.#mirrors = undefined;
    if (this.#keepsBody || waiting) {
      trailers.detach();
      this.#kept ??= new KeptBody();
      this.#kept.trailers = trailers;
    }
    this.#onRequestEnded();
    encoder?.encodeTrailers(trailers);
  }

  #keep(chunk: Chunk): void {
    this.#kept ??= new KeptBody();
    this.#kept.add(chunk);
    if (this.#kept.size <= KEPT_LIMIT) return;
    this.#giveUp();
    this.#answer(TOO_LARGE);
  }

  get #bufferLimit(): number {
    const limit = this.#policies?.bufferLimit ?? this.#stream.bodyLimit ?? KEPT_LIMIT;
    return Math.min(KEPT_LIMIT, limit);
  }

  /** Keeps a chunk of body. Beyond the limit no more retries follow; false: one was due, so the request was answered 507. */
  #keepForRetries(chunk: Chunk): boolean {
    this.#kept ??= new KeptBody();
    if (this.#kept.size + chunk.length <= this.#bufferLimit) {
      this.#kept.add(chunk);
      return true;
    }
    this.#charges.cluster.retries.abandoned.inc();
    this.#keepsBody = false;
    this.#keptTooMuch = true;
    this.#retries.end();
    const { current } = this.#attempts;
    if (current.over && !this.#responded) {
      this.#giveUp();
      this.#answer(TOO_LARGE_TO_RETRY);
      return false;
    }
    if (current.encoder !== undefined) this.#kept = undefined;
    return true;
  }

  #onRequestEnded(): void {
    this.#requestEnded = true;
    const { info } = this.#stream;
    if (this.#upgrade === "") this.#startTimeouts();
    else this.#requestEndedAt = this.#router.cx.now();
    if (this.#sent) info.upstreamTxEnd = this.#requestEndedAt - (info.startedAt ?? 0);
  }

  /**
   * Starts the time that the upstream has: at the end of the request, or with the head of one that asks for an upgrade, as a
   * tunnel's end is nobody's to wait for.
   */
  #startTimeouts(): void {
    this.#requestEndedAt = this.#router.cx.now();
    const { totalMs } = this.#timeouts;
    if (totalMs > 0) this.#timer.arm(totalMs);
    const { current } = this.#attempts;
    if (current.encoder !== undefined) this.#timeouts.startTry(current);
  }

  // ---- how an attempt goes

  logAttempt(cluster: Cluster): LoggedAttempt | undefined {
    const { upstreamLog } = this.#router;
    return upstreamLog && new LoggedAttempt(upstreamLog, this.#stream, cluster);
  }

  upstreamChain(attempt: Attempt, cluster: Cluster): UpstreamChain | undefined {
    const filters = cluster.httpFilters ?? this.#router.upstreamFilters;
    return filters && new UpstreamChain(attempt, this.#stream, filters);
  }

  /** An upstream filter answers: all attempts are given up. */
  onLocalReply(_attempt: Attempt, reply: Reply): void {
    this.#giveUp();
    this.#conclude(reply);
  }

  onFilterError(error: unknown, filter: string): void {
    this.#router.onFilterError(error, filter);
  }

  trackAttempt(cluster: Cluster, tracks: TrackedStats): TrackedAttempt {
    const startedAt = this.#router.cx.now();
    const { perTryMs } = this.#timeouts;
    return new TrackedAttempt(cluster, tracks, this.#headers, { startedAt, perTryMs });
  }

  onReady(attempt: Attempt, encoder: RequestEncoder, host: Host): void {
    const { info } = this.#stream;
    this.#noteExchange(attempt);
    const before = info.upstreamWire;
    const wire = before === undefined ? encoder : new WireSum(before, encoder);
    info.upstreamWire = wire;
    attempt.logged?.onReady(encoder, host, attempt.connection!, wire);
    info.upstreamProtocol =
      this.#termination === undefined ? (encoder.protocol ?? "HTTP/1.1") : undefined;
    this.#sent = true;
    this.#charges.sent();
    this.#timeouts.onReady(attempt, this.#requestEnded || this.#upgrade !== "");
    this.#retries.onHostAttempted(host);
    const headers = this.#headers;
    const action = this.#action!;
    if (action.autoHostRewrite && host.hostname !== "")
      action.rewriteHost?.(headers, host.hostname, !this.#router.config.suppress_envoy_headers);
    if (this.#stream.schemeMatchesUpstream === true)
      headers.scheme = info.upstreamTls === undefined ? "http" : "https";
    const kept = this.#kept;
    const ended = this.#requestEnded;
    const headOnly = ended && (kept === undefined || kept.empty);
    if (!this.#keepsBody) this.#kept = undefined;
    const body = headOnly || kept === undefined ? 0 : kept.size;
    attempt.logged?.onSent(body, ended);
    attempt.tracked?.onSent(body);
    encoder.encodeHeaders(headers, headOnly, this.#upgrade);
    if (kept !== undefined && !headOnly) kept.send(encoder, ended);
    if (!headOnly) this.#updatePause();
  }

  /** Notes the host and the connection of an attempt that has one, and when it was sent what there was of the request. */
  #noteExchange(attempt: Attempt): void {
    const { info } = this.#stream;
    const { connection, host, readyAt, begunAt } = attempt;
    const startedAt = info.startedAt ?? 0;
    noteUpstream(info, host!, connection!, startedAt);
    info.upstreamTxBegin = readyAt - startedAt;
    info.upstreamPoolReady = readyAt - begunAt;
    if (this.#requestEnded)
      info.upstreamTxEnd = Math.max(readyAt, this.#requestEndedAt) - startedAt;
  }

  onNoConnection(attempt: Attempt, failure: PoolFailure): void {
    const { info } = this.#stream;
    const { host, reason, transportFailure } = failure;
    if (host !== undefined) {
      noteHost(info, host);
      this.#retries.onHostAttempted(host);
    }
    info.upstreamTransportFailure = transportFailure;
    if (reason === "no_host") {
      this.#retries.end();
      this.#charges.response(NO_HOST.status, undefined);
      this.#conclude(NO_HOST);
    } else {
      info.upstreamPoolReady = this.#router.cx.now() - attempt.begunAt;
      this.#onFailed(attempt, ofPool(reason), transportFailure);
    }
  }

  onInformational(attempt: Attempt, headers: ResponseHeaders): void {
    // As in Envoy, only the first interim response is passed on, if it is 100, 102 or 103.
    const { status } = headers;
    if (this.#hasInformed || (status !== 100 && status !== 102 && status !== 103)) return;
    this.#hasInformed = true;
    // A request that its upstream has begun to answer is not retried.
    this.#charges.response(status, attempt.host);
    this.#retries.end();
    this.#keepsBody &&= this.#policies?.internalRedirect !== undefined;
    this.#win(attempt);
    this.#stream.responder.sendInformational(headers);
  }

  onHead(attempt: Attempt, headers: ResponseHeaders, endStream: boolean): void {
    const { info, responder } = this.#stream;
    const router = this.#router;
    attempt.endTry();
    if (this.#upgrade === "websocket" && isNoHandshake(headers, attempt.encoder)) {
      // For logs the upstream has answered, though the answer that is sent is a local reply.
      info.responseDuration = router.cx.now() - (info.startedAt ?? 0);
      this.#giveUp();
      this.#conclude(withoutBody(headers));
      return;
    }
    if (this.#retries.possible && this.#retriesHead(attempt, headers, endStream)) return;
    if (this.#policies?.internalRedirect !== undefined && this.#redirects(attempt, headers)) return;
    this.#win(attempt);
    this.#retries.end();
    this.#keepsBody = false;
    this.#responded = true;
    this.#tunnel = headers.status === 101;
    const host = attempt.host!;
    this.#charges.canary =
      host.canary === true || (headers.has(CANARY) && headers.get(CANARY) === "true");
    if (this.#isGrpc()) {
      this.#deferred = !endStream && headers.status < 500;
      const isLost = endStream && !hasOutcome(headers);
      host.onResponse(judgedStatus(headers), isLost, this.#deferred);
    } else host.onResponse(headers.status);
    if (host.onImmediateHealthCheckFail !== undefined && headers.has(IMMEDIATE_HEALTH_CHECK_FAIL))
      host.onImmediateHealthCheckFail();
    if (host.onDegraded !== undefined && headers.has(DEGRADED) && this.#judgedStatus(headers) < 500)
      host.onDegraded();
    info.responseCode = headers.status;
    info.responseCodeDetails = "via_upstream";
    if (this.#requestEnded && !router.config.suppress_envoy_headers) {
      const line = router.serviceTimeLine(router.cx.now() - this.#requestEndedAt);
      if (headers.has(SERVICE_TIME)) headers.replace(SERVICE_TIME, line.value);
      else headers.appendLine(line);
    }
    if (this.#tunnel) this.#timer.cancel();
    this.#charges.response(headers.status, host);
    if (this.#context instanceof RequestContext) this.#context.addCookies(headers);
    this.#route!.editResponse(headers, info, this.#headers, this.#stream);
    if (this.#policies?.attemptCountInResponse)
      headers.replace(ATTEMPT_COUNT, String(this.#retries.attempt));
    if (endStream) this.#onResponseEnded();
    responder.sendHeaders(headers, endStream);
  }

  /** The response of this attempt goes on; others are given up, and what was noted of a later one is put right. */
  #win(attempt: Attempt): void {
    const isLast = attempt === this.#attempts.current;
    this.#attempts.keepOnly(attempt);
    if (!isLast) this.#noteExchange(attempt);
  }

  #isGrpc(): boolean {
    return isGrpcRequest(this.#headers);
  }

  #judgedStatus(headers: ResponseHeaders): number {
    return this.#isGrpc() ? judgedStatus(headers) : headers.status;
  }

  /** True: the response is dropped, because a retry follows or another attempt may still answer. */
  #retriesHead(attempt: Attempt, headers: ResponseHeaders, endStream: boolean): boolean {
    const verdict = this.#retries.onHead(attempt, headers);
    if (verdict === "no") return false;
    const host = attempt.host!;
    if (verdict === "others") {
      host.onResponse(this.#judgedStatus(headers));
      attempt.giveUp();
      this.#attempts.forget(attempt);
      return true;
    }
    host.onResponse(this.#judgedStatus(headers), true);
    this.#charges.cluster.retries.retried(headers.status, this.#charges.withoutCode);
    if (endStream && this.#requestEnded) {
      attempt.complete();
      attempt.endLog();
    } else attempt.giveUp();
    this.#full = false;
    return true;
  }

  /** Follows an internal redirect. True: the request has begun anew elsewhere, and this object may serve another one already. */
  #redirects(attempt: Attempt, headers: ResponseHeaders): boolean {
    const policy = this.#policies!.internalRedirect!;
    if (!policy.statuses.includes(headers.status)) return false;
    const { responder } = this.#stream;
    const { retries } = this.#charges.cluster;
    const possible = this.#requestEnded && !this.#keptTooMuch && headers.has(LOCATION);
    const turn =
      possible && responder.recreate !== undefined
        ? redirectRequest(policy, this.#stream, headers, this.#router.stats)
        : undefined;
    if (turn === undefined) {
      retries.redirectFailed.inc();
      return false;
    }
    const body = turn.dropsBody ? undefined : this.#kept?.bytes();
    attempt.host!.onResponse(headers.status);
    headers.detach();
    retries.redirectSucceeded.inc();
    responder.recreate!(headers, body ?? EMPTY);
    return true;
  }

  onBody(attempt: Attempt, chunk: Chunk, endStream: boolean): void {
    if (endStream) {
      // As in Envoy, a gRPC response that ends without trailers is an error of the host.
      if (this.#deferred) attempt.host?.onDeferredEnd?.(false);
      this.#onResponseEnded();
    }
    this.#stream.responder.sendBody(chunk.memory, chunk.at, chunk.end, endStream);
  }

  onTrailers(attempt: Attempt, trailers: HeaderMap): void {
    if (this.#deferred) attempt.host?.onDeferredEnd?.(wentWell(trailers));
    this.#onResponseEnded();
    this.#stream.responder.sendTrailers(trailers);
  }

  #onResponseEnded(): void {
    this.#timer.cancel();
    const { info } = this.#stream;
    info.upstreamRxEnd = this.#router.cx.now() - (info.startedAt ?? 0);
    if (!this.#requestEnded) return;
    this.#attempts.current.complete();
    this.#noteBudget();
    this.#charges.time(this.#router.cx.now() - this.#requestEndedAt);
  }

  /** Records how much of its timeout the request has used, in percent. */
  #noteBudget(): void {
    const cluster = this.#cluster!;
    if (cluster.tracks?.timeoutBudgets !== true) return;
    const percent = percentOf(this.#router.cx.now() - this.#requestEndedAt, this.#timeouts.totalMs);
    cluster.stats.histogram("upstream_rq_timeout_budget_percent_used").record(percent);
  }

  onMalformed(attempt: Attempt): void {
    this.#charges.cluster.traffic.cxProtocolError.inc();
    this.#onFailed(attempt, FAILURE.protocolError, "");
  }

  onCut(attempt: Attempt, reason: ResetReason): void {
    const isHttp1 = this.#stream.info.upstreamProtocol !== "HTTP/2";
    const inMessage =
      this.#responded && isHttp1 && !this.#tunnel && this.#termination === undefined;
    const failure = ofCut(reason, inMessage);
    // Over HTTP/1 it is the connection's error; HTTP/2 counts its own, and a stream alone may break the protocol there.
    if (failure === FAILURE.protocolError && isHttp1)
      this.#charges.cluster.traffic.cxProtocolError.inc();
    this.#onFailed(attempt, failure, "");
  }

  onFull(attempt: Attempt, full: boolean): void {
    if (attempt !== this.#attempts.current) return;
    this.#full = full;
    this.#updatePause();
  }

  /** The request is paused while it waits for a connection, and while the upstream or a mirror takes no more. */
  #updatePause(): void {
    const pause = this.#attempts.current.waiting || this.#full || this.#mirrors?.full === true;
    this.#stream.responder.pauseRequest(pause);
  }

  #onFailed(attempt: Attempt, failure: UpstreamFailure, transport: string): void {
    if (this.#responded) {
      this.#timer.cancel();
      if (this.#deferred) {
        attempt.host?.onDeferredEnd?.(false);
        this.#router.stats.rqResetAfterDownstreamResponseStarted.inc();
      }
      const reason = failure.text.replaceAll(" ", "_");
      const details = `upstream_reset_after_response_started{${reason}}`;
      this.#stream.responder.reset(details, failure.flag);
      return;
    }
    // An overflow of the cluster's circuit breaker is not the host's fault.
    if (failure !== FAILURE.overflow) attempt.host?.onReset();
    if (this.#retriesFailure(attempt, failure, false)) return;
    this.#router.failures.note(this.#stream.info.clusterName, attempt.host, failure, transport);
    this.#chargeFailure(failure.status, attempt);
    if (this.#retries.othersMayAnswer(attempt)) {
      this.#attempts.forget(attempt);
      return;
    }
    const quiet = this.#router.config.suppress_envoy_headers;
    this.#conclude(
      failureReply(failure, transport, {
        quiet,
        retried: this.#retries.attempt > 1,
        informed: this.#hasInformed,
      }),
    );
  }

  /** As in Envoy, an interim response that was passed on begins the response: its status is the one that counts. */
  #chargeFailure(status: number, { host }: Attempt): void {
    if (!this.#hasInformed) this.#charges.response(status, host);
  }

  #onTimeout(): void {
    for (const attempt of this.#attempts.inProgress()) {
      this.#charges.timedOut();
      attempt.host?.onTimeout(this.#responded, attempt.slow);
      if (this.#responded) continue;
      this.#chargeFailure(this.#timeouts.quiet ? 204 : 504, attempt);
    }
    this.#noteBudget();
    this.#giveUp();
    if (this.#responded) this.#stream.responder.reset("response_timeout", "UT");
    else this.#conclude(timeoutReply("response_timeout", this.#timeouts.quiet));
  }

  onTryTimeout(attempt: Attempt, idle: boolean): void {
    if (this.#responded && !idle) return;
    attempt.logged?.flag(idle ? "SI" : "UT");
    if (this.#timeouts.hedges) {
      this.#hedge(attempt);
      return;
    }
    const { retries } = this.#charges.cluster;
    (idle ? retries.perTryIdleTimeout : retries.perTryTimeout).inc();
    const details = idle ? "upstream_per_try_idle_timeout" : "upstream_per_try_timeout";
    attempt.giveUp();
    if (this.#responded) {
      this.#timer.cancel();
      this.#stream.responder.reset(details, "UT");
      return;
    }
    attempt.host?.onTimeout();
    if (this.#retriesFailure(attempt, FAILURE.localReset, true)) return;
    this.#chargeFailure(this.#timeouts.quiet ? 204 : 504, attempt);
    this.#noteBudget();
    this.#giveUp();
    this.#conclude(timeoutReply(details, this.#timeouts.quiet));
  }

  onStreamDuration(attempt: Attempt): void {
    this.#charges.cluster.retries.maxDurationReached.inc();
    const details = "upstream_max_stream_duration_reached";
    attempt.giveUp();
    if (this.#responded) {
      this.#timer.cancel();
      this.#stream.responder.reset(details, "UMSDR");
      return;
    }
    if (this.#retriesFailure(attempt, FAILURE.localReset, false)) return;
    this.#giveUp();
    this.#conclude(streamDurationReply(details, this.#requestEnded));
  }

  // ---- retries

  /** Decides whether a failed attempt is retried. True: another attempt follows. */
  #retriesFailure(attempt: Attempt, failure: UpstreamFailure, timedOut: boolean): boolean {
    const retries = this.#retries.onFailure(attempt, failure, this.#sent, timedOut);
    if (retries) this.#full = false;
    return retries;
  }

  /** Schedules another attempt beside a slow one, which goes on. */
  #hedge(attempt: Attempt): void {
    attempt.slow = true;
    attempt.host?.onSlow?.();
    if (this.#retries.hedge(attempt)) this.#full = false;
  }

  #onRetryDue(): void {
    const retries = this.#retries;
    retries.next();
    const headers = this.#headers;
    const policies = this.#policies;
    if (policies?.attemptCountInRequest) headers.replace(ATTEMPT_COUNT, String(retries.attempt));
    if (policies?.timeoutRetryInRequest) headers.set(TIMEOUT_RETRY, String(retries.afterTimeout));
    const elapsed = this.#requestEnded ? this.#router.cx.now() - this.#requestEndedAt : 0;
    this.#timeouts.tell(headers, elapsed);
    const cluster = this.#clusterOf(this.#action!);
    if (cluster === undefined) {
      this.#charges.response(NO_HOST.status, undefined);
      this.#giveUp();
      this.#conclude(NO_HOST);
      return;
    }
    this.#attempts.next();
    if (this.#context instanceof RequestContext) this.#context.next();
    this.#beginAttempt(cluster, this.#requestEnded && (this.#kept?.empty ?? true));
  }

  // ---- the client

  onResponseBlocked(blocked: boolean): void {
    const { encoder } = this.#attempts.current;
    if (encoder === undefined) return;
    this.#charges.cluster.responseBlocked(blocked);
    encoder.pauseReading(blocked);
  }

  onReset(): void {
    this.#giveUp();
  }

  onEnd(): void {
    this.#giveUp();
    this.#router.giveBack(this);
  }

  #giveUp(): void {
    this.#timer.cancel();
    this.#retries.end();
    this.#attempts.giveUp();
    if (this.#mirrors === undefined) return;
    // The rest of the request does not come.
    this.#mirrors.giveUp();
    this.#mirrors = undefined;
  }

  // ---- answers of our own

  /** Stops the timeout and answers the request. */
  #conclude(answer: Reply): void {
    this.#timer.cancel();
    this.#answer(answer);
  }

  #answer(answer: Reply): void {
    const { responder } = this.#stream;
    if (!this.#policies?.attemptCountInResponse) {
      responder.sendReply(answer, this.#route);
      return;
    }
    const count = [ATTEMPT_COUNT.text, String(this.#retries.attempt)] as const;
    responder.sendReply({ ...answer, headers: [...answer.headers, count] }, this.#route);
  }
}
