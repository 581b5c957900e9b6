// Hot path: a choice a request.
import {
  type Balancer,
  defineBalancer,
  EdfScheduler,
  type Host,
  type Turns,
  Type,
} from "@tsproxy/sdk";

/** The weighted order begins at a random place, so that workers do not all begin with the same host. */
const START = 1 << 29;

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
}

/** Hosts take turns, as many as their weights say. */
class WeightedTurns implements Balancer {
  readonly #hosts: EdfScheduler<Host>;

  constructor(hosts: readonly Host[], picks: number) {
    this.#hosts = new EdfScheduler(hosts, (host) => host.weight, picks);
  }

  choose(): Host {
    return this.#hosts.pick();
  }
}

export default defineBalancer({
  name: "envoy.load_balancing_policies.round_robin",
  types: ["envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin"],
  config: Type.Object({ cluster: Type.String({ default: "" }) }),
  setup: (config, cx) => {
    const turns = cx.turns(`round_robin ${config.cluster}`);
    return (hosts) => {
      const first = hosts[0];
      if (first === undefined || hosts.every((host) => host.weight === first.weight)) {
        return new EqualTurns(hosts, turns);
      }
      return new WeightedTurns(hosts, Math.floor(Math.random() * START));
    };
  },
});
