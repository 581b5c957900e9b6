import {
  ConfigError,
  Enum,
  HeaderValueOption,
  HealthPayload,
  type Static,
  StringMatcher,
  Type,
  UInt32,
} from "@tsproxy/sdk";

const Ranges = Type.Array(
  Type.Object({ start: Type.Integer({ default: 0 }), end: Type.Integer({ default: 0 }) }),
  { default: [] },
);

/** Envoy's HttpHealthCheck. */
export const Config = Type.Object({
  /** "": the host's own name, or else the cluster's. */
  host: Type.String({ default: "" }),
  path: Type.String({ minLength: 1 }),
  send: Type.Optional(HealthPayload),
  receive: Type.Array(HealthPayload, { default: [] }),
  /** 0: no limit of Envoy's; ours holds. */
  response_buffer_size: UInt32({ default: 1024 }),
  request_headers_to_add: Type.Array(HeaderValueOption, { default: [] }),
  request_headers_to_remove: Type.Array(Type.String(), { default: [] }),
  expected_statuses: Ranges,
  retriable_statuses: Ranges,
  codec_client_type: Enum(["HTTP1", "HTTP2"], { default: "HTTP1" }),
  service_name_matcher: Type.Optional(StringMatcher),
  method: Enum(
    ["METHOD_UNSPECIFIED", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"],
    { default: "GET" },
  ),
});
export type Config = Static<typeof Config>;

const BODILESS = ["GET", "HEAD", "DELETE", "TRACE"];

export function check(config: Config): void {
  if (config.send !== undefined && BODILESS.includes(methodOf(config)))
    throw new ConfigError(
      "send",
      `HTTP health check cannot specify a request payload with method '${methodOf(config)}'; use POST, PUT, PATCH or OPTIONS`,
    );
  for (const field of ["expected", "retriable"] as const) {
    for (const [k, { start, end }] of config[`${field}_statuses`].entries()) {
      const at = `${field}_statuses[${k}]`;
      const what = `Invalid http ${field} status range: expecting`;
      if (start >= end)
        throw new ConfigError(at, `${what} start < end, but found start=${start} and end=${end}`);
      if (start < 100) throw new ConfigError(at, `${what} start >= 100, but found start=${start}`);
      if (end > 600) throw new ConfigError(at, `${what} end <= 600, but found end=${end}`);
    }
  }
}

export function methodOf(config: Config): string {
  return config.method === "METHOD_UNSPECIFIED" ? "GET" : config.method;
}
