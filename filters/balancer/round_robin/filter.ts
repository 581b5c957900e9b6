// Hot path: a choice a request.
import { type Balancer, defineBalancer, EdfScheduler, type Host, Type } from "@tsproxy/sdk";

const START = 1 << 29; // starts are random below this, so that workers do not all begin with the same host

/** Hosts take turns. */
class Turns implements Balancer {
  readonly #hosts: readonly Host[];
  turn: number;

  constructor(hosts: readonly Host[], turn: number) {
    this.#hosts = hosts;
    this.turn = turn;
  }

  choose(): Host | undefined {
    const hosts = this.#hosts;
    const host = hosts[this.turn % hosts.length];
    this.turn = (this.turn + 1) | 0;
    if (this.turn < 0) this.turn = 0;
    return host;
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
  config: Type.Object({}),
  setup: () => (hosts, previous) => {
    const first = hosts[0];
    const start = Math.floor(Math.random() * START);
    if (first === undefined || hosts.every((host) => host.weight === first.weight)) {
      // A change of the hosts does not begin the round anew, so frequent changes do not favour the first host.
      return new Turns(hosts, previous instanceof Turns ? previous.turn : start);
    }
    return new WeightedTurns(hosts, start);
  },
});
