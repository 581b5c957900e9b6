import {
  type Cluster,
  type HeaderMap,
  type Host,
  type HttpStream,
  headerName,
  type MirrorPolicy,
  type PoolCallbacks,
  type PoolFailure,
  type PoolHandle,
  type RequestEncoder,
  RequestHeaders,
  type ResetReason,
  type ResponseDecoder,
  ResponseHeaders,
  type Timer,
} from "@tsproxy/sdk";
import type { KeptBody } from "./kept-body.ts";
import type { Router } from "./router.ts";
import type { Answered, ClusterCharges } from "./stats.ts";
import { NO_HOST, ofPool, ofReset } from "./upstream-failure.ts";

const FORWARDED_FOR = headerName("x-forwarded-for");
const INTERNAL = headerName("x-envoy-internal");
/** Limit of mirrored requests in progress, for one router: a slow mirror must not hold the bodies of all requests. */
const MAX_MIRRORS = 1024;

/** Copies of a request's head that are sent to mirrors once its body is complete. */
export class MirrorPlan {
  readonly #router: Router;
  readonly #targets: readonly { readonly cluster: string; readonly headers: RequestHeaders }[];

  constructor(router: Router, policies: readonly MirrorPolicy[], stream: HttpStream) {
    this.#router = router;
    const headers = stream.request;
    this.#targets = policies.flatMap((policy) => {
      if (!policy.chosen()) return [];
      const cluster = clusterOf(policy, headers);
      return cluster === "" ? [] : [{ cluster, headers: shadowHead(policy, stream, router) }];
    });
  }

  get empty(): boolean {
    return this.#targets.length === 0;
  }

  /** Begins a mirrored request to each target that exists. `timeoutMs` 0: no timeout. */
  send(body: KeptBody | undefined, timeoutMs: number): void {
    const router = this.#router;
    for (const { cluster: name, headers } of this.#targets) {
      const cluster = router.cx.clusters.get(name);
      if (cluster === undefined) continue;
      if (router.mirrors.size >= MAX_MIRRORS) {
        router.onMirrorDropped(name, MAX_MIRRORS);
        continue;
      }
      new Mirror(router, cluster, headers, body).begin(timeoutMs);
    }
  }
}

function clusterOf(policy: MirrorPolicy, headers: RequestHeaders): string {
  const { cluster, clusterHeader } = policy;
  return clusterHeader === undefined ? cluster : (headers.get(clusterHeader) ?? "");
}

/** A copy of the head as Envoy sends it: from an internal client, over one more hop, to another host. */
function shadowHead(policy: MirrorPolicy, stream: HttpStream, router: Router): RequestHeaders {
  const headers = stream.request;
  const copy = new RequestHeaders();
  copy.method = headers.method;
  copy.path = headers.path;
  copy.scheme = headers.scheme;
  for (const [name, value] of headers) copy.append(name, value);
  const before = copy.getAll(FORWARDED_FOR);
  const own = router.cx.node.address;
  if (own !== undefined) copy.set(FORWARDED_FOR, [...before, own].join(","));
  copy.set(INTERNAL, "true");
  if (policy.host !== undefined) copy.authority = policy.host;
  else if (policy.shadowHost) copy.authority = shadowHost(headers.authority ?? "");
  if (policy.edit !== undefined) {
    const { info, metadata, filterState } = stream;
    policy.edit(copy, { info, metadata, filterState, request: copy, response: undefined });
  }
  return copy;
}

/** Adds `-shadow` to a host name, before the port. */
export function shadowHost(host: string): string {
  const port = /:[0-9]+$/.exec(host);
  // The colons of a bare IPv6 address do not separate a port.
  if (port === null || (host.includes("::") && !host.includes("]"))) return `${host}-shadow`;
  return `${host.slice(0, port.index)}-shadow${port[0]}`;
}

/** One mirrored copy of a request. Its response is counted and dropped. */
export class Mirror implements PoolCallbacks, ResponseDecoder, Answered {
  readonly responseHeaders = new ResponseHeaders();
  readonly internal = true;
  readonly canary = false;
  readonly withoutCode = false;
  readonly zone = "";
  readonly #router: Router;
  readonly #cluster: Cluster;
  readonly #charges: ClusterCharges;
  readonly #headers: RequestHeaders;
  readonly #body: KeptBody | undefined;
  readonly #timer: Timer;
  #begunAt = 0;
  #handle: PoolHandle | undefined = undefined;
  #encoder: RequestEncoder | undefined = undefined;
  #host: Host | undefined = undefined;
  #answered = false;

  constructor(
    router: Router,
    cluster: Cluster,
    headers: RequestHeaders,
    body: KeptBody | undefined,
  ) {
    this.#router = router;
    this.#cluster = cluster;
    this.#charges = router.charges(cluster);
    this.#headers = headers;
    this.#body = body;
    this.#timer = router.cx.timer(() => this.#onTimeout());
  }

  begin(timeoutMs: number): void {
    const router = this.#router;
    router.mirrors.add(this);
    router.mirrored.inc();
    this.#begunAt = router.cx.now();
    if (timeoutMs > 0) this.#timer.arm(timeoutMs);
    this.#handle = this.#cluster.newStream(this, { head: this.#headers });
  }

  get decoder(): ResponseDecoder {
    return this;
  }

  onPoolReady(encoder: RequestEncoder, host: Host): void {
    this.#handle = undefined;
    this.#encoder = encoder;
    this.#host = host;
    const body = this.#body;
    const headOnly = body === undefined || body.empty;
    encoder.encodeHeaders(this.#headers, headOnly, "");
    if (!headOnly) body.send(encoder, true);
  }
  onPoolFailure({ reason, host }: PoolFailure): void {
    // An overflow of the cluster's circuit breaker is not the host's fault.
    if (reason !== "overflow") host?.onReset();
    this.#count(reason === "no_host" ? NO_HOST.status : ofPool(reason).status);
    this.#end();
  }

  onInformational(): void {}
  onResponseHeaders(endStream: boolean): void {
    const { status } = this.responseHeaders;
    this.#answered = true;
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
    // After its head the response has been counted already.
    if (!this.#answered) {
      this.#host?.onReset();
      this.#count(502);
    }
    this.#end();
  }
  onUpstreamReset(reason: ResetReason): void {
    if (!this.#answered) {
      this.#host?.onReset();
      this.#count(ofReset(reason).status);
    }
    this.#end();
  }
  onUpstreamBlocked(): void {}

  #onTimeout(): void {
    this.#charges.traffic.rqTimeout.inc();
    this.#host?.onTimeout(this.#answered);
    if (!this.#answered) this.#count(504);
    this.giveUp();
  }

  #onResponseEnded(): void {
    if (this.#router.config.dynamic_stats) {
      this.#charges.time(this.#router.cx.now() - this.#begunAt, this, "");
    }
    this.#end();
  }

  #count(status: number): void {
    if (this.#router.config.dynamic_stats) this.#charges.response(status, this, "");
  }

  giveUp(): void {
    const handle = this.#handle;
    const encoder = this.#encoder;
    this.#end();
    handle?.cancel();
    encoder?.reset();
  }

  #end(): void {
    this.#timer.cancel();
    this.#handle = undefined;
    this.#encoder = undefined;
    this.#router.mirrors.delete(this);
  }
}
