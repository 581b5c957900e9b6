// Hot path: one line a request, test/bench/access-log.ts.
import {
  type AccessLogger,
  compileFormat,
  compileLogFormat,
  DEFAULT_LOG_FORMAT,
  defineAccessLogger,
  type FileSink,
  type Format,
  type LogEntry,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";

/** One line for each stream or connection on the proxy's stdout. */
class StdoutAccessLogger implements AccessLogger {
  readonly #stream: FileSink;
  readonly #format: Format;

  constructor(stream: FileSink, format: Format) {
    this.#stream = stream;
    this.#format = format;
  }

  log(entry: LogEntry): void {
    this.#stream.append(this.#format.format(entry));
  }
}

export default defineAccessLogger({
  name: "envoy.access_loggers.stdout",
  types: ["envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"],
  config: Config,
  setup(config, cx) {
    const given = config.log_format && compileLogFormat(config.log_format, "log_format", cx);
    const format = given ?? compileFormat(DEFAULT_LOG_FORMAT);
    return new StdoutAccessLogger(cx.file("/dev/stdout"), format);
  },
});
