import { DnsResolverConfig } from "./dns-resolver.ts";
import { filterStateText, STATE } from "./filter-state.ts";
import { isIp } from "./ip.ts";
import { Duration, Enum, type Static, Type, UInt32 } from "./schema.ts";

/** Envoy's DnsCacheConfig. Filter and cluster share the cache that they call by the same `name`. */
export const DnsCacheConfig = Type.Object({
  name: Type.String({ minLength: 1 }),
  dns_lookup_family: Enum(["AUTO", "V4_ONLY", "V6_ONLY", "V4_PREFERRED", "ALL"], {
    default: "AUTO",
  }),
  dns_refresh_rate: Duration({ default: 60_000 }),
  dns_min_refresh_rate: Duration({ default: 5_000 }),
  dns_failure_refresh_rate: Type.Optional(
    Type.Object({ base_interval: Duration(), max_interval: Type.Optional(Duration()) }),
  ),
  dns_query_timeout: Duration({ default: 5_000 }),
  typed_dns_resolver_config: DnsResolverConfig.properties.typed_dns_resolver_config,
  dns_resolution_config: DnsResolverConfig.properties.dns_resolution_config,
  host_ttl: Duration({ default: 300_000 }),
  max_hosts: UInt32({ default: 1024 }),
  dns_cache_circuit_breaker: Type.Optional(
    Type.Object({ max_pending_requests: UInt32({ default: 1024 }) }),
  ),
  preresolve_hostnames: Type.Optional(
    Type.Array(
      Type.Object({
        address: Type.String({ minLength: 1 }),
        port_value: UInt32({ maximum: 65_535 }),
      }),
    ),
  ),
});
export type DnsCacheConfig = Static<typeof DnsCacheConfig>;

/** Topics between the workers, which have requests, and the control thread, which resolves names. */
export const wantedTopic = (cache: string): string => `dns_cache/${cache}/wanted`;
export const usedTopic = (cache: string): string => `dns_cache/${cache}/used`;
export const outcomeTopic = (cache: string): string => `dns_cache/${cache}/outcome`;

export interface NamedHost {
  /** Its id among the cluster's hosts: `name:port`, an IPv6 address in brackets. */
  readonly key: string;
  /** What is to be resolved; an IPv6 address without its brackets. */
  readonly name: string;
  readonly port: number;
}

/** The host that an authority names; undefined: it is no name and no address. */
export function namedHost(authority: string, defaultPort: number): NamedHost | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:/?#@[\]]{1,255}))(?::([0-9]{1,5}))?$/.exec(
    authority,
  );
  if (match === null) return undefined;
  const [, v6, plain, digits] = match;
  const name = v6 ?? plain ?? "";
  const port = digits === undefined ? defaultPort : Number(digits);
  if (port === 0 || port > 65_535 || (v6 !== undefined && !isIp(v6))) return undefined;
  return { key: `${v6 === undefined ? name : `[${name}]`}:${port}`, name, port };
}

/** The host that filter state names, else the one that the authority names. A port of the state stands in for one that is not named. */
export function statedHost(
  state: ReadonlyMap<string, unknown> | undefined,
  authority: string,
  defaultPort: number,
): NamedHost | undefined {
  if (state === undefined || state.size === 0) return namedHost(authority, defaultPort);
  const host = filterStateText(state.get(STATE.DYNAMIC_HOST));
  const port = state.get(STATE.DYNAMIC_PORT);
  const isPort = typeof port === "number" && port > 0 && port <= 65_535;
  return namedHost(host ?? authority, isPort ? port : defaultPort);
}
