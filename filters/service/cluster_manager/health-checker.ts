import { ConfigError, type ExtensionRef } from "@tsproxy/sdk";
import type { HealthCheck } from "./health-config.ts";

/** The package in filters/health that performs a check. `place`: the config field, for errors. */
export function checkerOf(
  check: HealthCheck,
  at: string,
): {
  readonly place: string;
  readonly ref: ExtensionRef;
} {
  for (const type of ["http", "tcp", "grpc"] as const) {
    const config = check[`${type}_health_check`];
    const name = `health/${type}`;
    if (config !== undefined)
      return { place: `${type}_health_check`, ref: { name, package: name, config } };
  }
  if (check.custom_health_check !== undefined)
    return { place: "custom_health_check", ref: check.custom_health_check };
  throw new ConfigError(
    at,
    "says no way to check: add http_health_check, tcp_health_check or grpc_health_check",
  );
}
