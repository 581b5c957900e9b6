import { isIPv4, isIPv6 } from "node:net";
import { type Static, Type } from "@sinclair/typebox";
import { Duration, Enum, Extension, type ExtensionRef, maskedIp, UInt32 } from "@tsproxy/sdk";
import type { CidrConfig, FilterChainConfig, FilterChainMatchConfig } from "../protocol.ts";
import { type Maker, placeOf } from "./maker.ts";

/** Envoy's core.v3.Metadata; access logs can print it. */
export const Metadata = Type.Optional(
  Type.Object({
    filter_metadata: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  }),
);

const CidrRange = Type.Object({
  address_prefix: Type.String({ minLength: 1 }),
  prefix_len: UInt32({ default: 0, maximum: 128 }),
});

const FilterChainMatch = Type.Object({
  destination_port: Type.Optional(UInt32({ minimum: 1, maximum: 65535 })),
  prefix_ranges: Type.Optional(Type.Array(CidrRange)),
  server_names: Type.Optional(Type.Array(Type.String())),
  transport_protocol: Type.Optional(Type.String()),
  application_protocols: Type.Optional(Type.Array(Type.String())),
  direct_source_prefix_ranges: Type.Optional(Type.Array(CidrRange)),
  source_type: Type.Optional(Enum(["ANY", "SAME_IP_OR_LOOPBACK", "EXTERNAL"])),
  source_prefix_ranges: Type.Optional(Type.Array(CidrRange)),
  source_ports: Type.Optional(Type.Array(UInt32({ minimum: 1, maximum: 65535 }))),
});

export const FilterChain = Type.Object({
  name: Type.Optional(Type.String()),
  filter_chain_match: Type.Optional(FilterChainMatch),
  transport_socket: Type.Optional(Extension("transport")),
  transport_socket_connect_timeout: Type.Optional(Duration()),
  filters: Type.Optional(Type.Array(Extension("network"))),
  metadata: Metadata,
});
export type FilterChain = Static<typeof FilterChain>;

/** Turns a checked filter chain into its FilterChainConfig. Errors in its match are reported. */
export function chainConfig(chain: FilterChain, maker: Maker): FilterChainConfig {
  const match: FilterChainMatchConfig = chain.filter_chain_match ?? {};
  checkCriteria(match, maker);
  const filters = (chain.filters ?? []).filter((f): f is ExtensionRef => f !== undefined);
  const config = {
    name: chain.name ?? "",
    match,
    ...(chain.transport_socket !== undefined && { transport: chain.transport_socket }),
    ...(chain.transport_socket_connect_timeout !== undefined && {
      transportTimeoutMs: chain.transport_socket_connect_timeout,
    }),
    ...(chain.metadata !== undefined && { metadata: chain.metadata }),
    filters,
  };
  maker.origin.set(config, maker.origin.get(chain)!);
  maker.origin.set(filters, maker.origin.get(chain.filters ?? chain)!);
  return config;
}

function checkCriteria(match: FilterChainMatchConfig, maker: Maker): void {
  const { report } = maker;
  const ranges = [
    ...(match.prefix_ranges ?? []),
    ...(match.direct_source_prefix_ranges ?? []),
    ...(match.source_prefix_ranges ?? []),
  ];
  for (const range of ranges) {
    if (range?.address_prefix === undefined) continue;
    if (!isIPv4(range.address_prefix) && !isIPv6(range.address_prefix))
      report.error(
        placeOf(maker, range, "address_prefix"),
        `malformed IP address: ${range.address_prefix}`,
      );
  }
  for (const [i, name] of (match.server_names ?? []).entries()) {
    const list = maker.origin.get(match.server_names!);
    const place =
      (list?.kind === "list" ? list.items[i]?.place : undefined) ??
      placeOf(maker, match, "server_names");
    if (name === "*")
      report.error(place, '"*" is not a server name', "leave server_names out to match every name");
    // Stars behind a whole first label are no wildcards, but Envoy takes them: they match themselves.
    else if (name.includes("*") && !name.startsWith("*."))
      report.error(
        place,
        `partial wildcard "${name}"`,
        'a wildcard is a whole first label: "*.example.com"',
      );
  }
}

/** Reports filter chains whose matches have a combination of values in common: Envoy allows one filter chain for each. */
export function checkMatches(
  chains: readonly FilterChain[],
  configs: readonly FilterChainConfig[],
  maker: Maker,
): void {
  const criteria = configs.map((config) => comparable(config.match));
  for (const config of configs) checkRepetitions(config.match, maker);
  for (const [chain, first] of overlaps(criteria)) {
    const node = maker.origin.get(chains[chain]!)!;
    const match = node.kind === "map" ? node.get("filter_chain_match") : undefined;
    const { name } = configs[first]!;
    const other = name === "" ? `filter_chains[${first}]` : `"${name}"`;
    const same = JSON.stringify(configs[chain]!.match) === JSON.stringify(configs[first]!.match);
    maker.report.error(
      (match ?? node).place,
      same
        ? `this filter chain has the same matching rules as ${other}`
        : `this filter chain's matching rules overlap with those of ${other}`,
    );
  }
}

type Values = readonly (string | number)[];

/** The values of each criterion, each thing written in one way: `10.1.2.3/16` is `10.1.0.0/16`, and `*.A.b` is `.a.b`. */
function comparable(match: FilterChainMatchConfig): Readonly<Record<string, Values>> {
  const cidrs = (ranges: readonly CidrConfig[] = []) =>
    ranges.map((r) => maskedIp(r.address_prefix, r.prefix_len, r.prefix_len) ?? r.address_prefix);
  const { destination_port: port, transport_protocol: transport, source_type: type } = match;
  return {
    destination_port: port === undefined ? [] : [port],
    prefix_ranges: cidrs(match.prefix_ranges),
    server_names: (match.server_names ?? []).map((name) =>
      name.toLowerCase().replace(/^\*\./, "."),
    ),
    transport_protocol: transport === undefined ? [] : [transport],
    application_protocols: match.application_protocols ?? [],
    direct_source_prefix_ranges: cidrs(match.direct_source_prefix_ranges),
    source_type: type === undefined || type === "ANY" ? [] : [type],
    source_prefix_ranges: cidrs(match.source_prefix_ranges),
    source_ports: match.source_ports ?? [],
  };
}

/** A value that stands twice in one match is a combination twice: Envoy refuses that too. */
function checkRepetitions(match: FilterChainMatchConfig, maker: Maker): void {
  for (const [criterion, values] of Object.entries(comparable(match))) {
    if (new Set(values).size === values.length) continue;
    const again = values.find((value, k) => values.indexOf(value) < k);
    const place = placeOf(maker, match, criterion);
    maker.report.error(place, `${JSON.stringify(again)} stands here twice`, "take one of them out");
  }
}

/**
 * Which chains overlap, each with the first one that it overlaps with. Chains that have a value in common are compared by
 * the next criterion; a group that many values have in common is so once.
 */
function overlaps(chains: readonly Readonly<Record<string, Values>>[]): Map<number, number> {
  const found = new Map<number, number>();
  const criteria = Object.keys(chains[0] ?? {});
  const compare = (group: readonly number[], depth: number): void => {
    if (depth === criteria.length) {
      for (const chain of group.slice(1)) if (!found.has(chain)) found.set(chain, group[0]!);
      return;
    }
    const groups = new Map<string | number, Set<number>>();
    for (const chain of group) {
      const values = chains[chain]![criteria[depth]!]!;
      for (const value of values.length === 0 ? [""] : values) {
        const sharing = groups.get(value);
        if (sharing === undefined) groups.set(value, new Set([chain]));
        else sharing.add(chain);
      }
    }
    const distinct = new Map<string, readonly number[]>();
    for (const sharing of groups.values())
      if (sharing.size > 1) distinct.set([...sharing].join(), [...sharing]);
    for (const sharing of distinct.values()) compare(sharing, depth + 1);
  };
  compare([...chains.keys()], 0);
  return found;
}
