import {
  type Chunk,
  ConfigError,
  type Counter,
  defineHttpFilter,
  done,
  type HeaderMap,
  type Histogram,
  type HttpFilter,
  type HttpStream,
  headerName,
  type RequestHeaders,
  type ResponseHeaders,
  type SetupContext,
  type Stats,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";
import { MessageCounter } from "./message-counter.ts";

const CONTENT_TYPE = headerName("content-type");
const GRPC_STATUS = headerName("grpc-status");
const CONNECT_VERSION = headerName("connect-protocol-version");
/** Clients choose method names, and stats are never removed: beyond these limits, methods are counted together, unnamed. */
const MAX_METHODS = 2048;
const MAX_NAME = 256;
const STATUS = /^(?:\d|1[0-6])$/;
/** Statuses that gRPC does not define; each method counts up to MAX_ODD different ones by their text. */
const ODD = /^[\w-]{1,32}$/;
const MAX_ODD = 16;

/** The stats of one method, or of all methods without stats of their own. Each stat appears with its first count. */
class MethodStats {
  readonly #stats: Stats;
  readonly #cells = new Map<string, Counter>();
  #time: Histogram | undefined = undefined;
  #oddStatuses = 0;

  constructor(stats: Stats) {
    this.#stats = stats;
  }
  /** Counts a status. One that gRPC does not define is counted by its text, as in Envoy, but only the first MAX_ODD of them. */
  addStatus(status: string): void {
    if (STATUS.test(status)) this.add(status, 1);
    else if (this.#cells.has(status) || (this.#oddStatuses < MAX_ODD && ODD.test(status))) {
      if (!this.#cells.has(status)) this.#oddStatuses++;
      this.add(status, 1);
    }
  }
  add(name: string, n: number): void {
    let cell = this.#cells.get(name);
    if (cell === undefined) {
      cell = this.#stats.counter(name);
      this.#cells.set(name, cell);
    }
    cell.add(n);
  }
  time(ms: number): void {
    this.#time ??= this.#stats.histogram("upstream_rq_time", "ms");
    this.#time.record(Math.floor(ms));
  }
}

/** The stats of methods, which all streams of one filter in a chain share. */
class GrpcStats {
  readonly config: Config;
  readonly #cx: SetupContext;
  readonly #allowed: ReadonlySet<string> | undefined;
  readonly #methods = new Map<string, MethodStats>();

  constructor(config: Config, cx: SetupContext) {
    this.config = config;
    this.#cx = cx;
    const list = config.individual_method_stats_allowlist?.services;
    this.#allowed =
      list === undefined
        ? undefined
        : new Set(list.flatMap((s) => s.method_names.map((method) => `/${s.name}/${method}`)));
  }

  now(): number {
    return this.#cx.now();
  }

  /** `path`: that of the request, with its query. Undefined: nothing is counted. */
  of(clusterName: string, path: string): MethodStats | undefined {
    const query = path.indexOf("?");
    const name = query < 0 ? path : path.slice(0, query);
    if (!/^\/[^/]+\/[^/]+$/.test(name)) return undefined;
    const counts = this.config.stats_for_all_methods === true && name.length <= MAX_NAME;
    const named = this.#allowed?.has(name) ?? counts;
    return this.#statsOf(clusterName, named ? name : "");
  }

  #statsOf(clusterName: string, method: string): MethodStats | undefined {
    const cluster = this.#cx.clusters.get(clusterName);
    if (cluster === undefined) return undefined;
    // A path has no line break, so no name of another cluster makes the same key.
    const key = `${clusterName}\n${method}`;
    let stats = this.#methods.get(key);
    if (stats !== undefined) return stats;
    if (method !== "" && this.#methods.size >= MAX_METHODS) return this.#statsOf(clusterName, "");
    stats = new MethodStats(cluster.stats.scope(`grpc.${this.#scopeOf(method)}`));
    this.#methods.set(key, stats);
    return stats;
  }

  #scopeOf(method: string): string {
    if (method === "") return "";
    const [, service = "", name = ""] = method.split("/");
    // Names of the allowlist are shown as they are written there.
    const replaces = this.config.replace_dots_in_grpc_service_name && this.#allowed === undefined;
    const shown = replaces ? service.replaceAll(".", "_") : service;
    return `${shown}.${name}.`;
  }
}

const FILTER_STATE = "envoy.filters.http.grpc_stats";

/** What logs see of a call's messages: `{"requestMessageCount":"2"}`, and `2,0` as PLAIN. */
class MessageCounts {
  requests = 0;
  responses = 0;

  toString(): string {
    return `${this.requests},${this.responses}`;
  }
  /** As protobuf writes it in JSON: zeros are left out. */
  toJSON(): Record<string, string> {
    return {
      ...(this.requests > 0 && { requestMessageCount: String(this.requests) }),
      ...(this.responses > 0 && { responseMessageCount: String(this.responses) }),
    };
  }
}

/** Counts one call by its status, and its messages. */
class GrpcStatsFilter implements HttpFilter {
  readonly #stats: GrpcStats;
  readonly #stream: HttpStream;
  readonly #requests = new MessageCounter("request");
  readonly #responses = new MessageCounter("response");
  #method: MethodStats | undefined = undefined;
  #asked: Protocol | undefined = undefined;
  /** Decided when the response's head reaches this filter: filters after this one may change the content type. */
  #countsResponse = false;
  #counts: MessageCounts | undefined = undefined;
  /** When the request was complete; -1: it is not. */
  #sentAt = -1;

  constructor(stats: GrpcStats, stream: HttpStream) {
    this.#stats = stats;
    this.#stream = stream;
  }

  onRequestHeaders(headers: RequestHeaders) {
    this.#asked = protocolOf(headers);
    const action = this.#stream.route?.action;
    const cluster = action?.type === "route" ? (action.cluster ?? "") : "";
    if (this.#asked !== undefined) this.#method = this.#stats.of(cluster, headers.path);
    // As in Envoy, logs also see the messages of a gRPC response to what was no gRPC request.
    const emits = this.#stats.config.emit_filter_state === true;
    return this.#method === undefined && !emits ? done : undefined;
  }

  onRequestBody(chunk: Chunk, endStream: boolean): void {
    if (endStream) this.#sentAt = this.#stats.now();
    if (this.#asked === undefined) return;
    const messages = this.#requests.count(chunk.memory, chunk.at, chunk.end);
    if (messages === 0) return;
    this.#method?.add("request_message_count", messages);
    const counts = this.#emitted();
    if (counts !== undefined) counts.requests += messages;
  }

  onRequestTrailers(): void {
    this.#sentAt = this.#stats.now();
  }

  onResponseHeaders(headers: ResponseHeaders): void {
    this.#countsResponse =
      this.#asked === "connect stream" ||
      (headers.status === 200 && isGrpc(headers.get(CONTENT_TYPE)));
    this.#charge(headers);
  }

  onResponseBody(chunk: Chunk): void {
    if (!this.#countsResponse) return;
    const messages = this.#responses.count(chunk.memory, chunk.at, chunk.end);
    if (messages === 0) return;
    this.#method?.add("response_message_count", messages);
    const counts = this.#emitted();
    if (counts !== undefined) counts.responses += messages;
  }

  /** What logs see, put into the filter state with the first message; undefined: the config does not ask for it. */
  #emitted(): MessageCounts | undefined {
    if (this.#stats.config.emit_filter_state !== true) return undefined;
    if (this.#counts === undefined) {
      this.#counts = new MessageCounts();
      this.#stream.filterState.set(FILTER_STATE, this.#counts);
    }
    return this.#counts;
  }

  onResponseTrailers(trailers: HeaderMap): void {
    this.#charge(trailers);
  }

  #charge(headers: HeaderMap): void {
    const status = headers.get(GRPC_STATUS);
    const method = this.#method;
    // What a Connect stream has come to stands in its last envelope, which Envoy does not read.
    if (this.#asked === "connect stream" || method === undefined || status === undefined) return;
    if (this.#asked === "grpc") method.addStatus(status);
    method.add(status === "0" ? "success" : "failure", 1);
    method.add("total", 1);
    if (this.#stats.config.enable_upstream_stats && this.#sentAt >= 0)
      method.time(this.#stats.now() - this.#sentAt);
  }
}

/** What a request speaks, as Envoy tells it: messages of all three are counted. */
type Protocol = "grpc" | "connect stream" | "connect";

function protocolOf(headers: RequestHeaders): Protocol | undefined {
  const type = headers.get(CONTENT_TYPE);
  if (isGrpc(type)) return "grpc";
  if (type?.startsWith("application/connect+")) return "connect stream";
  return headers.get(CONNECT_VERSION) === "1" ? "connect" : undefined;
}

/** `application/grpc`, with or without a suffix such as `+proto`. */
function isGrpc(type: string | undefined): boolean {
  if (type === undefined || !type.startsWith("application/grpc")) return false;
  return type.length === 16 || type[16] === "+";
}

export default defineHttpFilter({
  name: "envoy.filters.http.grpc_stats",
  types: ["envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"],
  config: Config,
  setup: (config, cx) => {
    if (
      config.stats_for_all_methods !== undefined &&
      config.individual_method_stats_allowlist !== undefined
    )
      throw new ConfigError(
        "",
        "give one of stats_for_all_methods and individual_method_stats_allowlist",
      );
    const stats = new GrpcStats(config, cx);
    return (stream) => new GrpcStatsFilter(stats, stream);
  },
});
