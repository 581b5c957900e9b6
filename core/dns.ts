import { promises as dns } from "node:dns";
import { readFileSync, statSync } from "node:fs";
import { isIP } from "node:net";
import { networkInterfaces } from "node:os";

export interface Resolved {
  readonly ip: string;
  /** Seconds; 0 where nobody gave one. */
  readonly ttl: number;
}
export type Family = "AUTO" | "V4_ONLY" | "V6_ONLY" | "V4_PREFERRED" | "ALL";

const HOSTS_FILE = "/etc/hosts";
let hosts = new Map<string, string[]>();
let hostsStamp = "";

/** The hosts file, read again when it has changed. c-ares alone would miss it. */
function fromHostsFile(name: string): readonly string[] {
  try {
    const { mtimeMs, size } = statSync(HOSTS_FILE);
    const stamp = `${mtimeMs}:${size}`;
    if (stamp !== hostsStamp) {
      hostsStamp = stamp;
      hosts = new Map();
      for (const line of readFileSync(HOSTS_FILE, "utf8").split("\n")) {
        const [ip, ...names] = line.replace(/#.*/, "").trim().split(/\s+/);
        if (ip === undefined || isIP(ip) === 0) continue;
        for (const n of names)
          hosts.set(n.toLowerCase(), [...(hosts.get(n.toLowerCase()) ?? []), ip]);
      }
    }
  } catch {
    return [];
  }
  return hosts.get(name.toLowerCase()) ?? [];
}

/**
 * All addresses of a name: the hosts file first, then DNS with TTLs, then the system's resolver. An empty list means that the
 * name has none; rejects if nobody could be asked.
 */
export async function resolveName(name: string, family: Family): Promise<readonly Resolved[]> {
  if (isIP(name) !== 0) return [{ ip: name, ttl: 0 }];
  const fromFile = fromHostsFile(name);
  const of = (version: 4 | 6): Resolved[] =>
    fromFile.filter((ip) => isIP(ip) === version).map((ip) => ({ ip, ttl: 0 }));
  if (fromFile.length > 0) {
    const chosen = pick(family, of(4), of(6));
    if (chosen.length > 0) return chosen;
  }
  const want4 = family !== "V6_ONLY";
  const want6 = family !== "V4_ONLY";
  const [v4, v6] = await Promise.all([
    want4 ? ask(() => dns.resolve4(name, { ttl: true })) : [],
    want6 ? ask(() => dns.resolve6(name, { ttl: true })) : [],
  ]);
  const found = pick(family, v4 ?? [], v6 ?? []);
  if (found.length > 0) return found;
  try {
    const looked = await dns.lookup(name, { all: true });
    const list = looked.map(({ address }) => ({ ip: address, ttl: 0 }));
    return pick(
      family,
      list.filter((a) => isIP(a.ip) === 4),
      list.filter((a) => isIP(a.ip) === 6),
    );
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOTFOUND" && (v4 !== undefined || v6 !== undefined)) return [];
    throw error;
  }
}

/** Undefined: the server could not be asked. */
async function ask(
  query: () => Promise<{ address: string; ttl: number }[]>,
): Promise<Resolved[] | undefined> {
  try {
    return (await query()).map(({ address, ttl }) => ({ ip: address, ttl }));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    return code === "ENODATA" || code === "ENOTFOUND" ? [] : undefined;
  }
}

function pick(
  family: Family,
  v4: readonly Resolved[],
  v6: readonly Resolved[],
): readonly Resolved[] {
  if (family === "V4_ONLY") return v4;
  if (family === "V6_ONLY") return v6;
  if (family === "ALL") return [...v6, ...v4];
  if (family === "V4_PREFERRED" || !routesIpv6()) return v4.length > 0 ? v4 : v6;
  return v6.length > 0 ? v6 : v4;
}

/** As getaddrinfo's AI_ADDRCONFIG: without an address beyond loopback nothing IPv6 can be reached. */
function routesIpv6(): boolean {
  return Object.values(networkInterfaces()).some((list) =>
    list?.some((a) => a.family === "IPv6" && !a.internal),
  );
}
