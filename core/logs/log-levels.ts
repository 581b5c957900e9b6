import { didYouMean } from "../config/diagnostic.ts";
import { type Problem, problem } from "../problem.ts";
import { componentNames, type Log, leastLevel, levelOf, MAIN_LOGGER } from "./log.ts";
import type { LevelName, LogOptions } from "./log-options.ts";

/** The levels of all loggers, which admin's /logging changes while the proxy runs. */
export class LogLevels {
  readonly #log: Log;
  readonly #options: LogOptions;

  /** `options`: the object that the log was opened with. The log reads it for each line, so changes take effect at once. */
  constructor(log: Log, options: LogOptions) {
    this.#log = log;
    this.#options = options;
  }

  level(name: string): LevelName {
    return levelOf(this.#options, name === MAIN_LOGGER ? undefined : name);
  }

  /** Sets the level of one logger; "": of all. */
  set(name: string, level: LevelName): void {
    const options = this.#options;
    if (name === "") {
      options.level = level;
      options.components = {};
    } else options.components = { ...options.components, [name]: level };
    this.#log.level = leastLevel(options);
  }
}

/** Loggers of Envoy's that have no counterpart here. Their levels may be set, as the same command line may start Envoy. */
const OF_ENVOY_ONLY = [
  ...["a2a", "ai_protocol_manager", "alternate_protocols_cache", "assert", "aws", "backtrace"],
  ...["basic_auth", "cache_filter", "client", "compression", "credential_injector"],
  ...["decompression", "dns", "dubbo", "dynamic_modules", "envoy_bug", "ext_authz", "ext_proc"],
  ...["filter", "geolocation", "golang", "grpc", "happy_eyeballs", "hystrix", "io", "ip_tagging"],
  ...["json_rpc", "jwt", "kafka", "key_value_store", "matcher", "mcp", "misc", "mongo"],
  ...["multi_connection", "notification", "oauth2", "quic", "quic_stream", "rate_limit_quota"],
  ...["rds", "redis", "rocketmq", "sse", "stats_sinks", "tap", "testing", "thrift", "tracing"],
  ...["wasm", "websocket"],
];

/** Refuses names in `--component-log-level` that mean no logger, as Envoy does. */
export function unknownComponents(
  components: LogOptions["components"],
  packages: readonly string[],
): Problem[] {
  const known = [MAIN_LOGGER, ...packages].flatMap(componentNames).concat(OF_ENVOY_ONLY);
  const unknown = Object.keys(components).filter((name) => !known.includes(name));
  return unknown.map((name) => {
    const help = didYouMean(name, known) ?? 'write a package, such as "http/router", or "main"';
    return problem(`--component-log-level: no logger is called "${name}"; ${help}`);
  });
}
