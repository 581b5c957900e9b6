import {
  AccessLogs,
  type Cluster,
  type Connection,
  type Generation,
  type HeaderMap,
  type Host,
  type HttpStream,
  type LogEntry,
  newStreamInfo,
  type RequestEncoder,
  type RequestHeaders,
  ResponseHeaders,
  type SetupContext,
  type StreamInfo,
  type Timer,
  type WireBytes,
} from "@tsproxy/sdk";
import type { Config } from "./config.ts";
import { noteHost, noteUpstream } from "./upstream-info.ts";

/** `upstream_log` of the config: a line for every attempt, beside the connection manager's line for the request. */
export class UpstreamLog {
  readonly cx: SetupContext;
  readonly logs: AccessLogs;
  /** Another line is written when an attempt has its connection. */
  readonly onReady: boolean;
  /** Interval of further lines while an attempt lasts, in ms. 0: none. */
  readonly everyMs: number;

  constructor(config: Config, cx: SetupContext) {
    this.cx = cx;
    this.logs = new AccessLogs(config.upstream_log ?? [], "upstream_log", cx);
    const options = config.upstream_log_options;
    this.onReady = options?.flush_upstream_log_on_upstream_stream ?? false;
    this.everyMs = options?.upstream_log_flush_interval ?? 0;
  }
}

/**
 * The source of one attempt's log lines. The request head and the client's side are the stream's; response, times, flags and
 * bytes are the attempt's own. Bytes are counted from the upstream's side: received from it, sent to it.
 */
export class LoggedAttempt implements LogEntry {
  readonly info: StreamInfo;
  readonly request: RequestHeaders;
  readonly metadata: LogEntry["metadata"];
  readonly filterState: LogEntry["filterState"];
  readonly downstream: LogEntry["downstream"];
  readonly routeMetadata: LogEntry["routeMetadata"];
  response: ResponseHeaders | undefined = undefined;
  trailers: HeaderMap | undefined = undefined;
  logType: LogEntry["logType"] = "UpstreamEnd";
  readonly #log: UpstreamLog;
  readonly #held: Generation<unknown>[] = [];
  readonly #startedAt: number;
  readonly #downstreamWire: WireBytes | undefined;
  /** The response is complete, and its line is written when the stream ends. */
  #complete = false;
  #timer: Timer | undefined = undefined;

  constructor(log: UpstreamLog, stream: HttpStream, cluster: Cluster) {
    this.#log = log;
    this.#startedAt = log.cx.now();
    const { info } = stream;
    this.info = newStreamInfo({
      // No protocol is known before there is a connection.
      protocol: "" as StreamInfo["protocol"],
      startTime: info.startTime + this.#startedAt - (info.startedAt ?? this.#startedAt),
      startedAt: this.#startedAt,
      routeName: info.routeName,
      virtualHostName: info.virtualHostName,
      virtualCluster: info.virtualCluster,
      clusterName: info.clusterName,
      cluster,
      connectionId: info.connectionId,
      downstreamRemoteAddress: info.downstreamRemoteAddress,
      downstreamDirectAddress: info.downstreamDirectAddress,
      downstreamLocalAddress: info.downstreamLocalAddress,
    });
    this.#downstreamWire = info.downstreamWire;
    this.request = stream.request;
    this.metadata = stream.metadata;
    this.filterState = stream.filterState;
    this.downstream = stream.downstreamConnection;
    this.routeMetadata = (stream as Partial<LogEntry>).routeMetadata;
    log.logs.acquire(this.#held);
    if (log.everyMs === 0) return;
    this.#timer = log.cx.timer(() => this.#onTimer());
    this.#timer.arm(log.everyMs);
  }

  get #now(): number {
    return this.#log.cx.now() - this.#startedAt;
  }

  #write(type: LogEntry["logType"]): void {
    this.logType = type;
    if (!this.#complete) this.info.duration = this.#now;
    this.#log.logs.log(this);
  }

  #onTimer(): void {
    this.#write("UpstreamPeriodic");
    this.#timer!.arm(this.#log.everyMs);
  }

  /** `wire`: as in Envoy, with the bytes of the request's attempts before this one. */
  onReady(encoder: RequestEncoder, host: Host, connection: Connection, wire: WireBytes): void {
    const { info } = this;
    info.upstreamProtocol = info.protocol = encoder.protocol ?? "HTTP/1.1";
    noteUpstream(info, host, connection, this.#startedAt);
    info.upstreamWire = wire;
    // As in Envoy, an attempt without a connection knows nothing of the client's.
    info.downstreamWire = this.#downstreamWire;
    info.upstreamTxBegin = info.upstreamPoolReady = this.#now;
    if (this.#log.onReady) this.#write("UpstreamPoolReady");
  }

  onSent(bytes: number, endStream: boolean): void {
    this.info.bytesSent += bytes;
    if (endStream) this.info.upstreamTxEnd = this.#now;
  }

  /** Copies the head: filters, the route and this proxy edit it before the line is written. */
  onHead(headers: ResponseHeaders): void {
    const copy = new ResponseHeaders();
    copy.status = headers.status;
    for (const [name, value] of headers) copy.append(name, value);
    this.response = copy;
    this.info.responseCode = headers.status;
    this.info.responseDuration = this.#now;
  }

  onComplete(): void {
    this.#complete = true;
    this.#timer?.cancel();
    this.info.upstreamRxEnd = this.info.duration = this.#now;
  }

  /** The attempt ends while it waits for a connection to this host. */
  onLeft(host: Host): void {
    noteHost(this.info, host);
  }

  onFailed(flag: string, host: Host | undefined, transportFailure: string): void {
    const { info } = this;
    this.flag(flag);
    if (host !== undefined) noteHost(info, host);
    info.upstreamPoolReady = this.#now;
    info.upstreamTransportFailure = transportFailure;
  }

  flag(flag: string): void {
    this.info.flags.push(flag);
  }

  end(): void {
    this.#timer?.cancel();
    this.#write("UpstreamEnd");
    for (const generation of this.#held) generation.release();
  }

  /** Ends the attempt without a line: the cluster had no host, so nothing was attempted. */
  forget(): void {
    this.#timer?.cancel();
    for (const generation of this.#held) generation.release();
  }
}
