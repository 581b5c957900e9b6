import { type Address, CidrRanges, parseIp } from "@tsproxy/sdk";
import type { CommonTlsContext } from "./config.ts";

/** Tells whether the TLS secrets of a connection are logged. */
export type KeyLogRule = (local: Address, remote: Address) => boolean;

/** Compiles `key_log`; undefined: no secrets are logged. */
export function keyLogRule({ key_log: log }: CommonTlsContext): KeyLogRule | undefined {
  if (log === undefined) return undefined;
  const path = "common_tls_context.key_log";
  const local = ranges(log.local_address_range, `${path}.local_address_range`);
  const remote = ranges(log.remote_address_range, `${path}.remote_address_range`);
  return (here, there) => local(here) && remote(there);
}

/** Compiles a list of ranges; an empty one matches every address. */
function ranges(
  list: ConstructorParameters<typeof CidrRanges>[0] | undefined,
  path: string,
): (address: Address) => boolean {
  if (list === undefined || list.length === 0) return () => true;
  const all = new CidrRanges(list, path);
  return ({ ip }) => {
    const bytes = parseIp(ip);
    return bytes !== undefined && all.contains(bytes);
  };
}
