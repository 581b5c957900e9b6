import {
  BoundedLoads,
  ConfigError,
  ConsistentHashingLbConfig,
  defineBalancer,
  Enum,
  ownHashOf,
  Type,
  UInt32,
} from "@tsproxy/sdk";
import { Ring } from "./ring.ts";

const MOST = 8 * 1024 * 1024;

export default defineBalancer({
  name: "envoy.load_balancing_policies.ring_hash",
  types: ["envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash"],
  config: Type.Object({
    /** Apart from Envoy's fields: where its gauges stand, `cluster.<name>.`. */
    stat_prefix: Type.String({ default: "" }),
    hash_function: Enum(["DEFAULT_HASH", "XX_HASH", "MURMUR_HASH_2"], { default: "XX_HASH" }),
    minimum_ring_size: UInt32({ default: 1024, maximum: MOST, minimum: 1 }),
    maximum_ring_size: UInt32({ default: MOST, maximum: MOST }),
    use_hostname_for_hashing: Type.Optional(Type.Boolean()),
    hash_balance_factor: Type.Optional(UInt32({ minimum: 100 })),
    consistent_hashing_lb_config: Type.Optional(ConsistentHashingLbConfig),
    locality_weighted_lb_config: Type.Optional(Type.Object({})),
  }),
  setup(config, cx) {
    const { minimum_ring_size: least, maximum_ring_size: most } = config;
    if (least > most)
      throw new ConfigError(
        "minimum_ring_size",
        `ring hash: minimum_ring_size (${least}) > maximum_ring_size (${most}); lower it`,
      );
    const hashing = config.consistent_hashing_lb_config ?? config;
    const options = {
      least,
      most,
      hashFunction: config.hash_function === "MURMUR_HASH_2" ? "MURMUR_HASH_2" : "XX_HASH",
      useHostname: hashing.use_hostname_for_hashing ?? false,
    } as const;
    const factor = hashing.hash_balance_factor ?? 0;
    const scope = cx.stats.scope(`${config.stat_prefix}ring_hash_lb.`);
    // The gauges of all threads are added up, so only one of them may set these.
    const counts = cx.role === "control";
    const size = scope.gauge("size");
    const minPerHost = scope.gauge("min_hashes_per_host");
    const maxPerHost = scope.gauge("max_hashes_per_host");
    return {
      hashing: true,
      ...ownHashOf(config.consistent_hashing_lb_config ?? {}, "consistent_hashing_lb_config", cx),
      ...(config.locality_weighted_lb_config !== undefined && {
        localities: { type: "weighted" as const },
      }),
      create(set) {
        const ring = new Ring(set, options);
        if (counts && set.hosts.length > 0) {
          size.set(ring.figures.size);
          minPerHost.set(ring.figures.minPerHost);
          maxPerHost.set(ring.figures.maxPerHost);
        }
        return factor === 0 ? ring : new BoundedLoads(set, ring, factor);
      },
    };
  },
});
