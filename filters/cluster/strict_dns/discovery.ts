import { type Counter, type HostSpec, isIp, type SetupContext, type Timer } from "@tsproxy/sdk";
import type { Config } from "./config.ts";

const MAX_ADDRESSES = 4096; // of one name; an answer by TCP has room for about that many
const MAX_WAIT_MS = 86_400_000; // TTLs come from strangers; nobody is left unasked for more than a day
const FIRST_ROUND_MS = 2_000; // one slow name does not keep the others of its cluster from the first list

interface Answer {
  readonly addresses?: readonly { readonly ip: string; readonly ttl: number }[];
}

interface Outcomes {
  readonly attempt: Counter;
  readonly success: Counter;
  readonly failure: Counter;
  readonly empty: Counter;
  readonly noRebuild: Counter;
}

/** Keeps the addresses of a cluster's names up to date, on the control thread. */
export class Discovery {
  readonly #update: (hosts: readonly HostSpec[]) => void;
  readonly #targets: Target[];
  readonly #firstRound: Timer;
  #unanswered: number;
  #published = false;
  #stopped = false;

  constructor(
    config: Config,
    specs: readonly HostSpec[],
    update: (hosts: readonly HostSpec[]) => void,
    cx: SetupContext,
  ) {
    this.#update = update;
    const stats = cx.stats.scope(`cluster.${config.alt_stat_name || config.name}.`);
    const outcomes: Outcomes = {
      attempt: stats.counter("update_attempt"),
      success: stats.counter("update_success"),
      failure: stats.counter("update_failure"),
      empty: stats.counter("update_empty"),
      noRebuild: stats.counter("update_no_rebuild"),
    };
    this.#firstRound = cx.timer(() => this.#publish());
    this.#targets = specs.map((spec) => new Target(spec, config, outcomes, cx, this));
    this.#unanswered = this.#targets.filter((target) => !target.answered).length;
    if (this.#unanswered === 0) this.#publish();
    else this.#firstRound.arm(FIRST_ROUND_MS);
    for (const target of this.#targets) target.resolve();
  }

  onFirstAnswer(changed: boolean): void {
    this.#unanswered--;
    if (this.#published) this.onChanged(changed);
    else if (this.#unanswered === 0) this.#publish();
  }

  onChanged(changed: boolean): void {
    if (changed && this.#published) this.#publish();
  }

  stop(): void {
    this.#stopped = true;
    this.#firstRound.cancel();
    for (const target of this.#targets) target.stop();
  }

  #publish(): void {
    if (this.#stopped) return;
    this.#firstRound.cancel();
    this.#published = true;
    const hosts = new Map<string, HostSpec>();
    for (const { spec, ips } of this.#targets) {
      for (const ip of ips) {
        const key = `${spec.priority}|${ip}|${spec.port}`;
        // Two names for one address are one host, the first named.
        if (!hosts.has(key)) hosts.set(key, { ...spec, ip, hostname: spec.hostname || spec.ip });
      }
    }
    this.#update([...hosts.values()]);
  }
}

/** One endpoint: a name, or an address that needs no asking. */
class Target {
  readonly spec: HostSpec;
  ips: readonly string[] = [];
  answered: boolean;
  readonly #config: Config;
  readonly #outcomes: Outcomes;
  readonly #cx: SetupContext;
  readonly #owner: Discovery;
  readonly #timer: Timer;
  readonly #literal: boolean;
  #failures = 0;
  #stopped = false;

  constructor(
    spec: HostSpec,
    config: Config,
    outcomes: Outcomes,
    cx: SetupContext,
    owner: Discovery,
  ) {
    this.spec = spec;
    this.#config = config;
    this.#outcomes = outcomes;
    this.#cx = cx;
    this.#owner = owner;
    this.#literal = isIp(spec.ip);
    this.answered = this.#literal;
    if (this.#literal) this.ips = [spec.ip];
    this.#timer = cx.timer(() => this.resolve());
  }

  resolve(): void {
    if (this.#literal || this.#stopped) return;
    this.#outcomes.attempt.inc();
    this.#cx
      .operation("dns.resolve", {
        name: this.spec.ip,
        family: this.#config.dns_lookup_family ?? "AUTO",
      })
      .then(
        (answer) => this.#onAnswer(answer as Answer),
        (error: unknown) => this.#onFailure(error),
      );
  }

  stop(): void {
    this.#stopped = true;
    this.#timer.cancel();
  }

  #onAnswer(answer: Answer): void {
    if (this.#stopped) return;
    const found = (answer.addresses ?? []).slice(0, MAX_ADDRESSES);
    this.#failures = 0;
    this.#outcomes.success.inc();
    if (found.length === 0) this.#outcomes.empty.inc();
    this.#take(found.map((address) => address.ip));
    this.#timer.arm(this.#refreshMs(found.map((address) => address.ttl)));
  }

  /** The hosts stay as they were: a server that cannot be asked says nothing about them. */
  #onFailure(error: unknown): void {
    if (this.#stopped) return;
    this.#outcomes.failure.inc();
    if (this.#failures++ === 0) {
      const why = error instanceof Error ? error.message : String(error);
      this.#cx.log.warn("cannot resolve a name", {
        cluster: this.#config.name,
        name: this.spec.ip,
        why,
      });
    }
    this.#told(false);
    this.#timer.arm(this.#retryMs());
  }

  /** Resolvers rotate their answers: the same set in another order is no change. */
  #take(answer: readonly string[]): void {
    const now = new Set(answer);
    const kept = this.ips.filter((ip) => now.has(ip));
    const changed = kept.length !== this.ips.length || now.size !== kept.length;
    for (const ip of kept) now.delete(ip);
    if (changed) this.ips = [...kept, ...now];
    else if (this.answered) this.#outcomes.noRebuild.inc();
    this.#told(changed);
  }

  #told(changed: boolean): void {
    if (!this.answered) {
      this.answered = true;
      this.#owner.onFirstAnswer(changed);
    } else this.#owner.onChanged(changed);
  }

  #refreshMs(ttls: readonly number[]): number {
    let ms = this.#config.dns_refresh_rate ?? 5_000;
    const ttl = Math.min(...ttls);
    if (this.#config.respect_dns_ttl === true && ttl > 0 && ttls.length > 0) ms = ttl * 1_000;
    return Math.min(ms, MAX_WAIT_MS) + Math.random() * (this.#config.dns_jitter ?? 0);
  }

  #retryMs(): number {
    const failure = this.#config.dns_failure_refresh_rate;
    if (failure === undefined) return Math.min(this.#config.dns_refresh_rate ?? 5_000, MAX_WAIT_MS);
    const most = failure.max_interval ?? failure.base_interval * 10;
    // At most 30 doublings: the number stays exact, and any maximum is reached.
    const interval = Math.min(
      failure.base_interval * 2 ** Math.min(this.#failures - 1, 30),
      most,
      MAX_WAIT_MS,
    );
    return Math.max(1, Math.random() * interval);
  }
}
