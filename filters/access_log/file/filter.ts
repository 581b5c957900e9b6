import {
  ConfigError,
  compileFormat,
  compileJsonFormat,
  compileLogFormat,
  DEFAULT_LOG_FORMAT,
  defineAccessLogger,
  type Format,
  FormatLogger,
  logFormatOptions,
  type SetupContext,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";

/** One line for each stream or connection, appended to a file. */
export default defineAccessLogger({
  name: "envoy.access_loggers.file",
  aliases: ["envoy.file_access_log"],
  types: ["envoy.extensions.access_loggers.file.v3.FileAccessLog"],
  config: Config,
  setup(config, cx) {
    const format = formatOf(config, cx) ?? compileFormat(DEFAULT_LOG_FORMAT);
    return new FormatLogger(cx.file(config.path), format);
  },
});

/** Undefined: none is given, and an empty one is none. */
function formatOf(config: Config, cx: SetupContext): Format | undefined {
  const fields = ["log_format", "format", "json_format", "typed_json_format"] as const;
  const [first, second] = fields.filter((field) => config[field] !== undefined);
  if (second !== undefined)
    throw new ConfigError(second, `stands beside "${first}"; keep one of the two`);
  switch (first) {
    case undefined:
      return undefined;
    case "log_format":
      return compileLogFormat(config.log_format!, "log_format", cx);
    case "format":
      if (config.format === "") return undefined;
      return compileFormat(config.format!, logFormatOptions("format", cx));
    default:
      return compileJsonFormat(config[first], logFormatOptions(first, cx));
  }
}
