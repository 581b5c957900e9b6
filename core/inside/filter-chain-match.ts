import { type Address, parseIp } from "@tsproxy/sdk";
import type { CidrConfig, FilterChainMatchConfig } from "../protocol.ts";

/** What a connection's chain is chosen by. */
export interface MatchInput {
  readonly localAddress: Address;
  readonly remoteAddress: Address;
  /** The address of the socket's peer, whatever a PROXY header says. */
  readonly directAddress: Address;
  readonly serverName: string;
  readonly transportProtocol: string;
  readonly applicationProtocols: readonly string[];
}

interface Entry<T> {
  readonly match: Parsed;
  readonly value: T;
}

interface Parsed {
  readonly port: number | undefined;
  readonly destination: readonly Cidr[];
  /** In lower case; a wildcard without its `*`, as Envoy keeps it, so that `.example.com` is one as well. "": any name. */
  readonly serverNames: readonly string[];
  readonly transport: string;
  readonly applications: readonly string[];
  readonly directSource: readonly Cidr[];
  readonly sourceType: "ANY" | "SAME_IP_OR_LOOPBACK" | "EXTERNAL";
  readonly source: readonly Cidr[];
  readonly sourcePorts: readonly number[];
}

/**
 * Envoy's choice of a filter chain. Criterion by criterion, in Envoy's order, only the chains with the most specific matching
 * value stay. Less specific chains are never reconsidered, even if no chain fits a later criterion.
 */
export class FilterChainMatcher<T> {
  readonly #entries: readonly Entry<T>[];
  readonly #any: T | undefined;

  constructor(chains: readonly { readonly match: FilterChainMatchConfig; readonly value: T }[]) {
    this.#entries = chains.map(({ match, value }) => ({ match: parse(match), value }));
    this.#any =
      chains.length === 1 && Object.keys(chains[0]!.match).length === 0
        ? chains[0]!.value
        : undefined;
  }

  choose(input: MatchInput): T | undefined {
    if (this.#any !== undefined) return this.#any;
    let left = this.#entries;
    left = exactOrAny(left, (m) => m.port, input.localAddress.port);
    left = longestPrefix(left, (m) => m.destination, input.localAddress.ip);
    left = byServerName(left, input.serverName.toLowerCase());
    left = exactOrAny(
      left,
      (m) => (m.transport === "" ? undefined : m.transport),
      input.transportProtocol,
    );
    left = byApplication(left, input.applicationProtocols);
    left = longestPrefix(left, (m) => m.directSource, input.directAddress.ip);
    left = bySourceType(left, input);
    left = longestPrefix(left, (m) => m.source, input.remoteAddress.ip);
    left = bySourcePort(left, input.remoteAddress.port);
    return left[0]?.value;
  }
}

function exactOrAny<T, V>(
  entries: readonly Entry<T>[],
  of: (match: Parsed) => V | undefined,
  value: V,
): readonly Entry<T>[] {
  const exact = entries.filter((e) => of(e.match) === value);
  return exact.length > 0 ? exact : entries.filter((e) => of(e.match) === undefined);
}

function longestPrefix<T>(
  entries: readonly Entry<T>[],
  of: (match: Parsed) => readonly Cidr[],
  ip: string,
): readonly Entry<T>[] {
  if (entries.every((e) => of(e.match).length === 0)) return entries;
  const bytes = addressBytes(ip);
  let best = -1;
  const lengths = entries.map((e) => {
    const length = of(e.match).length === 0 ? -1 : prefixLength(of(e.match), bytes);
    if (length > best) best = length;
    return length;
  });
  if (best < 0) return entries.filter((e) => of(e.match).length === 0);
  return entries.filter((_, k) => lengths[k] === best);
}

/** Length of the longest prefix that contains the address; -2: none does. */
function prefixLength(cidrs: readonly Cidr[], ip: Uint8Array | undefined): number {
  let best = -2;
  for (const cidr of cidrs) if (cidr.length > best && contains(cidr, ip)) best = cidr.length;
  return best;
}

function byServerName<T>(entries: readonly Entry<T>[], name: string): readonly Entry<T>[] {
  if (name !== "") {
    const exact = entries.filter((e) => e.match.serverNames.includes(name));
    if (exact.length > 0) return exact;
    for (let dot = name.indexOf("."); dot >= 0; dot = name.indexOf(".", dot + 1)) {
      const suffix = name.slice(dot);
      const wildcard = entries.filter((e) => e.match.serverNames.includes(suffix));
      if (wildcard.length > 0) return wildcard;
    }
  }
  return entries.filter((e) => e.match.serverNames.includes(""));
}

function byApplication<T>(
  entries: readonly Entry<T>[],
  offered: readonly string[],
): readonly Entry<T>[] {
  for (const protocol of offered) {
    const named = entries.filter((e) => e.match.applications.includes(protocol));
    if (named.length > 0) return named;
  }
  return entries.filter((e) => e.match.applications.length === 0);
}

function bySourceType<T>(entries: readonly Entry<T>[], input: MatchInput): readonly Entry<T>[] {
  const local =
    isLoopback(input.remoteAddress.ip) || input.remoteAddress.ip === input.localAddress.ip;
  const type = local ? "SAME_IP_OR_LOOPBACK" : "EXTERNAL";
  const exact = entries.filter((e) => e.match.sourceType === type);
  return exact.length > 0 ? exact : entries.filter((e) => e.match.sourceType === "ANY");
}

function bySourcePort<T>(entries: readonly Entry<T>[], port: number): readonly Entry<T>[] {
  const exact = entries.filter((e) => e.match.sourcePorts.includes(port));
  return exact.length > 0 ? exact : entries.filter((e) => e.match.sourcePorts.length === 0);
}

function parse(match: FilterChainMatchConfig): Parsed {
  return {
    port: match.destination_port,
    destination: cidrs(match.prefix_ranges),
    serverNames: match.server_names?.length
      ? match.server_names.map((name) => name.toLowerCase().replace(/^\*\./, "."))
      : [""],
    transport: match.transport_protocol ?? "",
    applications: match.application_protocols ?? [],
    directSource: cidrs(match.direct_source_prefix_ranges),
    sourceType: match.source_type ?? "ANY",
    source: cidrs(match.source_prefix_ranges),
    sourcePorts: match.source_ports ?? [],
  };
}

interface Cidr {
  readonly bytes: Uint8Array;
  readonly length: number;
}

function cidrs(configs: readonly CidrConfig[] | undefined): readonly Cidr[] {
  return (configs ?? []).map((c) => {
    const bytes = addressBytes(c.address_prefix);
    if (bytes === undefined) throw new Error(`malformed IP address: ${c.address_prefix}`);
    return { bytes, length: Math.min(c.prefix_len, bytes.length * 8) };
  });
}

function contains(cidr: Cidr, ip: Uint8Array | undefined): boolean {
  if (ip === undefined || ip.length !== cidr.bytes.length) return false;
  for (let bit = 0; bit < cidr.length; bit += 8) {
    const mask = cidr.length - bit >= 8 ? 0xff : (0xff << (8 - (cidr.length - bit))) & 0xff;
    if ((ip[bit >> 3]! & mask) !== (cidr.bytes[bit >> 3]! & mask)) return false;
  }
  return true;
}

function isLoopback(ip: string): boolean {
  return ip.startsWith("127.") || ip === "::1";
}

/** Parses an IP address without its zone (`%eth0`). Undefined: no IP address. An IPv4-mapped one of a PROXY header is IPv6. */
export function addressBytes(text: string): Uint8Array | undefined {
  return parseIp(text.split("%", 1)[0]!);
}
