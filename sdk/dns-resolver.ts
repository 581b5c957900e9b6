import { ConfigError } from "./extension.ts";
import { isIp } from "./ip.ts";
import { formatAddress } from "./network.ts";
import { type Static, Type, TypedExtension, UInt32 } from "./schema.ts";

const Resolvers = Type.Array(
  Type.Object({
    socket_address: Type.Object({
      address: Type.String({ minLength: 1 }),
      port_value: UInt32({ maximum: 65_535, default: 53 }),
      // c-ares begins with UDP, and takes TCP where an answer is too long for it.
      protocol: Type.Optional(Type.String()),
    }),
  }),
);

const SPACE = "envoy.extensions.network.dns_resolver.";
const CARES = `${SPACE}cares.v3.CaresDnsResolverConfig` as const;
const GETADDRINFO = `${SPACE}getaddrinfo.v3.GetAddrInfoDnsResolverConfig` as const;

/** Which servers are asked for names: fields that Envoy's Cluster, DnsCacheConfig and Bootstrap share. */
export const DnsResolverConfig = Type.Object({
  typed_dns_resolver_config: Type.Optional(
    TypedExtension({
      [CARES]: Type.Object({
        resolvers: Type.Optional(Resolvers),
        use_resolvers_as_fallback: Type.Optional(Type.Boolean()),
        query_timeout_seconds: Type.Optional(UInt32({ minimum: 1 })),
        query_tries: Type.Optional(UInt32({ minimum: 1 })),
      }),
      [GETADDRINFO]: Type.Object({}),
    }),
  ),
  /** The older form. */
  dns_resolution_config: Type.Optional(Type.Object({ resolvers: Type.Optional(Resolvers) })),
});
export type DnsResolverConfig = Static<typeof DnsResolverConfig>;

/** As core's `dns.resolve` takes them. */
export interface DnsResolverOptions {
  /** `ip:port`; empty: those of /etc/resolv.conf. */
  readonly servers: readonly string[];
  /** True: `servers` are asked only for what the system's do not know. False: nobody else is asked. */
  readonly fallback: boolean;
  /** The system's resolver alone is used (getaddrinfo), whose answers have no TTL. */
  readonly system: boolean;
  readonly timeoutMs?: number;
  readonly tries?: number;
}

/** Undefined: the config leaves the choice. Throws a ConfigError for a server that is no IP address. */
export function dnsResolverOptions(config: DnsResolverConfig): DnsResolverOptions | undefined {
  const { typed_dns_resolver_config: typed, dns_resolution_config: older } = config;
  if (typed === undefined) {
    if (older === undefined) return undefined;
    const at = "dns_resolution_config.resolvers";
    return { servers: serversOf(older.resolvers, at), fallback: false, system: false };
  }
  const how = typed.typed_config;
  if (how["@type"] === GETADDRINFO) return { servers: [], fallback: false, system: true };
  return {
    servers: serversOf(how.resolvers, "typed_dns_resolver_config.typed_config.resolvers"),
    fallback: how.use_resolvers_as_fallback === true,
    system: false,
    ...(how.query_timeout_seconds !== undefined && {
      timeoutMs: how.query_timeout_seconds * 1000,
    }),
    ...(how.query_tries !== undefined && { tries: how.query_tries }),
  };
}

function serversOf(resolvers: Static<typeof Resolvers> = [], at: string): string[] {
  return resolvers.map(({ socket_address: { address, port_value } }, k) => {
    if (!isIp(address))
      throw new ConfigError(`${at}[${k}].socket_address.address`, `"${address}" is no IP address`);
    return formatAddress({ ip: address, port: port_value });
  });
}
