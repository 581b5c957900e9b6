import { isIPv4, isIPv6 } from "node:net";
import { type Static, Type } from "@sinclair/typebox";
import { Duration, Enum, Extension, type ExtensionRef, UInt32 } from "@tsproxy/sdk";
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
    const place = placeOf(maker, range, "address_prefix");
    const v4 = isIPv4(range.address_prefix);
    if (!v4 && !isIPv6(range.address_prefix))
      report.error(place, `malformed IP address: ${range.address_prefix}`);
    else if (v4 && range.prefix_len > 32)
      report.error(placeOf(maker, range, "prefix_len"), `${range.prefix_len} is more than 32`);
  }
  for (const [i, name] of (match.server_names ?? []).entries()) {
    const list = maker.origin.get(match.server_names!);
    const place =
      (list?.kind === "list" ? list.items[i]?.place : undefined) ??
      placeOf(maker, match, "server_names");
    if (name === "*")
      report.error(place, '"*" is not a server name', "leave server_names out to match every name");
    else if (name.replace(/^\*\./, "").includes("*"))
      report.error(
        place,
        `partial wildcard "${name}"`,
        'a wildcard is a whole first label: "*.example.com"',
      );
  }
}

// `checkMatches` compares all combinations of a match's values. It skips a match with more combinations than this.
const MAX_COMBINATIONS = 50_000;

/** Reports filter chains whose matches have a combination of values in common: Envoy allows one filter chain for each. */
export function checkMatches(
  chains: readonly FilterChain[],
  configs: readonly FilterChainConfig[],
  maker: Maker,
): void {
  const owners = new Map<string, number>();
  configs.forEach((config, i) => {
    const keys = combinations(config.match);
    const taken = keys.map((key) => owners.get(key)).find((owner) => owner !== undefined);
    for (const key of keys) owners.set(key, i);
    if (taken === undefined) return;
    const node = maker.origin.get(chains[i]!)!;
    const match = node.kind === "map" ? node.get("filter_chain_match") : undefined;
    const other =
      configs[taken]!.name === "" ? `filter_chains[${taken}]` : `"${configs[taken]!.name}"`;
    const same = JSON.stringify(config.match) === JSON.stringify(configs[taken]!.match);
    maker.report.error(
      (match ?? node).place,
      same
        ? `this filter chain has the same matching rules as ${other}`
        : `this filter chain's matching rules overlap with those of ${other}`,
    );
  });
}

/** All combinations of a match's values, each as one string. Empty if there are more than MAX_COMBINATIONS. */
function combinations(match: FilterChainMatchConfig): string[] {
  const cidr = (ranges: readonly CidrConfig[] | undefined) =>
    ranges?.map((r) => `${r.address_prefix}/${r.prefix_len}`);
  const source = match.source_type === "ANY" ? undefined : match.source_type;
  const criteria: readonly (readonly (string | number)[] | undefined)[] = [
    match.destination_port === undefined ? undefined : [match.destination_port],
    cidr(match.prefix_ranges),
    match.server_names,
    match.transport_protocol === undefined ? undefined : [match.transport_protocol],
    match.application_protocols,
    cidr(match.direct_source_prefix_ranges),
    source === undefined ? undefined : [source],
    cidr(match.source_prefix_ranges),
    match.source_ports,
  ];
  let keys = [""];
  for (const values of criteria) {
    const each = values === undefined || values.length === 0 ? [""] : [...new Set(values)];
    if (keys.length * each.length > MAX_COMBINATIONS) return [];
    keys = keys.flatMap((key) => each.map((value) => `${key}|${value}`));
  }
  return keys;
}
