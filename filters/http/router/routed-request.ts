// Hot path: one a request. Nothing of an object is touched after a call that may end its stream: it may serve another by then.
import {
  type Chunk,
  type Cluster,
  type Connection,
  type DirectResponseAction,
  type HeaderMap,
  type Host,
  type HttpFilter,
  type HttpStream,
  headerName,
  type PoolFailure,
  type RedirectAction,
  type Reply,
  type RequestEncoder,
  type RequestHeaders,
  type ResetReason,
  type ResponseHeaders,
  type Route,
  type RouteAction,
  reply,
  type Timer,
} from "@tsproxy/sdk";
import { Attempt, type AttemptOwner } from "./attempt.ts";
import type { Router } from "./router.ts";
import type { ClusterCharges } from "./stats.ts";
import { takeSteering } from "./steering.ts";
import {
  FAILURE,
  failureReply,
  NO_HOST,
  ofPool,
  ofReset,
  type UpstreamFailure,
} from "./upstream-failure.ts";

const UPGRADE = headerName("upgrade");
const INTERNAL = headerName("x-envoy-internal");
const EXPECTED_TIMEOUT = headerName("x-envoy-expected-rq-timeout-ms");
const ORIGINAL_HOST = headerName("x-envoy-original-host");
const SERVICE_TIME = headerName("x-envoy-upstream-service-time");

const NO_ROUTE = reply(404, { flags: ["NR"], details: "route_not_found" });
const TOO_LARGE = reply(413, {
  body: "Payload Too Large",
  details: "request_payload_too_large",
});
const EMPTY = new Uint8Array(0);
/** Body that may come before there is a connection; reading is paused at once, so this is what was on its way. */
const KEPT_LIMIT = 1024 * 1024;

/**
 * One request: where it goes, and what comes back.
 *
 *   head ──► route ──► cluster ──► attempt ··waits··► head and kept body sent ──► response passed on ──► end
 *              └ redirect, direct response, or a failure: answered here
 */
export class RoutedRequest implements HttpFilter {
  readonly #router: Router;
  readonly #timer: Timer;
  readonly #attempt: Attempt;
  #stream!: HttpStream;
  #headers!: RequestHeaders;
  #route: Route | undefined = undefined;
  #action: RouteAction | undefined = undefined;
  #charges: ClusterCharges | undefined = undefined;
  #internal = false;
  #upgrade = "";
  #tunnel = false;
  /** The upstream does not take more. */
  #full = false;
  #responded = false;
  #requestEnded = false;
  #requestEndedAt = 0;
  #timeoutMs = 0;
  #quietTimeout = false;
  #kept: Uint8Array[] | undefined = undefined;
  #keptSize = 0;
  #keptTrailers: HeaderMap | undefined = undefined;

  constructor(router: Router) {
    this.#router = router;
    this.#timer = router.cx.timer(() => this.#onTimeout());
    this.#attempt = new Attempt(this.#attemptOwner());
  }

  begin(stream: HttpStream): void {
    this.#stream = stream;
    this.#headers = stream.request;
    this.#route = undefined;
    this.#action = undefined;
    this.#charges = undefined;
    this.#internal = this.#tunnel = this.#full = this.#responded = false;
    this.#requestEnded = this.#quietTimeout = false;
    this.#upgrade = "";
    this.#kept = undefined;
    this.#keptSize = 0;
    this.#keptTrailers = undefined;
  }

  // ---- the request

  onRequestHeaders(headers: RequestHeaders, endStream: boolean): Reply | undefined {
    const { stats } = this.#router;
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
      this.#answer(directReply(action, headers));
      return undefined;
    }
    const cluster =
      action.cluster === undefined ? undefined : this.#router.cx.clusters.get(action.cluster);
    if (cluster === undefined) {
      stats.noCluster.inc();
      this.#stream.info.clusterName = "";
      const details = "cluster_not_found";
      this.#answer(reply(action.clusterNotFoundStatus, { flags: ["NC"], details }));
      return undefined;
    }
    this.#forward(cluster, action, headers, endStream);
    return undefined;
  }

  #forward(
    cluster: Cluster,
    action: RouteAction,
    headers: RequestHeaders,
    endStream: boolean,
  ): void {
    this.#action = action;
    this.#charges = this.#router.charges(cluster);
    this.#prepareHead(action, headers);
    this.#stream.info.attempts = 1;
    if (endStream) this.#onRequestEnded();
    const { responder } = this.#stream;
    if (this.#attempt.begin(cluster) && !endStream) responder.pauseRequest(true);
  }

  /** The head as the upstream gets it, but for what only its host tells. */
  #prepareHead(action: RouteAction, headers: RequestHeaders): void {
    const suppress = this.#router.config.suppress_envoy_headers;
    this.#timeoutMs = action.timeoutMs;
    this.#internal = headers.has(INTERNAL);
    if (this.#internal) {
      const steering = takeSteering(headers);
      this.#timeoutMs = steering.timeoutMs ?? this.#timeoutMs;
      this.#quietTimeout = steering.quietTimeout;
      headers.remove(EXPECTED_TIMEOUT);
    }
    if (headers.has(UPGRADE)) this.#upgrade = (headers.get(UPGRADE) ?? "").toLowerCase();
    if (this.#timeoutMs > 0 && !suppress) {
      headers.appendLine(this.#router.expectedTimeoutLine(this.#timeoutMs));
    }
    this.#route!.editRequest(headers, this.#stream.info, this.#stream);
    action.rewrite(headers, !suppress);
  }

  onRequestBody(chunk: Chunk, endStream: boolean): void {
    if (endStream) this.#onRequestEnded();
    const { encoder } = this.#attempt;
    if (encoder !== undefined) {
      encoder.encodeBody(chunk.memory, chunk.at, chunk.end, endStream);
    } else if (this.#attempt.waiting) this.#keep(chunk);
  }

  onRequestTrailers(trailers: HeaderMap): void {
    this.#onRequestEnded();
    const { encoder } = this.#attempt;
    if (encoder !== undefined) encoder.encodeTrailers(trailers);
    else if (this.#attempt.waiting) {
      trailers.detach();
      this.#keptTrailers = trailers;
    }
  }

  #keep(chunk: Chunk): void {
    this.#keptSize += chunk.length;
    if (this.#keptSize > KEPT_LIMIT) {
      this.#giveUp();
      this.#answer(TOO_LARGE);
      return;
    }
    this.#kept ??= [];
    if (chunk.length > 0) this.#kept.push(chunk.copy());
  }

  /** From here on the upstream's time counts. A tunnel has no end that anybody waits for. */
  #onRequestEnded(): void {
    this.#requestEnded = true;
    this.#requestEndedAt = this.#router.cx.now();
    if (this.#timeoutMs > 0 && !this.#tunnel) this.#timer.arm(this.#timeoutMs);
  }

  // ---- how the attempt goes

  #attemptOwner(): AttemptOwner {
    return {
      onReady: (encoder, host, connection) => this.#onReady(encoder, host, connection),
      onNoConnection: (failure) => this.#onNoConnection(failure),
      onInformational: (headers) => this.#stream.responder.sendInformational(headers),
      onHead: (headers, endStream) => this.#onHead(headers, endStream),
      onBody: (chunk, endStream) => this.#onBody(chunk, endStream),
      onTrailers: (trailers) => {
        this.#onResponseEnded();
        this.#stream.responder.sendTrailers(trailers);
      },
      onMalformed: () => {
        this.#charges!.traffic.cxProtocolError.inc();
        this.#onFailed(FAILURE.protocolError);
      },
      onCut: (reason) => this.#onCut(reason),
      onFull: (full) => {
        this.#full = full;
        this.#stream.responder.pauseRequest(full);
      },
    };
  }

  #onReady(encoder: RequestEncoder, host: Host, connection: Connection): void {
    const { info, responder } = this.#stream;
    info.upstreamHost = host.address;
    info.upstreamLocalAddress = connection.localAddress;
    info.upstreamProtocol = "HTTP/1.1"; // the only one that pools speak
    const headers = this.#headers;
    if (this.#action!.autoHostRewrite && host.hostname !== "") this.#rewriteHost(headers, host);
    const kept = this.#kept;
    const trailers = this.#keptTrailers;
    const ended = this.#requestEnded;
    const headOnly = ended && kept === undefined && trailers === undefined;
    encoder.encodeHeaders(headers, headOnly, this.#upgrade);
    if (kept !== undefined) this.#sendKept(encoder, kept, ended && trailers === undefined);
    if (trailers !== undefined) encoder.encodeTrailers(trailers);
    if (!headOnly) responder.pauseRequest(this.#full || connection.blocked);
  }

  #sendKept(encoder: RequestEncoder, kept: readonly Uint8Array[], ends: boolean): void {
    this.#kept = undefined;
    for (let k = 0; k < kept.length; k++) {
      const bytes = kept[k]!;
      encoder.encodeBody(bytes, 0, bytes.length, ends && k === kept.length - 1);
    }
    if (ends && kept.length === 0) encoder.encodeBody(EMPTY, 0, 0, true);
  }

  #rewriteHost(headers: RequestHeaders, host: Host): void {
    if (!this.#router.config.suppress_envoy_headers) {
      headers.set(ORIGINAL_HOST, headers.authority ?? "");
    }
    headers.authority = host.hostname;
  }

  #onNoConnection(failure: PoolFailure): void {
    const { info } = this.#stream;
    if (failure.host !== undefined) {
      info.upstreamHost = failure.host.address;
      failure.host.onReset();
    }
    info.upstreamTransportFailure = failure.transportFailure;
    if (failure.reason === "no_host") this.#fail(NO_HOST);
    else this.#fail(this.#failureReply(ofPool(failure.reason), failure.transportFailure));
  }

  #onHead(headers: ResponseHeaders, endStream: boolean): void {
    const { info, responder } = this.#stream;
    const router = this.#router;
    this.#responded = true;
    this.#tunnel = headers.status === 101;
    this.#attempt.host!.onResponse(headers.status);
    info.responseCode = headers.status;
    info.responseCodeDetails = "via_upstream";
    if (this.#requestEnded && !router.config.suppress_envoy_headers) {
      headers.remove(SERVICE_TIME);
      headers.appendLine(router.serviceTimeLine(router.cx.now() - this.#requestEndedAt));
    }
    if (this.#tunnel) this.#timer.cancel();
    if (router.config.dynamic_stats) this.#charges!.response(headers.status, this.#internal);
    this.#route!.editResponse(headers, info, this.#headers, this.#stream);
    if (endStream) this.#onResponseEnded();
    responder.sendHeaders(headers, endStream);
  }

  #onBody(chunk: Chunk, endStream: boolean): void {
    if (endStream) this.#onResponseEnded();
    this.#stream.responder.sendBody(chunk.memory, chunk.at, chunk.end, endStream);
  }

  #onResponseEnded(): void {
    this.#timer.cancel();
    if (!this.#requestEnded) return;
    this.#attempt.complete();
    if (!this.#router.config.dynamic_stats) return;
    this.#charges!.time(this.#router.cx.now() - this.#requestEndedAt, this.#internal);
  }

  #onCut(reason: ResetReason): void {
    // An end in the middle of a message is a breach of the protocol, whoever closed.
    const cut = this.#responded && reason === "connection_closed";
    this.#onFailed(cut ? FAILURE.protocolError : ofReset(reason));
  }

  #onFailed(failure: UpstreamFailure): void {
    if (!this.#responded) {
      this.#attempt.host?.onReset();
      this.#fail(this.#failureReply(failure, ""));
      return;
    }
    this.#timer.cancel();
    this.#router.stats.rqResetAfterDownstreamResponseStarted.inc();
    const reason = failure.text.replaceAll(" ", "_");
    const details = `upstream_reset_after_response_started{${reason}}`;
    this.#stream.responder.reset(details, failure.flag);
  }

  #onTimeout(): void {
    this.#charges!.traffic.rqTimeout.inc();
    const { host } = this.#attempt;
    this.#giveUp();
    if (this.#responded) {
      this.#stream.responder.reset("response_timeout", "UT");
      return;
    }
    host?.onTimeout();
    const flags = ["UT"];
    const details = "response_timeout";
    const body = "upstream request timeout";
    this.#fail(
      this.#quietTimeout ? reply(204, { flags, details }) : reply(504, { body, flags, details }),
    );
  }

  // ---- the client

  onResponseBlocked(blocked: boolean): void {
    this.#attempt.encoder?.pauseReading(blocked);
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
    this.#attempt.giveUp();
  }

  // ---- answers of our own

  #failureReply(failure: UpstreamFailure, transport: string): Reply {
    return failureReply(failure, transport, this.#router.config.suppress_envoy_headers);
  }

  /** The cluster could not serve: counted as its answer. */
  #fail(answer: Reply): void {
    this.#timer.cancel();
    if (this.#router.config.dynamic_stats) this.#charges!.response(answer.status, this.#internal);
    this.#answer(answer);
  }

  #answer(answer: Reply): void {
    this.#stream.responder.sendReply(answer, this.#route);
  }
}

function directReply(
  action: RedirectAction | DirectResponseAction,
  headers: RequestHeaders,
): Reply {
  const details = "direct_response";
  const { status } = action;
  if (action.type === "redirect") {
    return reply(status, { headers: [["location", action.location(headers)]], details });
  }
  // Envoy says where for these too, and means the request's own URI.
  const located = status === 201 || (status >= 300 && status < 400);
  const location = `${headers.scheme}://${headers.authority ?? ""}${headers.path}`;
  return reply(status, {
    body: action.body,
    headers: located ? [["location", location]] : [],
    details,
  });
}
