import {
  type ClusterType,
  DnsOutcomes,
  DnsWatch,
  type Gauge,
  type HostSpec,
  type SetupContext,
  type Timer,
} from "@tsproxy/sdk";
import type { Config } from "./config.ts";

const FIRST_ROUND_MS = 2_000; // then the first list is published without names that have not been answered

type Update = Parameters<NonNullable<ClusterType["discover"]>>[0];

/** Keeps the addresses of a cluster's names up to date, on the control thread. */
export class Discovery {
  readonly #update: Update;
  readonly #targets: readonly { readonly spec: HostSpec; readonly watch: DnsWatch }[];
  readonly #firstRound: Timer;
  readonly #maxHostWeight: Gauge;
  #unanswered: number;
  #published = false;
  /** Any name has been answered. */
  #heard: boolean;
  #stopped = false;

  constructor(config: Config, specs: readonly HostSpec[], update: Update, cx: SetupContext) {
    this.#update = update;
    const stats = cx.stats.scope(`cluster.${config.alt_stat_name || config.name}.`);
    const outcomes = new DnsOutcomes(stats);
    this.#maxHostWeight = stats.gauge("max_host_weight");
    this.#firstRound = cx.timer(() => this.#publish());
    this.#targets = specs.map((spec) => {
      const watch = new DnsWatch(spec.ip, config.name, config, outcomes, cx);
      watch.onAnswer = (changed, first) => {
        if (!watch.failing) this.#weigh(spec, watch);
        this.#onAnswer(changed, first);
      };
      if (watch.answered) this.#weigh(spec, watch);
      return { spec, watch };
    });
    this.#unanswered = this.#targets.filter(({ watch }) => !watch.answered).length;
    this.#heard = this.#unanswered < this.#targets.length || this.#targets.length === 0;
    if (this.#unanswered === 0) this.#publish();
    else this.#firstRound.arm(FIRST_ROUND_MS);
    for (const { watch } of this.#targets) watch.resolve();
  }

  /** As in Envoy, the gauge has the largest weight among the hosts of the name that was answered last; without hosts 1. */
  #weigh(spec: HostSpec, watch: DnsWatch): void {
    this.#maxHostWeight.set(watch.ips.length === 0 ? 1 : spec.weight);
  }

  #onAnswer(changed: boolean, first: boolean): void {
    if (first) this.#unanswered--;
    const isFirstOfAll = !this.#heard;
    this.#heard = true;
    if (this.#published) {
      if (changed || isFirstOfAll) this.#publish();
    } else if (this.#unanswered === 0) this.#publish();
  }

  stop(): void {
    this.#stopped = true;
    this.#firstRound.cancel();
    for (const { watch } of this.#targets) watch.stop();
  }

  #publish(): void {
    if (this.#stopped) return;
    this.#firstRound.cancel();
    // Envoy updates its hosts at each name's answer; our first list contains those of all names.
    const changes = this.#published
      ? 1
      : this.#targets.filter(({ watch }) => watch.ips.length > 0).length;
    this.#published = true;
    // Two names for one address are two hosts, as in Envoy.
    this.#update(
      this.#targets.flatMap(({ spec, watch }) =>
        [...new Set(watch.ips)].map((ip) => ({ ...spec, ip, hostname: spec.hostname || spec.ip })),
      ),
      changes,
      this.#heard,
    );
  }
}
