import { ConfigError, HttpHealthCheck } from "@tsproxy/sdk";

export { HttpHealthCheck as Config };

type Config = HttpHealthCheck;

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
