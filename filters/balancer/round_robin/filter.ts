// Hot path: a choice a request.
import {
  type Balancer,
  defineBalancer,
  type Host,
  LocalityLbConfig,
  localityPolicyOf,
  SlowStart,
  SlowStartConfig,
  type Turns,
  Type,
  WeightedTurns,
} from "@tsproxy/sdk";

/** Hosts take turns. All workers count together, so the order holds whichever of them a connection lands on. */
class EqualTurns implements Balancer {
  readonly #hosts: readonly Host[];
  readonly #turns: Turns;

  constructor(hosts: readonly Host[], turns: Turns) {
    this.#hosts = hosts;
    this.#turns = turns;
  }

  choose(): Host | undefined {
    return this.#hosts[this.#turns.next() % this.#hosts.length];
  }

  peek(): Host | undefined {
    return this.choose();
  }
}

export default defineBalancer({
  name: "envoy.load_balancing_policies.round_robin",
  types: ["envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin"],
  config: Type.Object({
    /** Apart from Envoy's fields: whose hosts they are. */
    cluster: Type.String({ default: "" }),
    slow_start_config: Type.Optional(SlowStartConfig),
    locality_lb_config: Type.Optional(LocalityLbConfig),
  }),
  setup: (config, cx) => {
    const slow =
      config.slow_start_config &&
      new SlowStart(config.slow_start_config, cx.runtime, () => cx.now());
    const weight =
      slow === undefined
        ? (host: Host) => host.weight
        : (host: Host) => host.weight * slow.factor(host);
    return {
      localities: localityPolicyOf(config.locality_lb_config),
      create({ key, hosts }) {
        const first = hosts[0];
        const equal = hosts.every(
          (host) => host.weight === first!.weight && !slow?.isStarting(host),
        );
        if (!equal && hosts.length > 1) return new WeightedTurns(hosts, weight);
        return new EqualTurns(hosts, cx.turns(`round_robin ${config.cluster} ${key}`));
      },
    };
  },
});
