// Hot path: a choice a request.
import {
  type Balancer,
  Duration,
  defineBalancer,
  EdfScheduler,
  type Host,
  type HostWeights,
  type TtlMap,
  type Turns,
  Type,
  ttlMap,
  WEIGHTS_TOPIC,
} from "@tsproxy/sdk";
import { loadReportOf } from "./load-report.ts";
import { ReportedWeight, type WeightOptions } from "./reported-weight.ts";

/** The weights of all hosts, as their reports have it. */
class ReportedWeights {
  readonly #options: WeightOptions;
  readonly #now: () => number;
  readonly #shared: TtlMap;
  readonly #known = new WeakMap<Host, ReportedWeight>();
  readonly #rounds = new Set<Rounds>();

  /** `shared`: what all workers have heard; it forgets reports that are too old. */
  constructor(options: WeightOptions, now: () => number, shared: TtlMap) {
    this.#options = options;
    this.#shared = shared;
    this.#now = now;
  }

  readonly weight = (host: Host): number => this.#known.get(host)?.current ?? host.weight;

  add(rounds: Rounds): void {
    this.#rounds.add(rounds);
    for (const host of rounds.hosts) this.#listen(host);
  }

  remove(rounds: Rounds): void {
    this.#rounds.delete(rounds);
  }

  #listen(host: Host): void {
    const known = this.#known.get(host) ?? new ReportedWeight(host, this.#shared);
    this.#known.set(host, known);
    host.onLoadReport = (headers) => {
      const report = loadReportOf(headers);
      if (report !== undefined) known.onReport(report, this.#now(), this.#options);
    };
  }

  /** Hosts without a valid weight count as the median of those of their priority that have one. Returns the weights that are new. */
  update(): HostWeights["weights"] {
    const changed: [string, number][] = [];
    const hosts = new Set([...this.#rounds].flatMap((rounds) => rounds.hosts));
    for (const level of Map.groupBy(hosts, (host) => host.priority ?? 0).values()) {
      const now = this.#now();
      for (const host of level) this.#known.get(host)!.share();
      const reported = level.map((host) => this.#known.get(host)!.at(now, this.#options));
      const valid = reported.filter((weight) => weight !== undefined).sort((a, b) => a - b);
      const median = valid[valid.length >> 1] ?? 1;
      for (const [k, host] of level.entries()) {
        const known = this.#known.get(host)!;
        const weight = reported[k] ?? median;
        if (weight !== known.current) changed.push([host.key, weight]);
        known.current = weight;
      }
    }
    for (const rounds of this.#rounds) rounds.renew();
    return changed;
  }
}

/** Hosts take turns, as many as they have earned by their reports. */
class Rounds implements Balancer {
  readonly hosts: readonly Host[];
  readonly #weights: ReportedWeights;
  readonly #turns: Turns;
  #seen: readonly number[] = [];
  /** Undefined: all weigh the same. */
  #weighted: EdfScheduler<Host> | undefined = undefined;

  constructor(hosts: readonly Host[], weights: ReportedWeights, turns: Turns) {
    this.hosts = hosts;
    this.#weights = weights;
    this.#turns = turns;
    weights.add(this);
    this.renew();
  }

  choose(): Host | undefined {
    if (this.#weighted !== undefined) return this.#weighted.pick();
    return this.hosts[this.#turns.next() % this.hosts.length];
  }

  peek(): Host | undefined {
    return this.choose();
  }

  renew(): void {
    const { weight } = this.#weights;
    const seen = this.hosts.map(weight);
    if (seen.every((each, k) => each === this.#seen[k])) return;
    this.#seen = seen;
    const equal = seen.every((each) => each === seen[0]);
    this.#weighted = equal ? undefined : new EdfScheduler(this.hosts, weight);
  }

  dispose(): void {
    this.#weights.remove(this);
  }
}

/** Of one cluster; of more the oldest reports are forgotten. */
const MAX_HOSTS = 2_048;
const NAME = "client_side_weighted_round_robin";

export default defineBalancer({
  name: `envoy.load_balancing_policies.${NAME}`,
  types: [`envoy.extensions.load_balancing_policies.${NAME}.v3.ClientSideWeightedRoundRobin`],
  config: Type.Object({
    /** Apart from Envoy's fields: whose hosts they are. */
    cluster: Type.String({ default: "" }),
    blackout_period: Duration({ default: 10_000 }),
    weight_expiration_period: Duration({ default: 180_000 }),
    weight_update_period: Duration({ default: 1000 }),
    error_utilization_penalty: Type.Number({ default: 0, minimum: 0 }),
    metric_names_for_computing_utilization: Type.Array(Type.String(), { default: [] }),
  }),
  setup(config, cx) {
    const options: WeightOptions = {
      errorPenalty: config.error_utilization_penalty,
      metricNames: config.metric_names_for_computing_utilization,
      blackoutMs: config.blackout_period,
    };
    const shared = cx.cell(
      `${NAME} ${config.cluster}`,
      ttlMap({ maxKeys: 2 * MAX_HOSTS, ttlMs: config.weight_expiration_period }),
    );
    const weights = new ReportedWeights(options, () => cx.now(), shared);
    const timer = cx.timer(() => {
      const changed = weights.update();
      if (changed.length > 0)
        cx.publish(WEIGHTS_TOPIC, { cluster: config.cluster, weights: changed } as HostWeights);
      timer.arm(config.weight_update_period);
    });
    if (cx.role === "worker") timer.arm(config.weight_update_period);
    return {
      create: ({ key, hosts }) =>
        new Rounds(hosts, weights, cx.turns(`${NAME} ${config.cluster} ${key}`)),
    };
  },
});
