import type { HeaderMap, RequestHeaders, ResponseHeaders } from "./headers.ts";
import type { StreamInfo } from "./http.ts";

/** What a log line can be made of. `request` is undefined for TCP. */
export interface LogEntry {
  readonly info: StreamInfo;
  readonly request: RequestHeaders | undefined;
  readonly response: ResponseHeaders | undefined;
  readonly trailers: HeaderMap | undefined;
  /** `HttpStream.metadata`. */
  readonly metadata?: ReadonlyMap<string, Readonly<Record<string, unknown>>> | undefined;
  /** `metadata.filter_metadata` of the route. */
  readonly routeMetadata?: Readonly<Record<string, unknown>> | undefined;
  /** The name that the client asked for in TLS; "" if none. */
  readonly serverName?: string | undefined;
  /** Protocol of the exchange with the upstream. */
  readonly upstreamProtocol?: string | undefined;
  /** Body of a local reply. */
  readonly localReplyBody?: string | undefined;
  readonly virtualClusterName?: string | undefined;
  readonly filterChainName?: string | undefined;
}

/** An access_log package's setup returns this. Called once, after the stream or connection has ended. */
export interface AccessLogger {
  log(entry: LogEntry): void;
}
