// Hot path: a choice a request.
import {
  type Balancer,
  defineBalancer,
  Enum,
  type Host,
  LocalityLbConfig,
  localityPolicyOf,
  RuntimeDouble,
  RuntimeNumber,
  SlowStart,
  SlowStartConfig,
  Type,
  UInt32,
  WeightedTurns,
} from "@tsproxy/sdk";

const MAX_CHOICES = 1024; // more draws than this cost time and change nothing

/** The one with the fewest requests of some hosts drawn at random; the first drawn wins a tie. */
class LeastOfSome implements Balancer {
  readonly #hosts: readonly Host[];
  readonly #choices: number;

  constructor(hosts: readonly Host[], choices: number) {
    this.#hosts = hosts;
    this.#choices = choices;
  }

  choose(): Host | undefined {
    const hosts = this.#hosts;
    let best = hosts[Math.floor(Math.random() * hosts.length)];
    if (best === undefined) return undefined;
    for (let k = 1; k < this.#choices; k++) {
      const host = hosts[Math.floor(Math.random() * hosts.length)]!;
      if (host.activeRequests < best.activeRequests) best = host;
    }
    return best;
  }
}

/** The one with the fewest requests of all; those that tie have equal chances. */
class LeastOfAll implements Balancer {
  readonly #hosts: readonly Host[];

  constructor(hosts: readonly Host[]) {
    this.#hosts = hosts;
  }

  choose(): Host | undefined {
    const hosts = this.#hosts;
    let best = hosts[0];
    let tied = 1;
    for (let k = 1; k < hosts.length; k++) {
      const host = hosts[k]!;
      if (host.activeRequests > best!.activeRequests) continue;
      tied = host.activeRequests < best!.activeRequests ? 1 : tied + 1;
      if (tied === 1 || Math.random() * tied < 1) best = host;
    }
    return best;
  }
}

export default defineBalancer({
  name: "envoy.load_balancing_policies.least_request",
  types: ["envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest"],
  config: Type.Object({
    choice_count: UInt32({ default: 2, minimum: 2 }),
    active_request_bias: Type.Optional(RuntimeDouble),
    slow_start_config: Type.Optional(SlowStartConfig),
    locality_lb_config: Type.Optional(LocalityLbConfig),
    enable_full_scan: Type.Optional(Type.Boolean()),
    selection_method: Enum(["N_CHOICES", "FULL_SCAN"], { default: "N_CHOICES" }),
  }),
  setup: (config, cx) => {
    const choices = Math.min(config.choice_count ?? 2, MAX_CHOICES);
    const fullScan = config.enable_full_scan === true || config.selection_method === "FULL_SCAN";
    const bias = new RuntimeNumber(
      config.active_request_bias ?? { default_value: 1, runtime_key: "" },
      cx.runtime,
    );
    const slow =
      config.slow_start_config &&
      new SlowStart(config.slow_start_config, cx.runtime, () => cx.now());
    // Of hosts with unequal weights, as of the last time that the host was chosen.
    const weight = (host: Host): number => {
      const busy = host.activeRequests + 1;
      const divisor = bias.value === 1 ? busy : busy ** Math.max(0, bias.value);
      return ((slow?.factor(host) ?? 1) * host.weight) / divisor;
    };
    return {
      localities: localityPolicyOf(config.locality_lb_config),
      create({ hosts }) {
        const first = hosts[0];
        const equal = hosts.every(
          (host) => host.weight === first!.weight && !slow?.isStarting(host),
        );
        if (!equal && hosts.length > 1) return new WeightedTurns(hosts, weight);
        return fullScan ? new LeastOfAll(hosts) : new LeastOfSome(hosts, choices);
      },
    };
  },
});
