import { promises as dns } from "node:dns";
import { readFileSync, statSync } from "node:fs";
import { isIP } from "node:net";
import { networkInterfaces } from "node:os";
import type { DnsResolverOptions } from "@tsproxy/sdk";

/** An address of a name. */
export interface Resolved {
  readonly ip: string;
  /** Seconds; 0: unknown. */
  readonly ttl: number;
}
export type Family = "AUTO" | "V4_ONLY" | "V6_ONLY" | "V4_PREFERRED" | "ALL";

const HOSTS_FILE = "/etc/hosts";
let hosts = new Map<string, string[]>();
let hostsStamp = "";

/** A name's addresses in the hosts file, which Node's DNS queries do not look at. The file is read again when it has changed. */
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
 * The addresses of a name that need no server: those of the hosts file, and those of this machine for `localhost` and names below
 * it (RFC 6761 §6.3), in each family that the file does not have. `localhost.` is asked of servers, as c-ares and getaddrinfo do.
 */
function known(name: string, version: 4 | 6): readonly Resolved[] {
  const listed = fromHostsFile(name).filter((ip) => isIP(ip) === version);
  if (listed.length === 0 && /(^|\.)localhost$/i.test(name))
    listed.push(version === 6 ? "::1" : "127.0.0.1");
  return listed.map((ip) => ({ ip, ttl: 0 }));
}

/** getaddrinfo takes such names for addresses in inet_aton's forms (`127.1`, `0x7f000001`), which c-ares and thus Envoy do not. */
const ENDS_IN_NUMBER = /(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)\.?$/i;

/**
 * Resolves a name: by what needs no server, then by DNS with TTLs, then by the system's resolver. With `servers` these are the only
 * resolvers besides the hosts file, or, with `fallback`, the last ones; with `system` DNS is not queried. An empty list: the name
 * has no address. Rejects if no resolver could be asked.
 */
export async function resolveName(
  name: string,
  family: Family,
  options: DnsResolverOptions = SYSTEM,
): Promise<readonly Resolved[]> {
  if (isIP(name) !== 0) return [{ ip: name, ttl: 0 }];
  const local = pick(family, known(name, 4), known(name, 6));
  if (local.length > 0) return local;
  if (options.system) return (await lookUp(name, family)) ?? [];
  const { servers, fallback } = options;
  const first = await query(name, family, fallback ? { ...options, servers: [] } : options);
  if (first.found.length > 0) return first.found;
  if (servers.length > 0 && !fallback) {
    if (first.asked) return [];
    throw new Error(`no answer from ${servers.join(", ")}`);
  }
  const looked = ENDS_IN_NUMBER.test(name)
    ? undefined
    : await lookUp(name, family).catch((error: Error) => error);
  if (looked !== undefined && !(looked instanceof Error) && looked.length > 0) return looked;
  if (fallback) {
    const second = await query(name, family, options);
    if (second.asked) return second.found;
  }
  if (looked instanceof Error) throw looked;
  if (looked === undefined && !first.asked) throw new Error(`getaddrinfo ENOTFOUND ${name}`);
  return [];
}

/** Asks by DNS. `asked`: a server has answered, if only that there is no such name. */
async function query(
  name: string,
  family: Family,
  options: DnsResolverOptions,
): Promise<{ readonly found: readonly Resolved[]; readonly asked: boolean }> {
  const [v4, v6] = await Promise.all([
    family === "V6_ONLY" ? [] : ask(options, (resolver) => resolver.resolve4(name, { ttl: true })),
    family === "V4_ONLY" ? [] : ask(options, (resolver) => resolver.resolve6(name, { ttl: true })),
  ]);
  const asked =
    family === "V6_ONLY"
      ? v6 !== undefined
      : v4 !== undefined || (family !== "V4_ONLY" && v6 !== undefined);
  return { found: pick(family, v4 ?? [], v6 ?? []), asked };
}

/** Asks the system's resolver (getaddrinfo). Undefined: there is no such name. */
async function lookUp(name: string, family: Family): Promise<readonly Resolved[] | undefined> {
  try {
    const looked = await dns.lookup(name, { all: true });
    const of = (version: 4 | 6) =>
      looked.filter((a) => a.family === version).map(({ address }) => ({ ip: address, ttl: 0 }));
    return pick(family, of(4), of(6));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOTFOUND") return undefined;
    throw error;
  }
}

const SYSTEM: DnsResolverOptions = { servers: [], fallback: false, system: false };
type Resolver = Pick<dns.Resolver, "resolve4" | "resolve6">;
const resolvers = new Map<string, Resolver>();

/** A resolver with these options, kept for the life of the thread: configs name few. */
function resolverOf({ servers, timeoutMs, tries }: DnsResolverOptions): Resolver {
  if (servers.length === 0 && timeoutMs === undefined && tries === undefined) return dns;
  const key = JSON.stringify([servers, timeoutMs, tries]);
  let resolver = resolvers.get(key);
  if (resolver === undefined) {
    const made = new dns.Resolver({
      ...(timeoutMs !== undefined && { timeout: timeoutMs }),
      ...(tries !== undefined && { tries }),
    });
    if (servers.length > 0) made.setServers(servers);
    resolvers.set(key, (resolver = made));
  }
  return resolver;
}

/** Node's own, and Envoy's. */
const TRIES = 4;
/** Answers of servers that could not answer. Node takes such a one for the last word; c-ares by itself, as in Envoy, asks on. */
const NO_ANSWERS: ReadonlySet<unknown> = new Set(["ESERVFAIL", "ENOTIMP", "EREFUSED"]);

/**
 * Asks a server, and the next one if it has no answer, each as often as `tries` says; servers that are silent pass within the resolver.
 * Undefined: none has answered.
 */
async function ask(
  options: DnsResolverOptions,
  query: (resolver: Resolver) => Promise<{ address: string; ttl: number }[]>,
): Promise<Resolved[] | undefined> {
  const { tries = TRIES } = options;
  const servers = options.servers.length > 0 ? options.servers : dns.getServers();
  const turns = Math.max(1, servers.length) * tries;
  for (let turn = 0; turn < turns; turn++) {
    const first = turn % Math.max(1, servers.length);
    const inTurn = [...servers.slice(first), ...servers.slice(0, first)];
    try {
      const resolver = resolverOf(first === 0 ? options : { ...options, servers: inTurn });
      return (await query(resolver)).map(({ address, ttl }) => ({ ip: address, ttl }));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "ENODATA" || code === "ENOTFOUND") return [];
      if (!NO_ANSWERS.has(code)) return undefined;
    }
  }
  return undefined;
}

function pick(
  family: Family,
  v4: readonly Resolved[],
  v6: readonly Resolved[],
): readonly Resolved[] {
  if (family === "V4_ONLY") return v4;
  if (family === "V6_ONLY") return v6;
  if (family === "ALL") return [...v6, ...v4];
  if (family === "AUTO" && v6.length > 0 && reachesIpv6(v6)) return v6;
  return v4.length > 0 ? v4 : v6;
}

/**
 * True if this machine has an IPv6 address to reach these from: any one for its own loopback, else one beyond it (AI_ADDRCONFIG of
 * getaddrinfo).
 */
function reachesIpv6(addresses: readonly Resolved[]): boolean {
  const isLoopback = addresses.every(({ ip }) => ip === "::1");
  return Object.values(networkInterfaces()).some((list) =>
    list?.some((a) => a.family === "IPv6" && (isLoopback || !a.internal)),
  );
}
