import {
  AccessLogFilter,
  type AccessLogType,
  compileAccessLogFilter,
  type LogFilter,
} from "./access-log-filter.ts";
import type { Generation, SetupContext, Slot } from "./extension.ts";
import type { HeaderMap, RequestHeaders, ResponseHeaders } from "./headers.ts";
import type { StreamInfo } from "./http.ts";
import type { DownstreamConnection } from "./network.ts";
import { Extension, type Static, Type } from "./schema.ts";

/** What lines tell of a connection. */
export type LoggedConnection = Pick<
  DownstreamConnection,
  | "listener"
  | "serverName"
  | "ja3Fingerprint"
  | "ja4Fingerprint"
  | "filterChainName"
  | "filterChainMetadata"
  | "metadata"
  | "filterState"
  | "tls"
  | "tlsVersion"
>;

/** What a log line can be made of. `request` is undefined for TCP. */
export interface LogEntry {
  readonly info: StreamInfo;
  readonly request: RequestHeaders | undefined;
  readonly response: ResponseHeaders | undefined;
  readonly trailers: HeaderMap | undefined;
  /** The moment that the line tells of. Undefined: the end of the stream, or of the connection where there is no request. */
  readonly logType?: AccessLogType | undefined;
  /** Dynamic metadata by namespace, as in `HttpStream.metadata`. */
  readonly metadata?: ReadonlyMap<string, Readonly<Record<string, unknown>>> | undefined;
  /** `metadata.filter_metadata` of the route. */
  readonly routeMetadata?: Readonly<Record<string, unknown>> | undefined;
  /** The same of its virtual host. */
  readonly virtualHostMetadata?: Readonly<Record<string, unknown>> | undefined;
  /** As in `HttpStream.filterState`. */
  readonly filterState?: ReadonlyMap<string, unknown> | undefined;
  /** The client's connection. */
  readonly downstream?: LoggedConnection | undefined;
  /** The name that the client asked for in TLS, "" if none. Absent: `downstream.serverName`. */
  readonly serverName?: string | undefined;
  /** Body of a local reply. */
  readonly localReplyBody?: string | undefined;
  readonly virtualClusterName?: string | undefined;
  readonly filterChainName?: string | undefined;
  readonly traceId?: string | undefined;
  readonly spanId?: string | undefined;
}

/** An access_log package's setup returns this. */
export interface AccessLogger {
  /**
   * Called when a stream or connection has ended, and for the other moments (`entry.logType`) that the config asks for. `entry`
   * is lent: keep what is needed of it, not the object.
   */
  log(entry: LogEntry): void;
}

/** Schema of an `access_log` field: loggers, each with the filter that chooses what it writes. */
export function AccessLogList() {
  return Type.Array(
    Extension("access_log", { fields: { filter: Type.Optional(AccessLogFilter) } }),
    { default: [] },
  );
}
export type AccessLogList = Static<ReturnType<typeof AccessLogList>>;

/** The access logs of one place in the config. */
export class AccessLogs {
  readonly #cx: SetupContext;
  readonly #slots: readonly Slot<AccessLogger>[];
  readonly #filters: readonly (LogFilter | undefined)[];
  readonly count: number;

  /** `path`: where the list stands in the package's config. */
  constructor(list: AccessLogList, path: string, cx: SetupContext) {
    this.#cx = cx;
    this.#filters = list.map(
      ({ filter }, k) => filter && compileAccessLogFilter(filter, `${path}[${k}].filter`, cx),
    );
    this.#slots = list.map((ref) => cx.extension("access_log", ref));
    this.count = list.length;
  }

  /** Acquires each logger's generation and adds it to `held`: a stream that outlives this config releases them after logging. */
  acquire(held: Generation<unknown>[]): void {
    for (let k = 0; k < this.count; k++) {
      const generation = this.#slots[k]!.current;
      generation.acquire();
      held.push(generation);
    }
  }

  /** Hands the entry to each logger whose filter lets it pass. An error that a logger throws is logged and goes no further. */
  log(entry: LogEntry): void {
    for (let k = 0; k < this.count; k++) {
      try {
        if (this.#filters[k]?.(entry) !== false) this.#slots[k]!.current.value.log(entry);
      } catch (error) {
        const reason = error instanceof Error ? (error.stack ?? error.message) : String(error);
        this.#cx.log.error("an access log failed", { reason });
      }
    }
  }
}
