import { Chunk, latin1Decode } from "../bytes.ts";
import type {
  Balancer,
  BalancerContext,
  BalancerPolicy,
  Cluster,
  ClusterStats,
  Host,
  HostHealth,
  MadeClusters,
  PoolCallbacks,
  PoolFailure,
  PoolHandle,
  ReadyClusters,
  TrackedStats,
} from "../cluster.ts";
import type { RequestEncoder, ResetReason } from "../codec.ts";
import { HeaderMap, type RequestHeaders } from "../headers.ts";
import type { Address } from "../network.ts";
import type { Stats } from "../stats.ts";
import { TestConnection } from "./connection.ts";

/** An upstream host that records what the router reports about it. */
export class TestHost implements Host {
  zone = "";
  canary = false;
  readonly address: Address;
  readonly key: string;
  hostname = "";
  weight = 1;
  priority = 0;
  metadata: unknown = undefined;
  health: HostHealth = "healthy";
  healthySince = 0;
  activeRequests = 0;
  onLoadReport: Host["onLoadReport"] = undefined;
  get healthy(): boolean {
    return this.health !== "unhealthy";
  }
  /** How attempts went, as the router reported them: a status, or a word such as "timeout". */
  readonly told: (number | string)[] = [];
  /** How many responses were not forwarded because the request was retried. */
  retried = 0;

  constructor(address: Address = { ip: "198.51.100.1", port: 8080 }) {
    this.address = address;
    this.key = `${address.ip}:${address.port}`;
  }
  onResponse(status: number, retried = false, deferred = false): void {
    this.told.push(deferred ? `${status} deferred` : status);
    if (retried) this.retried++;
  }
  onDeferredEnd(ok: boolean): void {
    this.told.push(ok ? "ok" : "error");
  }
  onTimeout(begun = false, told = false): void {
    const what = told ? "timeout of a slow one" : "timeout";
    this.told.push(begun ? "timeout of a part" : what);
  }
  onSlow(): void {
    this.told.push("slow");
  }
  onReset(): void {
    this.told.push("reset");
  }
}

/** Makes a policy's balancer for these hosts, as if they were the healthy ones of one priority level. */
export function balancerFor(
  policy: BalancerPolicy,
  hosts: readonly Host[],
  options: { readonly key?: string; readonly shares?: readonly number[] } = {},
): Balancer {
  if (!("create" in policy)) throw new Error("this policy stands above levels: use its compose");
  const sum = hosts.reduce((total, host) => total + host.weight, 0);
  const shares = options.shares ?? hosts.map((host) => host.weight / sum);
  return policy.create({ key: options.key ?? "0|healthy", hosts, shares });
}

/** How an upstream answers a request, for `TestCluster.answering`. */
export interface FakeAnswer {
  /** Default: 200. */
  readonly status?: number;
  readonly headers?: Record<string, string>;
  /** One char a byte. */
  readonly body?: string;
  /** A gRPC answer ends with `{ "grpc-status": "0" }`. */
  readonly trailers?: Record<string, string>;
}

/**
 * A cluster whose upstream is played by the test: by hand through `exchanges` and `last`, or by itself with `answering`.
 * `cx.cluster(name, answer)` makes one that `cx.clusters` and `cx.fetch` know.
 */
export class TestCluster implements Cluster {
  readonly name: string;
  readonly stats: Stats;
  readonly traffic: ClusterStats;
  readonly host = new TestHost();
  /** The hosts, which get exchanges in turn. */
  readonly hosts: TestHost[] = [this.host];
  readonly connectTimeoutMs = 5000;
  maxStreamDurationMs: number | undefined = undefined;
  dropOverload = 0;
  tracks: TrackedStats | undefined = undefined;
  /** What `newStream` leads to: an exchange at once, one that waits for `connect`, or a failure. */
  answer: "ready" | "pending" | PoolFailure = "ready";
  /** Every exchange that was asked for. */
  readonly exchanges: TestExchange[] = [];
  /** The balancer context with which each of them was asked for. */
  readonly contexts: BalancerContext[] = [];
  /** How many retries may run at once; `retries` is how many do. */
  maxRetries = 3;
  retries = 0;
  /** Called when a request is complete; its result is the response. "reset": the upstream breaks the exchange off. */
  answering:
    | ((request: TestExchange) => FakeAnswer | "reset" | Promise<FakeAnswer | "reset">)
    | undefined = undefined;

  constructor(name: string, stats: Stats) {
    this.name = name;
    this.stats = stats.scope(`cluster.${name}.`);
    this.traffic = {
      rqTotal: this.stats.counter("upstream_rq_total"),
      rqActive: this.stats.gauge("upstream_rq_active"),
      rqTimeout: this.stats.counter("upstream_rq_timeout"),
      rqCompleted: this.stats.counter("upstream_rq_completed"),
      cxProtocolError: this.stats.counter("upstream_cx_protocol_error"),
    };
  }

  /** The exchange asked for last. */
  get last(): TestExchange {
    const last = this.exchanges.at(-1);
    if (last === undefined) throw new Error(`cluster "${this.name}" was asked for no exchange`);
    return last;
  }

  beginRetry(): boolean {
    if (this.retries >= this.maxRetries) return false;
    this.retries++;
    return true;
  }
  endRetry(): void {
    this.retries--;
  }

  newStream(callbacks: PoolCallbacks, context: BalancerContext): PoolHandle | undefined {
    const host = this.hosts[this.exchanges.length % this.hosts.length]!;
    const exchange = new TestExchange(callbacks, host, () => void this.#answer(exchange));
    this.contexts.push(context);
    this.exchanges.push(exchange);
    if (this.answer === "pending") return exchange;
    if (this.answer === "ready") exchange.connect();
    else callbacks.onPoolFailure(this.answer);
    return undefined;
  }

  connect(): "no_host" {
    return "no_host";
  }

  async #answer(exchange: TestExchange): Promise<void> {
    // An upstream never answers before the call that sends it the request has returned.
    await Promise.resolve();
    const answer = await this.answering?.(exchange);
    if (answer === undefined || exchange.wasReset) return;
    if (answer === "reset") {
      exchange.break("connection_closed");
      return;
    }
    const { status = 200, headers, body = "", trailers } = answer;
    if (trailers === undefined) {
      exchange.respond(status, headers, body);
      return;
    }
    exchange.respond(status, headers);
    if (body !== "") exchange.send(body, false);
    const lines = new HeaderMap();
    for (const [name, value] of Object.entries(trailers)) lines.append(name, value);
    exchange.endWithTrailers(lines);
  }
}

/** One exchange: what the proxy sent, and the means to answer it. */
export class TestExchange implements PoolHandle, RequestEncoder {
  method = "";
  path = "";
  /** Lines of the request head, in order. */
  headers: [string, string][] = [];
  upgrade = "";
  body = "";
  trailers: [string, string][] | undefined = undefined;
  sent = false;
  ended = false;
  cancelled = false;
  wasReset = false;
  paused = false;
  readonly connection = new TestConnection(500);
  readonly #callbacks: PoolCallbacks;
  readonly host: Host;
  readonly #onEnded: () => void;

  constructor(callbacks: PoolCallbacks, host: Host, onEnded: () => void = () => {}) {
    this.#callbacks = callbacks;
    this.host = host;
    this.#onEnded = onEnded;
  }

  // ---- for the test

  header(name: string): string | undefined {
    return this.headers.find(([n]) => n === name)?.[1];
  }
  connect(): void {
    this.#callbacks.onPoolReady(this, this.host, this.connection);
  }
  fail(failure: Partial<PoolFailure>): void {
    const host = this.host;
    this.#callbacks.onPoolFailure({
      reason: "connection_failed",
      host,
      transportFailure: "",
      ...failure,
    });
  }
  /** A whole response, or its head if `body` is undefined. */
  respond(status: number, headers: Record<string, string> = {}, body?: string): void {
    const decoder = this.#callbacks.decoder;
    decoder.responseHeaders.reset();
    decoder.responseHeaders.status = status;
    for (const [name, value] of Object.entries(headers))
      decoder.responseHeaders.append(name, value);
    decoder.onResponseHeaders(body === "");
    if (body !== undefined && body !== "") this.send(body, true);
  }
  informational(status: number): void {
    const headers = this.#callbacks.decoder.responseHeaders;
    headers.reset();
    headers.status = status;
    this.#callbacks.decoder.onInformational(headers);
  }
  send(body: string, endStream: boolean): void {
    // An exchange that the proxy has reset gets nothing more.
    if (this.wasReset) return;
    const bytes = Uint8Array.from(body, (char) => char.charCodeAt(0));
    this.#callbacks.decoder.onResponseBody(new Chunk(bytes, 0, bytes.length), endStream);
    bytes.fill(33); // the memory was only lent
  }
  endWithTrailers(trailers: HeaderMap): void {
    this.#callbacks.decoder.onResponseTrailers(trailers);
  }
  /** Plays a reset of the exchange by the upstream or its connection. */
  break(reason: ResetReason): void {
    this.#callbacks.decoder.onUpstreamReset(reason, undefined);
  }
  /** Plays a response that is not HTTP. */
  garbage(): void {
    this.#callbacks.decoder.onDecodeError({
      status: 502,
      body: "Bad Gateway",
      details: "http1.codec_error",
    });
  }
  /** Plays an upstream that takes no more of the request body, or takes it again. */
  block(blocked: boolean): void {
    this.#callbacks.decoder.onUpstreamBlocked(blocked);
  }

  // ---- for the proxy

  cancel(): void {
    this.cancelled = true;
  }
  encodeHeaders(headers: RequestHeaders, endStream: boolean, upgrade: string): void {
    this.sent = true;
    this.method = headers.method;
    this.path = headers.path;
    this.headers = [...headers];
    this.upgrade = upgrade;
    this.#end(endStream);
  }
  encodeBody(memory: Uint8Array, at: number, end: number, endStream: boolean): void {
    this.body += latin1Decode(memory, at, end);
    this.#end(endStream);
  }
  encodeTrailers(trailers: HeaderMap): void {
    this.trailers = [...trailers];
    this.#end(true);
  }
  #end(ended: boolean): void {
    this.ended = ended;
    if (ended) this.#onEnded();
  }
  reset(): void {
    this.wasReset = true;
  }
  pauseReading(paused: boolean): void {
    this.paused = paused;
  }
}

/** The clusters that a cluster's type makes: the test says which are ready, and sees what was asked for. */
export class TestMade implements MadeClusters, ReadyClusters {
  readonly parent = "c";
  serves = true;
  readonly made = new Map<string, Readonly<Record<string, unknown>>>();
  readonly hosts = new Map<string, Host>();
  onReady: ((name: string) => void) | undefined = undefined;

  get names(): ReadonlySet<string> {
    return new Set(this.made.keys());
  }
  put(name: string, fields: Readonly<Record<string, unknown>>): boolean {
    this.made.set(name, fields);
    return true;
  }
  remove(name: string): void {
    this.made.delete(name);
    this.hosts.delete(name);
  }
  has(name: string): boolean {
    return this.hosts.has(name);
  }
  choose(name: string): Host | undefined {
    return this.hosts.get(name);
  }
  /** A cluster that was made gets ready, with this host. */
  begin(name: string, host: Host): void {
    this.hosts.set(name, host);
    this.onReady?.(name);
  }
}
