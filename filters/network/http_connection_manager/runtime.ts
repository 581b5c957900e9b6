import {
  AccessLogs,
  type CodecFactory,
  type CodecOptions,
  ConfigError,
  checkHttp2Options,
  compileStringMatch,
  everyOf,
  type HttpFilterFactory,
  headerKeyFormat,
  headerText,
  http2Options,
  placeRouteConfig,
  type RequestHeaders,
  type SetupContext,
  type Slot,
} from "@tsproxy/sdk";
import type { Config } from "./config.ts";
import { EarlyHeaderMutations } from "./early-header-mutation.ts";
import { LocalReplies } from "./local-reply.ts";
import { ProxyStatus } from "./proxy-status.ts";
import { RequestHead } from "./request-head.ts";
import { ResponseHead } from "./response-head.ts";
import { RouteTable } from "./route-table.ts";
import { ScopedRoutes } from "./scoped-routes.ts";
import { CodeCounters, HcmStats } from "./stats.ts";
import { WallClock } from "./wall-clock.ts";

/** A filter's place in a chain. */
export interface FilterSlot {
  readonly name: string;
  readonly slot: Slot<HttpFilterFactory>;
  /** Left out unless a route turns the filter on. */
  readonly disabled: boolean;
  /** Some route, virtual host or route table has a config for this filter. */
  isOverridden: boolean;
}

/** An entry of `upgrade_configs`. */
export interface Upgrade {
  readonly enabled: boolean;
  /** Undefined: `http_filters`, as for other streams. */
  readonly filters: readonly FilterSlot[] | undefined;
}

/** A compiled config. A stream keeps the one it began with; the next stream takes the newest. */
export class Runtime {
  readonly config: Config;
  readonly cx: SetupContext;
  readonly stats: HcmStats;
  /** The route table, or with `scoped_routes` one for each scope. */
  readonly tables: readonly RouteTable[];
  readonly scopes: ScopedRoutes | undefined = undefined;
  readonly requestHead: RequestHead;
  readonly responseHead: ResponseHead;
  /** Undefined: the config does not ask for it. */
  readonly proxyStatus: ProxyStatus | undefined;
  readonly localReplies: LocalReplies;
  readonly filters: readonly FilterSlot[];
  /** Some route or chain leaves filters out. */
  readonly switchesFilters: boolean;
  readonly logs: AccessLogs;
  /** Interval of the log lines of a running stream, in ms; 0: it is logged only when it ends. */
  readonly logEveryMs: number;
  readonly logsStart: boolean;
  /** There are log lines before the end of a stream: `logsStart` is set, or `logEveryMs` is not 0. */
  readonly logsEarly: boolean;
  readonly logsTunnel: boolean;
  /** A connection stays open after a malformed request was refused. */
  readonly keepsFaulty: boolean;
  readonly http1: Slot<CodecFactory>;
  #http2: Slot<CodecFactory> | undefined = undefined;
  readonly codecOptions: CodecOptions;
  /** By type of upgrade, in lower case. */
  readonly upgrades: ReadonlyMap<string, Upgrade>;
  /** Undefined: none. */
  readonly earlyMutations: EarlyHeaderMutations | undefined;
  readonly clock: WallClock;
  readonly #listeners = new Map<string, CodeCounters>();

  constructor(config: Config, cx: SetupContext) {
    this.config = config;
    this.cx = cx;
    if (config.codec_type === "HTTP3") {
      throw new ConfigError("codec_type", '"HTTP3" is not implemented; use AUTO, HTTP1 or HTTP2');
    }
    if ((config.route_config === undefined) === (config.scoped_routes === undefined)) {
      throw new ConfigError(
        "",
        "give one of route_config and scoped_routes; rds is not implemented",
      );
    }
    if (config.strip_any_host_port && config.strip_matching_host_port) {
      throw new ConfigError("", "give one of strip_any_host_port and strip_matching_host_port");
    }
    if (config.common_http_protocol_options.max_response_headers_kb !== undefined) {
      throw new ConfigError(
        "common_http_protocol_options.max_response_headers_kb",
        "cannot be set on http_connection_manager; it belongs to the HttpProtocolOptions of a cluster",
      );
    }
    const prefix = `http.${config.stat_prefix}.`;
    this.stats = new HcmStats(cx.stats.scope(prefix));
    // As in Envoy, these counters exist from the beginning.
    if (cx.listenerStatPrefix !== undefined) this.listenerCodes(cx.listenerStatPrefix);
    this.clock = new WallClock(cx);
    if (config.route_config === undefined) {
      this.scopes = new ScopedRoutes(config.scoped_routes!, "scoped_routes", cx);
      this.tables = this.scopes.tables;
    } else this.tables = [new RouteTable(config.route_config, "route_config", cx)];
    this.requestHead = new RequestHead(config, cx.node, this.stats);
    this.localReplies = new LocalReplies(config.local_reply_config, "local_reply_config", cx);
    this.responseHead = new ResponseHead(config, this.clock);
    this.proxyStatus =
      config.proxy_status_config &&
      new ProxyStatus(config.proxy_status_config, "proxy_status_config", {
        server: config.server_name,
        node: cx.node.id,
      });
    const chain = (refs: Config["http_filters"]): FilterSlot[] =>
      everyOf(refs, (ref) => ({
        name: ref.name,
        slot: cx.extension("http", ref, { statPrefix: prefix }),
        disabled: ref.disabled,
        isOverridden: false,
      }));
    this.filters = chain(config.http_filters);
    this.upgrades = new Map(
      config.upgrade_configs.map(({ upgrade_type, enabled, filters }) => [
        upgrade_type.toLowerCase(),
        { enabled, filters: filters.length === 0 ? undefined : chain(filters) },
      ]),
    );
    const chains = [this.filters];
    for (const { filters } of this.upgrades.values())
      if (filters !== undefined) chains.push(filters);
    for (const filters of chains) for (const table of this.tables) setupRoutes(table, filters);
    this.switchesFilters =
      this.tables.some((table) => table.switchesFilters) ||
      chains.some((filters) => filters.some((f) => f.disabled));
    const early = config.early_header_mutation_extensions;
    this.earlyMutations =
      early.length === 0
        ? undefined
        : new EarlyHeaderMutations(early, "early_header_mutation_extensions", cx);
    this.logs = new AccessLogs(config.access_log, "access_log", cx);
    const options = config.access_log_options;
    const logged = this.logs.count > 0;
    this.logEveryMs = logged
      ? (options?.access_log_flush_interval ?? config.access_log_flush_interval ?? 0)
      : 0;
    this.logsStart =
      logged &&
      (options?.flush_access_log_on_new_request ?? config.flush_access_log_on_new_request);
    this.logsEarly = this.logsStart || this.logEveryMs > 0;
    this.logsTunnel = logged && options?.flush_log_on_tunnel_successfully_established === true;
    this.keepsFaulty =
      config.http_protocol_options.override_stream_error_on_invalid_http_message ??
      config.stream_error_on_invalid_http_message;
    this.http1 = cx.shipped("codec", "codec/http1");
    // Its setup in the canary tells what is wrong with its code.
    if (cx.role === "canary") void this.http2;
    this.codecOptions = codecOptions(config, cx);
  }

  /** Set up for the first client that speaks it: to load its code would take 7 ms of CPU of each thread's start. */
  get http2(): Slot<CodecFactory> {
    return (this.#http2 ??= this.cx.shipped("codec", "codec/http2"));
  }

  /** Undefined: the request belongs to no scope. */
  routesFor(headers: RequestHeaders): RouteTable | undefined {
    return this.scopes === undefined ? this.tables[0] : this.scopes.find(headers);
  }

  /** Counters of response codes under `listener.<the listener's prefix>.http.<stat_prefix>.`. */
  listenerCodes(listenerStatPrefix: string): CodeCounters {
    let counters = this.#listeners.get(listenerStatPrefix);
    if (counters === undefined) {
      const prefix = `listener.${listenerStatPrefix}.http.${this.config.stat_prefix}.`;
      counters = new CodeCounters(this.cx.stats.scope(prefix));
      this.#listeners.set(listenerStatPrefix, counters);
    }
    return counters;
  }
}

/** Shows filters their per-route configs during setup, so that a bad one is refused before the first request. */
function setupRoutes(routes: RouteTable, filters: readonly FilterSlot[]): void {
  for (const [config, { filter, path }] of routes.filterConfigs) {
    placeRouteConfig(config, path);
    for (const place of filters) {
      if (place.name !== filter) continue;
      place.isOverridden = true;
      try {
        place.slot.current.value.routes?.one(config);
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        throw new ConfigError(error.path === "" ? path : `${path}.${error.path}`, error.message);
      }
    }
  }
}

function codecOptions(config: Config, cx: SetupContext): CodecOptions {
  const common = config.common_http_protocol_options;
  const http1 = config.http_protocol_options;
  checkHttp2Options(config.http2_protocol_options, "http2_protocol_options");
  const ignored = (http1.ignore_http_11_upgrade ?? []).map((matcher, k) =>
    compileStringMatch(matcher, `http_protocol_options.ignore_http_11_upgrade[${k}]`, cx),
  );
  return {
    maxHeadBytes: config.max_request_headers_kb * 1024,
    maxHeaders: common.max_headers_count,
    enableTrailers: http1.enable_trailers,
    acceptHttp10: http1.accept_http_10,
    defaultHostForHttp10: headerText(
      http1.default_host_for_http_10,
      "http_protocol_options.default_host_for_http_10",
    ),
    allowAbsoluteUrl: http1.allow_absolute_url,
    // At the edge nobody can have ended TLS in front of this proxy.
    refusesHttpsInPlaintext: config.use_remote_address && config.xff_num_trusted_hops === 0,
    allowChunkedLength: http1.allow_chunked_length,
    allowCustomMethods: http1.allow_custom_methods,
    headersWithUnderscores: common.headers_with_underscores_action,
    headerKeyFormat: headerKeyFormat(http1.header_key_format),
    ...(ignored.length > 0 && {
      ignoresUpgrade: (name) => ignored.some((matches) => matches(name)),
    }),
    http2: http2Options({
      stream_error_on_invalid_http_messaging: config.stream_error_on_invalid_http_message,
      ...config.http2_protocol_options,
    }),
    flushTimeoutMs: config.stream_flush_timeout ?? config.stream_idle_timeout,
  };
}
