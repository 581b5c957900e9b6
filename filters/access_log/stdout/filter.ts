import {
  compileFormat,
  compileLogFormat,
  DEFAULT_LOG_FORMAT,
  defineAccessLogger,
  FormatLogger,
  SubstitutionFormatString,
  Type,
} from "@tsproxy/sdk";

/** One line for each stream or connection on the proxy's stdout. */
export default defineAccessLogger({
  name: "envoy.access_loggers.stdout",
  types: ["envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"],
  config: Type.Object({ log_format: Type.Optional(SubstitutionFormatString) }),
  setup({ log_format }, cx) {
    const given = log_format && compileLogFormat(log_format, "log_format", cx);
    return new FormatLogger(cx.file("/dev/stdout"), given ?? compileFormat(DEFAULT_LOG_FORMAT));
  },
});
