import type { RuntimeConfig } from "../protocol.ts";
import { formatDiagnostic, loadConfig } from "./load.ts";
import { TEST_PACKAGES } from "./test-packages.ts";

// Helpers of the tests in this folder: they load configs and make short ones.

export const TYPES = "type.googleapis.com/envoy.extensions.filters";
export const HCM = `${TYPES}.network.http_connection_manager.v3.HttpConnectionManager`;
export const ROUTER = `{name: r, typed_config: {"@type": ${TYPES}.http.router.v3.Router}}`;

export function load(
  text: string,
  options: { strict?: boolean; serves?: boolean; file?: string } = {},
) {
  const { strict = false, serves = false, file = "front.yaml" } = options;
  return loadConfig({ file, text }, TEST_PACKAGES, { strict, serves });
}
export function errors(text: string, options: { strict?: boolean; file?: string } = {}): string[] {
  const loaded = load(text, options);
  return loaded.ok ? [] : loaded.errors.map(formatDiagnostic);
}
export function warnings(text: string): string[] {
  return load(text).warnings.map(formatDiagnostic);
}
export function config(text: string): RuntimeConfig {
  const loaded = load(text);
  if (!loaded.ok) throw new Error(loaded.errors.map(formatDiagnostic).join("\n"));
  return loaded.config;
}

export const cluster = (field: string) => `static_resources:
  clusters:
  - name: a
    ${field}
`;
/** YAML of a listener with a connection manager. `filters`: list items, indented by 10. `routes`: a list in one line. */
export const http = (
  filters: string,
  routes = "[{match: {prefix: /}, direct_response: {status: 200}}]",
) => `
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 8080}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": ${HCM}
          stat_prefix: ingress
          route_config: {virtual_hosts: [{name: v, domains: ["*"], routes: ${routes}}]}
          http_filters:
${filters}
`;
export const chain = (match: string) => `
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 8080}}
    filter_chains: ${match}
`;
export interface Hcm {
  readonly http_filters: readonly { name: string; package: string; config: unknown }[];
  readonly route_config: { virtual_hosts: { routes: Record<string, never>[] }[] };
}
export function hcm(text: string): Hcm {
  return config(text).listeners[0]!.filterChains[0]!.filters[0]!.config as Hcm;
}
