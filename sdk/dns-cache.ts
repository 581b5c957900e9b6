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
/** See `wantedTopic`: names that requests have used lately. */
export const usedTopic = (cache: string): string => `dns_cache/${cache}/used`;
/** See `wantedTopic`: what names have been resolved to. */
export const outcomeTopic = (cache: string): string => `dns_cache/${cache}/outcome`;

/** A host that a request has named. */
export interface NamedHost {
  /** Its id among the cluster's hosts: the authority, with a port in any case. */
  readonly key: string;
  /** What is to be resolved; an IPv6 address without its brackets. */
  readonly name: string;
  readonly port: number;
}

/** No name is that long, with its port; such an authority is not worth an entry of a cache. */
const LONGEST = 512;

/**
 * The host that an authority names, whether or not it can exist; undefined if it names none. As in Envoy, what follows the last
 * colon is part of the name unless it is a port, and hosts are told apart by how the authority is written.
 */
export function namedHost(authority: string, defaultPort: number): NamedHost | undefined {
  if (authority === "" || authority.length > LONGEST) return undefined;
  const colon = authority.lastIndexOf(":");
  const isBare = colon <= authority.lastIndexOf("]");
  const port = isBare ? undefined : portOf(authority.slice(colon + 1));
  const name = port === undefined ? authority : authority.slice(0, colon);
  const literal = name.startsWith("[") && name.endsWith("]") ? name.slice(1, -1) : "";
  return {
    key: isBare ? `${authority}:${defaultPort}` : authority,
    name: isIp(literal) ? literal : name,
    port: port ?? defaultPort,
  };
}

function portOf(digits: string): number | undefined {
  if (!/^\+?\d+$/.test(digits)) return undefined;
  const port = Number(digits);
  return port > 65_535 ? undefined : port;
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
