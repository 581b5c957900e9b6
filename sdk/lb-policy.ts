import { latin1Decode, utf8Encode } from "./bytes.ts";
import type {
  Balancer,
  BalancerContext,
  Host,
  HostSet,
  LevelPolicy,
  LocalityPolicy,
} from "./cluster.ts";
import { EdfScheduler } from "./edf.ts";
import type { SetupContext } from "./extension.ts";
import { Percent } from "./jitter.ts";
import { compileHashPolicy, HashPolicyConfig, requestHash } from "./request-hash.ts";
import { type Runtime, RuntimeDouble, RuntimeNumber } from "./runtime.ts";
import { Duration, Enum, Extension, type Static, Type, UInt32 } from "./schema.ts";

/** Envoy's LocalityLbConfig: `locality_lb_config` of most policies. */
export const LocalityLbConfig = Type.Object({
  locality_weighted_lb_config: Type.Optional(Type.Object({})),
  zone_aware_lb_config: Type.Optional(
    Type.Object({
      routing_enabled: Type.Optional(Percent),
      min_cluster_size: UInt32({ default: 6 }),
      fail_traffic_on_panic: Type.Boolean({ default: false }),
      force_locality_direct_routing: Type.Boolean({ default: false }),
      force_local_zone: Type.Optional(Type.Object({ min_size: UInt32({ default: 1 }) })),
      locality_basis: Enum(["HEALTHY_HOSTS_NUM", "HEALTHY_HOSTS_WEIGHT"], {
        default: "HEALTHY_HOSTS_NUM",
      }),
    }),
  ),
});
export type LocalityLbConfig = Static<typeof LocalityLbConfig>;

/** The default is `zone_aware`, which has an effect once the bootstrap names the cluster that this proxy is a member of. */
export function localityPolicyOf(config: LocalityLbConfig | undefined): LocalityPolicy {
  if (config?.locality_weighted_lb_config !== undefined) return { type: "weighted" };
  const zones = config?.zone_aware_lb_config;
  return {
    type: "zone_aware",
    routingEnabled: Math.round(zones?.routing_enabled?.value ?? 100),
    minClusterSize: zones?.min_cluster_size ?? 6,
    failTrafficOnPanic: zones?.fail_traffic_on_panic ?? false,
    // The older field is a size of one.
    forceLocalZoneMinSize:
      zones?.force_local_zone?.min_size ?? (zones?.force_locality_direct_routing ? 1 : undefined),
    byWeight: zones?.locality_basis === "HEALTHY_HOSTS_WEIGHT",
  };
}

/** Envoy's SlowStartConfig. */
export const SlowStartConfig = Type.Object({
  slow_start_window: Duration({ default: 0 }),
  aggression: Type.Optional(RuntimeDouble),
  min_weight_percent: Type.Optional(Percent),
});
export type SlowStartConfig = Static<typeof SlowStartConfig>;

/** A host that has just become healthy gets few requests at first, and more as its time in the window goes by. */
export class SlowStart {
  readonly #windowMs: number;
  readonly #aggression: RuntimeNumber;
  readonly #least: number;
  readonly #now: () => number;

  constructor(config: SlowStartConfig, runtime: Runtime, now: () => number) {
    this.#windowMs = config.slow_start_window;
    this.#aggression = new RuntimeNumber(
      config.aggression ?? { default_value: 1, runtime_key: "" },
      runtime,
    );
    this.#least = (config.min_weight_percent?.value ?? 10) / 100;
    this.#now = now;
  }

  /** Whether the host is still in its window, so that its weight is not yet the full one. */
  isStarting(host: Host): boolean {
    return this.#windowMs > 0 && this.#now() - (host.healthySince ?? 0) <= this.#windowMs;
  }

  /** What the weight of a host is multiplied by. */
  factor(host: Host): number {
    const ms = this.#now() - (host.healthySince ?? 0);
    if (!(host.healthy && host.health !== "degraded") || ms >= this.#windowMs) return 1;
    const part = Math.max(1, ms) / this.#windowMs;
    const aggression = this.#aggression.value;
    const grown = aggression > 0 && aggression !== 1 ? part ** (1 / aggression) : part;
    return Math.max(grown, this.#least);
  }
}

/** Hosts take turns, as many as their weights say at the moment. For lists of one host at least. */
export class WeightedTurns implements Balancer {
  readonly #hosts: EdfScheduler<Host>;

  constructor(hosts: readonly Host[], weight: (host: Host) => number) {
    this.#hosts = new EdfScheduler(hosts, weight);
  }

  choose(): Host {
    return this.#hosts.pick();
  }

  peek(): Host {
    return this.choose();
  }
}

/** Envoy's ConsistentHashingLbConfig. */
export const ConsistentHashingLbConfig = Type.Object({
  use_hostname_for_hashing: Type.Optional(Type.Boolean()),
  hash_balance_factor: Type.Optional(UInt32({ minimum: 100 })),
  hash_policy: Type.Optional(Type.Array(HashPolicyConfig)),
});
export type ConsistentHashingLbConfig = Static<typeof ConsistentHashingLbConfig>;

/** What `hash_policy` adds to a policy that hashes: hashes of its own instead of those of the routes. */
export function ownHashOf(
  config: ConsistentHashingLbConfig,
  path: string,
  cx: SetupContext,
): Pick<LevelPolicy, "hash" | "byStream"> {
  const list = config.hash_policy ?? [];
  if (list.length === 0) return {};
  const policies = list.flatMap((policy, k) =>
    compileHashPolicy(policy, `${path}.hash_policy[${k}]`, cx),
  );
  return {
    byStream: true,
    hash: (context) => requestHash(policies, context, (cookie) => context.giveCookie?.(cookie)),
  };
}

/**
 * The text that places a host on a ring: `hash_key` of its metadata, else its host name if `useHostname`, else its address. One char
 * a byte of its UTF-8, as hashes count bytes.
 */
export function hashKeyOf(host: Host, useHostname: boolean): string {
  const metadata = host.metadata as
    | { filter_metadata?: { "envoy.lb"?: { hash_key?: unknown } } }
    | undefined;
  const own = metadata?.filter_metadata?.["envoy.lb"]?.hash_key;
  const name = useHostname && host.hostname !== "" ? host.hostname : host.key;
  const key = utf8Encode(typeof own === "string" && own !== "" ? own : name);
  return latin1Decode(key, 0, key.length);
}

/** The hash of a request; a random one if it has none. */
export function hashOf(context: BalancerContext): bigint {
  return context.hash ?? BigInt(Math.floor(Math.random() * 2 ** 53)) << 11n;
}

/**
 * Consistent hashing with bounded loads: a host takes no more than its share of all requests times a factor; requests beyond that go
 * to other hosts, in an order that depends on the hash alone.
 */
export class BoundedLoads implements Balancer {
  readonly #set: HostSet;
  readonly #inner: Balancer;
  /** Percent of a host's share. */
  readonly #factor: number;

  constructor(set: HostSet, inner: Balancer, factor: number) {
    this.#set = set;
    this.#inner = inner;
    this.#factor = factor;
  }

  choose(context: BalancerContext, attempt: number): Host | undefined {
    const { hosts, shares } = this.#set;
    const hash = hashOf(context);
    const first = this.#inner.choose(context.hash === undefined ? { hash } : context, attempt);
    if (first === undefined) return undefined;
    let active = 0;
    for (let k = 0; k < hosts.length; k++) active += hosts[k]!.activeRequests;
    const slots = Math.floor(((active + 1) * this.#factor + 99) / 100);
    const overload = (k: number): number =>
      hosts[k]!.activeRequests / Math.max(Math.ceil(slots * shares[k]!), 1);
    let least = overload(hosts.indexOf(first));
    if (least <= 1) return first;
    let best: Host = first;
    for (const k of shuffled(hosts.length, Number(hash & 0xffff_ffffn))) {
      const host = hosts[k]!;
      if (host === first) continue;
      const load = overload(k);
      if (load <= 1) return host;
      if (load < least) {
        least = load;
        best = host;
      }
    }
    return best;
  }
}

/** The order in which Envoy tries hosts: a Fisher-Yates shuffle driven by MT19937. */
function* shuffled(n: number, seed: number): Generator<number> {
  const random = mersenneTwister(seed);
  const order = Array.from({ length: n }, (_, k) => k);
  for (let k = 0; k < n; k++) {
    const bucket = Math.floor(2 ** 32 / (n - k));
    let at = n - k;
    while (at >= n - k) at = Math.floor(random() / bucket);
    [order[k], order[k + at]] = [order[k + at]!, order[k]!];
    yield order[k]!;
  }
}

/** MT19937, 32 bits: the standard's generator, seeded by one word. */
function mersenneTwister(seed: number): () => number {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let k = 1; k < 624; k++) {
    const before = state[k - 1]! ^ (state[k - 1]! >>> 30);
    state[k] = Math.imul(before, 1_812_433_253) + k;
  }
  let at = 624;
  const twist = (): void => {
    for (let k = 0; k < 624; k++) {
      const bits = (state[k]! & 0x8000_0000) | (state[(k + 1) % 624]! & 0x7fff_ffff);
      state[k] = state[(k + 397) % 624]! ^ (bits >>> 1) ^ ((bits & 1) * 0x9908_b0df);
    }
    at = 0;
  };
  return () => {
    if (at === 624) twist();
    let y = state[at++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c_5680;
    y ^= (y << 15) & 0xefc6_0000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

/** Envoy's LoadBalancingPolicy: policies in the order of preference. `setup` gets the first one that there is. */
export const LoadBalancingPolicy = Type.Object({
  policies: Type.Array(Type.Object({ typed_extension_config: Extension("balancer") }), {
    minItems: 1,
    preference: true,
  }),
});
export type LoadBalancingPolicy = Static<typeof LoadBalancingPolicy>;
