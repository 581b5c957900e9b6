const MAPPED = "::ffff:";

/** An address of a socket as Envoy takes it: that of an IPv4 peer of an IPv6 socket (`ipv4_compat`) is an IPv4 address. */
export function unmapped(ip: string): string {
  return ip.startsWith(MAPPED) && ip.includes(".") ? ip.slice(MAPPED.length) : ip;
}
