// Hot path: one line a request, test/bench.
import {
  type AccessLogger,
  ConfigError,
  compileFormat,
  compileJsonFormat,
  DEFAULT_LOG_FORMAT,
  defineAccessLogger,
  type FileSink,
  type Format,
  type FormatOptions,
  type LogEntry,
  type SetupContext,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";

/** One line for each stream or connection, appended to a file. */
class FileAccessLogger implements AccessLogger {
  readonly #file: FileSink;
  readonly #format: Format;

  constructor(file: FileSink, format: Format) {
    this.#file = file;
    this.#format = format;
  }

  log(entry: LogEntry): void {
    this.#file.append(this.#format.format(entry));
  }
}

export default defineAccessLogger({
  name: "envoy.access_loggers.file",
  aliases: ["envoy.file_access_log"],
  types: ["envoy.extensions.access_loggers.file.v3.FileAccessLog"],
  config: Config,
  setup(config, cx) {
    const format = formatOf(config, cx);
    return new FileAccessLogger(cx.file(config.path), format);
  },
});

function formatOf(config: Config, cx: SetupContext): Format {
  const log = config.log_format;
  const given = [
    ["log_format.text_format_source", log?.text_format_source],
    ["log_format.text_format", log?.text_format],
    ["log_format.json_format", log?.json_format],
    ["format", config.format],
    ["json_format", config.json_format],
    ["typed_json_format", config.typed_json_format],
  ].filter((field): field is [string, NonNullable<unknown>] => field[1] !== undefined);
  const [first, second] = given;
  if (second !== undefined) {
    throw new ConfigError(second[0], `stands beside "${first![0]}"; keep one of the two`);
  }
  if (first === undefined) return compileFormat(DEFAULT_LOG_FORMAT);

  const [field, value] = first;
  const omitEmpty = log?.omit_empty_values === true;
  const options = formatOptions(field, cx);
  if (field.endsWith("json_format")) return compileJsonFormat(value, { ...options, omitEmpty });
  const text = field === "log_format.text_format_source" ? inline(log?.text_format_source) : value;
  // Envoy: an empty format is no format.
  if (text === "") return compileFormat(DEFAULT_LOG_FORMAT);
  return compileFormat(String(text), omitEmpty ? { ...options, missing: "" } : options);
}

function inline(source: { readonly inline_string?: string } | undefined): string {
  if (source?.inline_string !== undefined) return source.inline_string;
  throw new ConfigError("log_format.text_format_source", "is empty; write inline_string: <format>");
}

function formatOptions(field: string, cx: SetupContext): FormatOptions {
  return {
    onUnknown: (message) => {
      throw new ConfigError(field, message);
    },
    onUnsupported: (command) =>
      cx.log.warn(`access log: nothing collects %${command}% yet, it prints as missing`, { field }),
  };
}
