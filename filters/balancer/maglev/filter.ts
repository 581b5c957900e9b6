import {
  BoundedLoads,
  ConfigError,
  ConsistentHashingLbConfig,
  defineBalancer,
  ownHashOf,
  Type,
  UInt32,
} from "@tsproxy/sdk";
import { MaglevTable } from "./table.ts";

export default defineBalancer({
  name: "envoy.load_balancing_policies.maglev",
  types: ["envoy.extensions.load_balancing_policies.maglev.v3.Maglev"],
  config: Type.Object({
    /** Apart from Envoy's fields: where its gauges stand, `cluster.<name>.`. */
    stat_prefix: Type.String({ default: "" }),
    table_size: UInt32({ default: 65_537, minimum: 2, maximum: 5_000_011 }),
    consistent_hashing_lb_config: Type.Optional(ConsistentHashingLbConfig),
    locality_weighted_lb_config: Type.Optional(Type.Object({})),
  }),
  setup(config, cx) {
    const { table_size: size } = config;
    if (!isPrime(size))
      throw new ConfigError(
        "table_size",
        `the table size of maglev must be prime number; ${size} is none, write 65537`,
      );
    const hashing = config.consistent_hashing_lb_config ?? {};
    const useHostname = hashing.use_hostname_for_hashing ?? false;
    const factor = hashing.hash_balance_factor ?? 0;
    const scope = cx.stats.scope(`${config.stat_prefix}maglev_lb.`);
    // The gauges of all threads are added up, so only one of them may set these.
    const counts = cx.role === "control";
    const minPerHost = scope.gauge("min_entries_per_host");
    const maxPerHost = scope.gauge("max_entries_per_host");
    return {
      hashing: true,
      ...ownHashOf(config.consistent_hashing_lb_config ?? {}, "consistent_hashing_lb_config", cx),
      ...(config.locality_weighted_lb_config !== undefined && {
        localities: { type: "weighted" as const },
      }),
      create(set) {
        const table = new MaglevTable(set, size, useHostname);
        if (counts && set.hosts.length > 0) {
          minPerHost.set(table.minPerHost);
          maxPerHost.set(table.maxPerHost);
        }
        return factor === 0 ? table : new BoundedLoads(set, table, factor);
      },
    };
  },
});

function isPrime(n: number): boolean {
  if (n < 2) return false;
  for (let k = 2; k * k <= n; k++) if (n % k === 0) return false;
  return true;
}
