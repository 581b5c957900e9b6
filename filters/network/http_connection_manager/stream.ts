// Hot path: one object a request, reused, so a request allocates little more than its filters.
import {
  type AccessLogType,
  type Chunk,
  type DecodeError,
  type DownstreamConnection,
  FILTER_FAILED,
  type HeaderMap,
  type HttpFilter,
  headerName,
  type InternalRedirects,
  type LogEntry,
  REQUEST_TOO_LARGE,
  RESPONSE_TOO_LARGE,
  type Reply,
  type RequestDecoder,
  RequestHeaders,
  type RequestInfo,
  type ResetReason,
  type ResponseEncoder,
  ResponseHeaders,
  type Route,
  reply,
  type SetupContext,
  Walk,
  type WalkOwner,
  WISH,
} from "@tsproxy/sdk";
import type { HcmConnection } from "./connection.ts";
import { BY, FlowControl } from "./flow-control.ts";
import { RequestIdLine } from "./request-id.ts";
import { isGrpc, type RouteSubject } from "./route-match.ts";
import type { FilterSlot, Runtime } from "./runtime.ts";
import { StreamFilters } from "./stream-filters.ts";
import { Info } from "./stream-info.ts";
import { StreamRoute } from "./stream-route.ts";
import { StreamTimers, type TimersOwner } from "./stream-timers.ts";

/** How much of a body filters may hold: Envoy's default, and the most that a sandbox takes as one chunk. */
const BODY_LIMIT = 1024 * 1024;
const BODY_LIMIT_MAX = 8 * 1024 * 1024;
const UPGRADE = headerName("upgrade");
const UPGRADE_REFUSED = reply(403, { details: "upgrade_failed" });
const HEADERS_TIMEOUT = reply(408, {
  body: "request header timeout",
  details: "request_header_timeout",
});
const REQUEST_TIMEOUT = reply(408, {
  body: "request timeout",
  details: "request_overall_timeout",
});
// Made once: a closure for each call would cost more than the call.
const callReset = (filter: HttpFilter): void => filter.onReset?.();

/** HTTP/2 errors that break the config's limits, not the protocol: the stream is reset, and the connection goes on. */
const REFUSED = [
  "http2.header_list_size_too_large",
  "http2.too_many_headers",
  "http2.unexpected_underscore",
];

/** The gRPC status of a stream that has taken too long. */
const DEADLINE_EXCEEDED = 4;

const CONTINUE = new ResponseHeaders();
CONTINUE.status = 100;

/** The response to an internal client that sends this header carries the request id. */
const FORCE_TRACE = headerName("x-envoy-force-trace");

/**
 * One exchange: decodes for the codec, walks the filters both ways, answers.
 *
 *   client ──► codec ──► request walk ──► terminal filter ──► upstream
 *   client ◄── codec ◄── response walk ◄────── responder ◄── upstream
 *
 * It ends exactly once: when the response has ended, when either side is reset, or when the client leaves.
 */
export class HcmStream implements RequestDecoder, WalkOwner, TimersOwner, LogEntry, RouteSubject {
  readonly headers = new RequestHeaders();
  readonly info = new Info();
  response: ResponseHeaders | undefined = undefined;
  trailers: HeaderMap | undefined = undefined;
  /** Type of the access log line that is being written; undefined: the line at the end of the stream. */
  logType: AccessLogType | undefined = undefined;
  /** The stream has ended, or has not begun. */
  ended = true;
  readonly #cx: SetupContext;
  readonly #localHead = new ResponseHeaders();
  readonly #requestId = new RequestIdLine();
  readonly #request: Walk;
  readonly #answer: Walk;
  readonly #filters = new StreamFilters(this);
  readonly #timers: StreamTimers;
  readonly #route: StreamRoute;
  readonly #flow = new FlowControl(this.#filters, this.info);
  #connection!: HcmConnection;
  #runtime!: Runtime;
  #encoder!: ResponseEncoder;
  #isHead = false;
  isConnect = false;
  /** The request was gRPC as the client sent it: local replies then have a gRPC status, whatever filters change. */
  #isGrpc = false;
  /** The request asks for an upgrade that the config allows. */
  #upgrading = false;
  /** The upstream has agreed to the upgrade. */
  #tunnel = false;
  internal = false;
  /** The proxy's own headers have been added to the request head. */
  #edited = false;
  /** The client waits for `100 Continue`. */
  #owesContinue = false;
  #requestComplete = false;
  /** The response head is on its way to the client. */
  #responded = false;
  /** The client's message was faulty: the connection is closed after the answer. */
  #faulty = false;
  /** A whole request head was read. Before that, logs have no method and no path, as in Envoy. */
  #headRead = false;
  /** A response flag that is set only after a local reply was written: access logs show it, the reply itself does not. */
  #lateFlag = "";
  /** The local reply that is being sent has got such flags. */
  #flagsLate = false;
  internalRedirects: InternalRedirects | undefined = undefined;
  #chance = -1;
  #metadata: Map<string, Record<string, unknown>> | undefined = undefined;
  #filterState: Map<string, unknown> | undefined = undefined;
  /** The filters have been made, for a request or for a reply that came before them. */
  #chained = false;
  /** The filter chain of this stream: `http_filters`, or that of its upgrade. */
  #slots: readonly FilterSlot[] = [];

  constructor(cx: SetupContext) {
    this.#cx = cx;
    this.#request = new Walk(this, false);
    this.#answer = new Walk(this, true);
    this.#timers = new StreamTimers(this, cx);
    this.#route = new StreamRoute(this, this.info, this.#timers, cx.clusters);
  }

  /** Whether its last stream ran under that config. */
  hasRun(runtime: Runtime): boolean {
    return this.#runtime === runtime;
  }

  begin(connection: HcmConnection, runtime: Runtime, encoder: ResponseEncoder): void {
    this.#connection = connection;
    this.#runtime = runtime;
    this.#encoder = encoder;
    this.#slots = runtime.filters;
    this.ended = false;
    this.headers.reset();
    this.response = undefined;
    this.trailers = undefined;
    this.#isHead = this.isConnect = this.#upgrading = this.internal = false;
    this.#isGrpc = this.#edited = this.#requestComplete = this.#responded = false;
    this.#owesContinue = false;
    this.#headRead = false;
    this.#lateFlag = "";
    this.#faulty = this.#tunnel = this.#flagsLate = this.#chained = false;
    this.#metadata = undefined;
    this.#filterState = undefined;
    this.internalRedirects = undefined;
    this.#chance = -1;
    this.#flow.begin(runtime.stats, encoder);
    this.#route.begin(runtime.config.common_http_protocol_options.max_stream_duration);
    this.#request.begin(this.#filters.live);
    this.#answer.begin(this.#filters.live);
    const { info } = this;
    info.begin(connection.connection, encoder, this.#cx);
    this.#timers.begin(runtime.config);
    info.startTime = runtime.clock.now();
    info.startedAt = this.#timers.startedAt;
    this.#countPass();
  }

  // ---- from the codec

  onRequestHeaders(info: RequestInfo, endStream: boolean): void {
    if (this.ended) return;
    const runtime = this.#runtime;
    const { headers } = this;
    this.#headRead = true;
    this.#timers.onHeadRead();
    this.info.protocol = info.protocol;
    this.#isHead = info.isHead;
    this.isConnect = info.isConnect;
    this.#isGrpc = isGrpc(headers);
    this.#timers.touch();
    if (endStream) this.#onRequestComplete();
    this.#owesContinue = info.expectContinue && !runtime.config.proxy_100_continue;
    this.#admit(info, endStream);
    this.#continue();
    if (!this.ended) this.#connection.keep(this);
  }

  /** Sends the `100 Continue` that is owed: as in Envoy, after the filters have seen the head and before any response. */
  #continue(): void {
    if (!this.#owesContinue || this.ended) return;
    this.#owesContinue = false;
    this.#countCode(CONTINUE.status);
    this.#encoder.encodeInformational(CONTINUE);
  }

  #admit(info: RequestInfo, endStream: boolean): void {
    const runtime = this.#runtime;
    const { headers } = this;
    const { peer } = this.#connection;
    if (headers.repeated) headers.joinRepeated();
    const refusal = runtime.requestHead.check(headers, info.isConnect, peer);
    if (refusal !== undefined) {
      this.sendReply(refusal, false);
      return;
    }
    this.#route.table = runtime.routesFor(headers);
    runtime.earlyMutations?.apply(headers, this);
    const client = runtime.requestHead.edit(headers, peer, this.#requestId, this.#route.table);
    this.info.downstreamRemoteAddress = client.address;
    this.internal = client.internal;
    if (runtime.requestHead.refusal !== undefined) {
      this.sendReply(runtime.requestHead.refusal, false);
      return;
    }
    this.#edited = true;
    // A CONNECT without a protocol counts as an upgrade to `connect`.
    const upgrade = info.isConnect && info.upgrade === "" ? "connect" : info.upgrade;
    if (upgrade !== "" && !this.#upgrades(upgrade)) {
      // Bytes that follow may be of the protocol that was asked for, so nothing more is read from this connection.
      this.#faulty = true;
      if (this.#connection.isHttp2) this.#connection.leave();
      runtime.stats.rqWsOnNonWsRoute.inc();
      this.sendReply(UPGRADE_REFUSED, false);
      return;
    }
    // As in Envoy, what filters add or set changes the route only where one of them clears it.
    this.#route.resolve();
    if (runtime.logsEarly) this.#beginLogs();
    if (this.#createFilters()) this.#request.head(headers, endStream);
  }

  /** Writes the log line of the stream's start and begins periodic ones, as the config asks. */
  #beginLogs(): void {
    const { logsStart, logEveryMs } = this.#runtime;
    if (logEveryMs > 0) this.#timers.logEvery(logEveryMs);
    if (logsStart) this.#logNow("DownstreamStart");
  }

  onRequestBody(chunk: Chunk, endStream: boolean): void {
    if (this.ended) return;
    this.info.bytesReceived += chunk.length;
    this.#timers.touch();
    if (endStream) this.#onRequestComplete();
    this.#request.body(chunk.memory, chunk.at, chunk.end, endStream);
  }

  onRequestTrailers(trailers: HeaderMap): void {
    if (this.ended) return;
    this.#timers.touch();
    this.#onRequestComplete();
    this.#request.trailers(trailers);
  }

  onDecodeError(error: DecodeError): void {
    if (this.ended) return;
    const { stats } = this.#runtime;
    const { status, body, details } = error;
    this.#faulty = true;
    stats.cxProtocolError.inc();
    this.#lateFlag = "DPE";
    this.#connection.hasProtocolError = true;
    if (this.#responded) this.reset(details, this.#lateFlag);
    else this.sendReply(reply(status, { body, details }), false);
  }

  onReset(reason: ResetReason, details = ""): void {
    if (this.ended) return;
    if (this.#connection.isHttp2) this.info.protocol = "HTTP/2";
    const error = details || this.#connection.errorDetails;
    if (reason === "protocol_error" && error !== "") {
      // As in Envoy, what only the config forbids is not a protocol error.
      this.info.flags.push(REFUSED.includes(details) ? "DR" : "DPE");
      this.info.responseCodeDetails = error;
    } else if (this.#connection.isHttp2 && reason === "remote") {
      // A reset with NO_ERROR comes without details, and as in Envoy gets no flag in logs.
      if (details !== "") this.info.flags.push("DR");
      this.info.responseCodeDetails = details;
    } else if (!this.#tunnel || !this.#requestComplete || this.#connection.isHttp2) {
      this.#noteDisconnect();
    }
    this.#runtime.stats.rqRxReset.inc();
    this.#stopTerminal();
    this.#finish();
  }

  #noteDisconnect(): void {
    this.info.flags.push("DC");
    this.info.responseCodeDetails = "downstream_remote_disconnect";
  }

  onBlocked(blocked: boolean): void {
    if (!this.ended) this.#flow.stopResponse(BY.PEER, blocked);
  }

  /** Copies the head, lent for this event only; `onPromptEnd` does it if a filter may still decide before the event ends. */
  onTurnEnded(): void {
    if (!this.ended && !this.#request.isPrompt) this.headers.detach();
  }

  #onRequestComplete(): void {
    this.#requestComplete = true;
    this.info.requestDuration = this.#timers.elapsed;
    this.#timers.endRequestLimit();
  }

  /** Decides about an upgrade: by the route, else by the connection manager. False: refused. Without a route none is refused. */
  #upgrades(upgrade: string): boolean {
    const runtime = this.#runtime;
    const ofManager = runtime.upgrades.get(upgrade);
    const action = this.route?.action;
    const ofRoute = action?.type === "route" ? action.upgrades.get(upgrade) : undefined;
    if (!(ofRoute ?? ofManager?.enabled ?? false)) return this.route === undefined;
    if (ofManager?.filters !== undefined) this.#slots = ofManager.filters;
    this.#upgrading = true;
    runtime.stats.cxUpgradesTotal.inc();
    runtime.stats.cxUpgradesActive.inc();
    return true;
  }

  /** False: a filter could not be made, and the request is answered. */
  #createFilters(): boolean {
    this.#chained = true;
    const runtime = this.#runtime;
    const slots = this.#slots;
    const filters = this.#filters;
    try {
      for (let k = 0; k < slots.length; k++) {
        const slot = slots[k]!;
        if (!runtime.switchesFilters || !this.#isSwitchedOff(slot)) filters.add(slot);
      }
    } catch (error) {
      this.onFilterError(error, filters.count, false);
      return false;
    }
    runtime.logs.acquire(filters.held);
    this.#request.begin(this.#filters.live);
    this.#answer.begin(this.#filters.live);
    return true;
  }

  #isSwitchedOff(filter: FilterSlot): boolean {
    return this.#route.resolve()?.filterOverride(filter.name)?.disabled ?? filter.disabled;
  }

  // ---- for the filters

  get id(): number {
    return this.#encoder.streamId;
  }
  get request(): RequestHeaders {
    return this.headers;
  }
  get route(): Route | undefined {
    return this.#route.resolve();
  }
  get metadata(): Map<string, Record<string, unknown>> {
    this.#metadata ??= new Map();
    return this.#metadata;
  }
  get filterState(): Map<string, unknown> {
    this.#filterState ??= new Map(this.#connection.connection.filterState);
    return this.#filterState;
  }
  get hasFilterState(): boolean {
    return this.#filterState !== undefined || this.downstream.filterState !== undefined;
  }
  get routeMetadata(): Readonly<Record<string, unknown>> | undefined {
    return this.#route.known?.routeMetadata;
  }
  get virtualHostMetadata(): Readonly<Record<string, unknown>> | undefined {
    return this.#route.virtualHostMetadata;
  }
  get downstreamConnection(): DownstreamConnection {
    return this.#connection.connection;
  }
  get downstream(): DownstreamConnection {
    return this.#connection.connection;
  }
  get schemeMatchesUpstream(): boolean {
    return this.#runtime.config.scheme_header_transformation?.match_upstream === true;
  }
  get virtualClusterName(): string | undefined {
    // As in Envoy, the virtual cluster of all other requests has no name in logs.
    const name = this.info.virtualCluster?.name;
    return name === "other" ? undefined : name;
  }
  get transportProtocol(): string {
    return this.#connection.connection.transportProtocol;
  }
  get applicationProtocols(): readonly string[] {
    return this.#connection.connection.applicationProtocols;
  }
  get certificatePresented(): boolean {
    return this.#connection.connection.tls?.peer !== undefined;
  }
  get certificateValidated(): boolean {
    return this.#connection.connection.tls?.peerValidated === true;
  }
  get connectionState(): Map<string, unknown> {
    return this.#connection.state;
  }
  get serverName(): string {
    return this.#connection.connection.serverName;
  }
  get random(): number {
    if (this.#chance < 0) this.#chance = Math.floor(Math.random() * 0x1_0000_0000_0000);
    return this.#chance;
  }

  clearRoute(): void {
    this.#route.clear();
  }

  sleep(ms: number): Promise<void> {
    return this.#timers.sleep(ms);
  }

  /** Counts a response code, but not for health checks. */
  #countCode(status: number): void {
    if (this.info.healthCheck) return;
    const runtime = this.#runtime;
    runtime.stats.rqCodes.count(status);
    this.#connection.listenerCodes(runtime).count(status);
  }

  sendInformational(headers: ResponseHeaders): void {
    if (this.ended || this.#responded) return;
    // Envoy drops all interim responses unless `100-continue` is left to the upstream.
    if (!this.#runtime.config.proxy_100_continue) return;
    this.#countCode(headers.status);
    // Envoy completes an interim response in nothing else.
    const requestId = this.#returnedId();
    if (requestId !== undefined) headers.replace(this.#requestId.name, requestId);
    this.#encoder.encodeInformational(headers);
  }

  sendHeaders(headers: ResponseHeaders, endStream: boolean): void {
    if (this.ended || this.#answer.begun) return;
    this.info.responseDuration = this.#timers.elapsed;
    this.response = headers;
    this.#timers.endRequestLimit();
    this.#answer.head(headers, endStream);
    if (!this.#answer.isPrompt) this.#keepResponse(headers);
  }

  /** Copies the response head if filters or logs may read it after this event. */
  #keepResponse(headers: ResponseHeaders): void {
    const isRead = this.#filters.count > 1 || this.#runtime.logs.count > 0;
    if (!this.ended && (isRead || !this.#responded)) headers.detach();
  }

  sendBody(memory: Uint8Array, at: number, end: number, endStream: boolean): void {
    if (!this.ended) this.#answer.body(memory, at, end, endStream);
  }

  sendTrailers(trailers: HeaderMap): void {
    if (!this.ended) this.#answer.trailers(trailers);
  }

  pauseRequest(paused: boolean): void {
    if (!this.ended) this.#flow.stopRequest(BY.PEER, paused, this.#requestComplete);
  }

  /** Answers with a local reply. `byTerminal`: the terminal filter asks for it, so it is not told to stop. */
  sendReply(reply: Reply, byTerminal: boolean, editedBy?: Route): void {
    if (this.ended) return;
    if (!this.#headRead) this.headers.reset();
    // As in Envoy, the filters see the response also to what no request came of: made now, they have seen no request.
    if (!this.#chained && !this.#createFilters()) return;
    const { info } = this;
    const isLate = reply.flagsLate === true && !this.#responded;
    if (!isLate) info.flags.push(...reply.flags);
    info.responseCodeDetails = reply.details;
    if (this.#responded) {
      this.reset(reply.details, "");
      return;
    }
    this.#request.stop();
    if (!byTerminal) this.#stopTerminal();
    if (reply.status === 400 && !this.#runtime.keepsFaulty) this.#faulty = true;
    if (reply.flags.some((flag) => flag === "UF" || flag === "UC")) this.#encoder.upstreamLost?.();
    const head = this.#localHead;
    const { localReplies } = this.#runtime;
    const context = {
      grpc: this.#isGrpc,
      isHead: this.#isHead,
      editedBy: reply.unedited
        ? undefined
        : (editedBy ?? (this.#edited ? this.#route.forwarding() : undefined)),
      stream: this,
    };
    let body: Uint8Array;
    try {
      body = localReplies.write(head, reply, context);
    } catch (error) {
      // A filter's reply has a header that HTTP cannot carry.
      this.logFilterError(error);
      body = localReplies.write(head, FILTER_FAILED, { ...context, editedBy: undefined });
    }
    this.response = head;
    if (isLate) info.flags.push(...reply.flags);
    if (this.#lateFlag !== "") info.flags.push(this.#lateFlag);
    this.#flagsLate = isLate || this.#lateFlag !== "";
    const endStream = body.length === 0 || this.#isHead;
    // A reply that replaces a response which is passing through the filters does not pass through them itself.
    if (this.#answer.begun) this.#answer.begin([]);
    this.#timers.endRequestLimit();
    this.#answer.head(head, endStream);
    if (!endStream) this.#answer.body(body, 0, body.length, true);
  }

  /** Cuts the stream off, visibly to the client. */
  reset(details: string, flag: string): void {
    if (this.ended) return;
    if (flag !== "") this.info.flags.push(flag);
    this.info.responseCodeDetails = details;
    this.#runtime.stats.rqTxReset.inc();
    // As in Envoy, a reset by the proxy counts as a received one as well.
    this.#runtime.stats.rqRxReset.inc();
    this.#stopTerminal();
    this.#connection.onCut(this.#encoder, this.#requestComplete);
    this.#encoder.reset(flag === "UC");
    this.#finish();
  }

  // ---- from the walks

  onReply(reply: Reply, _response: boolean): void {
    // Envoy answers before it reads the body, and closes an HTTP/1 connection then. So does this, though a sandbox answers later.
    if (reply.early === true && this.info.protocol !== "HTTP/2") this.#requestComplete = false;
    this.sendReply(reply, false);
  }

  onFilterError(error: unknown, filter: number, response: boolean): void {
    this.logFilterError(error, filter);
    if (this.ended) return;
    // The answer must not pass through the filter that has failed.
    if (response) this.#answer.begin([]);
    this.sendReply(FILTER_FAILED, false);
  }

  onTooLarge(response: boolean, isWhole: boolean): void {
    const { stats } = this.#runtime;
    if (response) stats.rsTooLarge.inc();
    else stats.rqTooLarge.inc();
    // Envoy's HTTP/1 codec reports the end of a body separately from its last bytes: the first filter that holds too much never sees it.
    if (!response && !isWhole && this.info.protocol !== "HTTP/2") {
      this.#faulty = true;
      this.#requestComplete = false;
    }
    if (response) this.#answer.begin([]);
    this.sendReply(response ? RESPONSE_TOO_LARGE : REQUEST_TOO_LARGE, false);
  }

  get bodyLimit(): number {
    const { perConnectionBufferLimitBytes = BODY_LIMIT } = this.#connection.connection.listener;
    return Math.max(
      Math.min(perConnectionBufferLimitBytes, BODY_LIMIT_MAX),
      this.#request.largestHold,
    );
  }

  onPromptEnd(response: boolean): void {
    if (this.ended) return;
    if (!response) this.headers.detach();
    else if (this.response !== undefined) this.#keepResponse(this.response);
  }

  onWaiting(waiting: boolean, response: boolean): void {
    if (this.ended) return;
    if (response) this.#flow.stopResponse(BY.WALK, waiting);
    else this.#flow.stopRequest(BY.WALK, waiting, this.#requestComplete);
    if (waiting) this.#timers.beginPause();
    else if (!this.#request.waiting && !this.#answer.waiting) this.#timers.endPause();
  }

  encodeHead(headers: ResponseHeaders, endStream: boolean): void {
    if (this.ended) return;
    const runtime = this.#runtime;
    this.#continue();
    this.#responded = true;
    this.response = headers;
    this.#timers.touch();
    this.info.downstreamTxBegin = this.#timers.elapsed;
    runtime.responseHead.complete(headers, this.#returnedId());
    if (!this.#flagsLate) runtime.proxyStatus?.complete(headers, this.info);
    const { status } = headers;
    this.info.responseCode = status;
    this.#countCode(status);
    // A 101 that ends at once and names no protocol agrees to nothing.
    const agreed = this.isConnect
      ? status >= 200 && status < 300
      : status === 101 && (!endStream || headers.has(UPGRADE));
    const tunnel = this.#upgrading && agreed;
    this.#tunnel = tunnel;
    if (this.#filterState !== undefined) this.#grantWishes(this.#filterState, headers);
    if (tunnel && runtime.logsTunnel) this.#logNow("DownstreamTunnelSuccessfullyEstablished");
    if (!this.#requestReceived) runtime.stats.rqResponseBeforeRqComplete.inc();
    if (!tunnel)
      this.#connection.beforeResponse(this.#encoder, this.#faulty, this.#requestComplete);
    this.#encoder.encodeHeaders(headers, endStream);
    if (endStream) this.#finishResponse();
  }

  /** The request id that a response returns to the client; undefined: none. */
  #returnedId(): string | undefined {
    const isShown =
      this.#edited &&
      (this.#runtime.config.always_set_request_id_in_response ||
        (this.internal && this.headers.has(FORCE_TRACE)));
    return isShown ? this.headers.get(this.#requestId.name) : undefined;
  }

  /** Does what filters ask for through the filter state (`WISH`). */
  #grantWishes(wishes: ReadonlyMap<string, unknown>, headers: ResponseHeaders): void {
    if (wishes.get(WISH.DRAIN_CONNECTION) === true) this.#connection.leave();
    const reason = wishes.get(WISH.REASON_PHRASE);
    if (typeof reason === "string" && isLine(reason)) headers.reason = reason;
  }

  encodeBody(chunk: Chunk, endStream: boolean): void {
    if (this.ended) return;
    this.#timers.touch();
    if (!this.#isHead) this.info.bytesSent += chunk.length;
    this.#encoder.encodeBody(chunk.memory, chunk.at, chunk.end, endStream);
    if (endStream) this.#finishResponse();
  }

  encodeTrailers(trailers: HeaderMap): void {
    if (this.ended) return;
    this.trailers = trailers;
    this.#encoder.encodeTrailers(trailers);
    this.#finishResponse();
  }

  /** As `#requestComplete`, but true also while the codec keeps the end of the request, because reading is paused. */
  get #requestReceived(): boolean {
    return this.#requestComplete || this.#encoder.receiveEnded === true;
  }

  /** Ends the stream after its response. As in Envoy, a request that is not complete by then counts as reset. */
  #finishResponse(): void {
    if (this.ended) return;
    this.info.downstreamTxEnd = this.#timers.elapsed;
    if (!this.#requestReceived) this.#runtime.stats.rqRxReset.inc();
    this.#finish();
  }

  #stopTerminal(): void {
    this.#filters.callTerminal(callReset);
  }

  /** `filter`: index among the stream's filters; -1: not known. */
  logFilterError(error: unknown, filter = -1): void {
    this.#runtime.stats.onFilterError();
    const { message, stack } = error instanceof Error ? error : new Error(String(error));
    const name = this.#filters.nameOf(filter);
    this.#cx.log.error(`an HTTP filter failed: ${message}`, { filter: name, stack });
  }

  // ---- timeouts

  onIdle(): void {
    if (this.ended) return;
    this.#runtime.stats.rqIdleTimeout.inc();
    if (this.#responded) {
      this.reset("stream_idle_timeout", "SI");
      return;
    }
    const status = this.#requestComplete ? 504 : 408;
    const flags = ["SI"];
    const details = "stream_idle_timeout";
    this.sendReply(reply(status, { body: "stream timeout", flags, details }), false);
  }

  onHeadersTimeout(): void {
    if (this.ended) return;
    this.#runtime.stats.rqHeaderTimeout.inc();
    this.sendReply(HEADERS_TIMEOUT, false);
  }

  onRequestTimeout(): void {
    if (this.ended) return;
    this.#runtime.stats.rqTimeout.inc();
    this.sendReply(REQUEST_TIMEOUT, false);
  }

  onMaxDuration(): void {
    if (this.ended) return;
    this.#runtime.stats.rqMaxDurationReached.inc();
    const status = this.#requestComplete ? 504 : 408;
    const details = "max_duration_timeout";
    const body = "downstream duration timeout";
    this.sendReply(reply(status, { body, details, grpcStatus: DEADLINE_EXCEEDED }), false);
  }

  // ---- the end

  /** An internal redirect: ends this pass and sends the request, as it is now, through all filters again. False: not possible. */
  recreate(response: ResponseHeaders, body: Uint8Array): boolean {
    if (this.ended || !this.#requestComplete || this.#responded || this.#answer.begun) return false;
    const { info } = this;
    this.response = response;
    info.responseCode = response.status;
    info.responseCodeDetails = "internal_redirect";
    this.#timers.cancel();
    this.#endPass();
    this.#beginPass();
    if (this.#runtime.logsEarly) this.#beginLogs();
    if (!this.#createFilters()) return true;
    this.#request.head(this.headers, body.length === 0);
    if (body.length === 0 || this.ended) return true;
    // As in Envoy, a body that is sent again is counted again.
    info.bytesReceived += body.length;
    this.#request.body(body, 0, body.length, true);
    return true;
  }

  #beginPass(): void {
    const runtime = this.#runtime;
    const { info } = this;
    info.beginPass();
    this.#timers.beginPass(runtime.config);
    info.startTime = runtime.clock.now();
    info.startedAt = this.#timers.startedAt;
    this.response = undefined;
    this.#metadata = undefined;
    this.#filterState = undefined;
    this.#route.clear();
    this.#countPass();
  }

  #countPass(): void {
    const { stats } = this.#runtime;
    stats.rqTotal.inc();
    if (this.#connection.isHttp2) stats.rqHttp2Total.inc();
    else stats.rqHttp1Total.inc();
    stats.rqActive.inc();
  }

  #finish(): void {
    if (this.ended) return;
    this.ended = true;
    if (!this.#headRead) this.headers.reset();
    const runtime = this.#runtime;
    // A filter's decision that is still awaited may come at any time, so this object cannot be reused then.
    const quiet = !this.#request.waiting && !this.#answer.waiting;
    this.#request.stop();
    this.#answer.stop();
    this.#timers.cancel();
    // In Envoy, an HTTP/1 client that closes its half of a tunnel has left, whatever the other half did; not so over HTTP/2.
    if (this.#tunnel && this.#requestComplete && !this.#connection.isHttp2) this.#noteDisconnect();
    if (this.#upgrading) runtime.stats.cxUpgradesActive.dec();
    if (this.info.healthCheck) runtime.stats.healthChecks.inc();
    this.info.bytesReceived += this.#encoder.bodyHeld ?? 0;
    this.#endPass();
    this.#connection.onStreamEnded(this, this.#requestComplete, this.#faulty, quiet);
  }

  /** Ends one pass of the request: writes its log line and lets go of the filters. */
  #endPass(): void {
    const runtime = this.#runtime;
    const { info } = this;
    info.duration = this.#timers.elapsed;
    runtime.stats.rqActive.dec();
    runtime.stats.rqTime.record(Math.floor(info.duration));
    this.logType = undefined;
    runtime.logs.log(this);
    this.#filters.end();
  }

  onLogDue(): void {
    if (!this.ended) this.#logNow("DownstreamPeriodic");
  }

  /** Writes a log line before the end of the stream, with the duration until now. */
  #logNow(type: AccessLogType): void {
    this.logType = type;
    this.info.duration = this.#timers.elapsed;
    this.#runtime.logs.log(this);
    this.info.duration = -1;
  }
}

/** Whether each char is one byte, and none is a control character. */
function isLine(text: string): boolean {
  for (let k = 0; k < text.length; k++) {
    const code = text.charCodeAt(k);
    if (code < 32 || code === 127 || code > 255) return false;
  }
  return true;
}
