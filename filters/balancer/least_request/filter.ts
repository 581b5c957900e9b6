// Hot path: a choice a request.
import {
  type Balancer,
  defineBalancer,
  EdfScheduler,
  type Host,
  type Static,
  Type,
  UInt32,
} from "@tsproxy/sdk";

const Config = Type.Object({ choice_count: UInt32({ default: 2, minimum: 2 }) });
type Config = Static<typeof Config>;

const START = 1 << 29; // starts are random below this, so that workers do not all begin with the same host
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

/** Hosts take turns; each request in progress divides a host's weight, as of the last time it was chosen. */
class WeightedLeast implements Balancer {
  readonly #hosts: EdfScheduler<Host>;

  constructor(hosts: readonly Host[], picks: number) {
    this.#hosts = new EdfScheduler(hosts, (host) => host.weight / (host.activeRequests + 1), picks);
  }

  choose(): Host {
    return this.#hosts.pick();
  }
}

export default defineBalancer({
  name: "envoy.load_balancing_policies.least_request",
  types: ["envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest"],
  config: Config,
  setup(config: Config) {
    const choices = Math.min(config.choice_count ?? 2, MAX_CHOICES);
    return (hosts) => {
      const first = hosts[0];
      if (first === undefined || hosts.every((host) => host.weight === first.weight)) {
        return new LeastOfSome(hosts, choices);
      }
      return new WeightedLeast(hosts, Math.floor(Math.random() * START));
    };
  },
});
