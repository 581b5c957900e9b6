import { DnsResolverConfig, type DnsResolverOptions, dnsResolverOptions } from "./dns-resolver.ts";
import { DnsStats } from "./dns-stats.ts";
import { ConfigError, type SetupContext, type Timer } from "./extension.ts";
import { isIp } from "./ip.ts";
import { Duration, Enum, type Static, Type } from "./schema.ts";
import type { Counter, Stats } from "./stats.ts";

const MAX_ADDRESSES = 4096; // of one name: about as many as an answer over TCP has room for
const MAX_WAIT_MS = 86_400_000; // TTLs come from strangers; a name is asked for again after a day at the latest

/** How a cluster's names are asked for: fields of Envoy's Cluster. */
export const DnsOptions = Type.Object({
  dns_refresh_rate: Duration({ default: 5_000 }),
  dns_failure_refresh_rate: Type.Optional(
    Type.Object({ base_interval: Duration(), max_interval: Type.Optional(Duration()) }),
  ),
  dns_jitter: Type.Optional(Duration()),
  respect_dns_ttl: Type.Optional(Type.Boolean()),
  dns_lookup_family: Enum(["AUTO", "V4_ONLY", "V6_ONLY", "V4_PREFERRED", "ALL"], {
    default: "AUTO",
  }),
  ...DnsResolverConfig.properties,
});
export type DnsOptions = Static<typeof DnsOptions>;

/** Throws a ConfigError for what the schema lets through and nothing can be done with. */
export function checkDnsOptions(options: DnsOptions): void {
  dnsResolverOptions(options);
  if (options.dns_refresh_rate !== undefined && options.dns_refresh_rate < 1)
    throw new ConfigError("dns_refresh_rate", "must be at least a millisecond; write 5s");
  const failure = options.dns_failure_refresh_rate;
  if (failure !== undefined && failure.base_interval < 1)
    throw new ConfigError(
      "dns_failure_refresh_rate.base_interval",
      "must be at least a millisecond",
    );
  if (failure?.max_interval !== undefined && failure.max_interval < failure.base_interval)
    throw new ConfigError("dns_failure_refresh_rate.max_interval", "is less than base_interval");
}

interface Answer {
  readonly addresses?: readonly { readonly ip: string; readonly ttl: number }[];
}

/** Counters of what came of asking: `cluster.<name>.update_*`. */
export class DnsOutcomes {
  readonly attempt: Counter;
  readonly success: Counter;
  readonly failure: Counter;
  readonly noRebuild: Counter;

  constructor(stats: Stats) {
    this.attempt = stats.counter("update_attempt");
    this.success = stats.counter("update_success");
    this.failure = stats.counter("update_failure");
    this.noRebuild = stats.counter("update_no_rebuild");
  }
}

/** Resolves a name again and again, as often as its options and the answers' TTLs say. An IP address is its own answer. */
export class DnsWatch {
  /** The addresses of the last answer; an address that stays keeps its place. */
  ips: readonly string[] = [];
  /** The first attempt is over, whatever came of it. */
  answered: boolean;
  readonly #name: string;
  readonly #cluster: string;
  readonly #options: DnsOptions;
  readonly #resolver: DnsResolverOptions | undefined;
  readonly #outcomes: DnsOutcomes;
  readonly #stats: DnsStats;
  readonly #cx: SetupContext;
  /** Set by the owner. True: an answer without addresses is a failure, and the name keeps those it had. */
  emptyFails = false;
  /** Set by the owner before `resolve`. `first`: this is what came of the first attempt. */
  onAnswer: (changed: boolean, first: boolean) => void = () => {};
  readonly #timer: Timer;
  readonly #literal: boolean;
  /** The name is an address, and has been counted as an answer. */
  #counted = false;
  /** The name is an address of a family that is not asked for. */
  readonly #misfit: boolean;
  #failures = 0;
  #stopped = false;

  constructor(
    name: string,
    cluster: string,
    options: DnsOptions,
    outcomes: DnsOutcomes,
    cx: SetupContext,
  ) {
    this.#name = name;
    this.#cluster = cluster;
    this.#options = options;
    this.#resolver = dnsResolverOptions(options);
    this.#outcomes = outcomes;
    this.#stats = new DnsStats(options.dns_lookup_family ?? "AUTO", cx);
    this.#cx = cx;
    this.#literal = isIp(name);
    // As in Envoy, with V6_ONLY an IPv4 address is taken all the same.
    this.#misfit = this.#literal && name.includes(":") && options.dns_lookup_family === "V4_ONLY";
    this.answered = this.#literal && !this.#misfit;
    if (this.answered) this.ips = [name];
    this.#timer = cx.timer(() => this.resolve());
  }

  /** The last attempt was no answer. */
  get failing(): boolean {
    return this.#failures > 0;
  }

  /** Asks now; later attempts follow by themselves until `stop`. */
  resolve(): void {
    if (this.#stopped) return;
    this.#outcomes.attempt.inc();
    this.#stats.onAsked();
    if (this.#literal) {
      this.#onLiteral();
      return;
    }
    this.#cx
      .operation("dns.resolve", {
        name: this.#name,
        family: this.#options.dns_lookup_family ?? "AUTO",
        ...(this.#resolver !== undefined && { resolver: this.#resolver }),
      })
      .then(
        (answer) => this.#onAnswer(answer as Answer),
        (error: unknown) => {
          this.#stats.onFailed();
          this.#onFailure(error);
        },
      );
  }

  /** Nobody is asked, but as in Envoy it counts. */
  #onLiteral(): void {
    this.#stats.onLiteral(this.#name);
    if (this.#misfit) {
      this.#onFailure(
        new Error("an IPv6 address is none with dns_lookup_family V4_ONLY; write AUTO"),
      );
      return;
    }
    this.#outcomes.success.inc();
    if (this.#counted) this.#outcomes.noRebuild.inc();
    this.#counted = true;
    this.#timer.arm(this.#refreshMs([]));
  }

  stop(): void {
    this.#stopped = true;
    this.#timer.cancel();
  }

  #onAnswer(answer: Answer): void {
    const found = (answer.addresses ?? []).slice(0, MAX_ADDRESSES);
    this.#stats.onAnswered(found.map(({ ip }) => ip));
    if (this.#stopped) return;
    if (found.length === 0 && this.emptyFails) {
      this.#onFailure(new Error("it has no addresses"));
      return;
    }
    this.#failures = 0;
    this.#outcomes.success.inc();
    this.#keep(found.map((address) => address.ip));
    this.#timer.arm(this.#refreshMs(found.map((address) => address.ttl)));
  }

  /** The hosts stay as they were: a server that cannot be asked says nothing about them. */
  #onFailure(error: unknown): void {
    if (this.#stopped) return;
    this.#outcomes.failure.inc();
    if (this.#failures++ === 0) {
      const why = error instanceof Error ? error.message : String(error);
      this.#cx.log.warn("cannot resolve a name", {
        cluster: this.#cluster,
        name: this.#name,
        why,
      });
    }
    this.#told(false);
    this.#timer.arm(this.#retryMs());
  }

  /** Resolvers rotate their answers: the same set in another order is no change. */
  #keep(answer: readonly string[]): void {
    const now = new Set(answer);
    const kept = this.ips.filter((ip) => now.has(ip));
    const changed = kept.length !== this.ips.length || now.size !== kept.length;
    for (const ip of kept) now.delete(ip);
    if (changed) this.ips = [...kept, ...now];
    else this.#outcomes.noRebuild.inc();
    this.#told(changed);
  }

  #told(changed: boolean): void {
    const first = !this.answered;
    this.answered = true;
    this.onAnswer(changed, first);
  }

  #refreshMs(ttls: readonly number[]): number {
    let ms = this.#options.dns_refresh_rate ?? 5_000;
    const ttl = Math.min(...ttls);
    if (this.#options.respect_dns_ttl === true && ttl > 0 && ttls.length > 0) ms = ttl * 1_000;
    return Math.min(ms, MAX_WAIT_MS) + Math.random() * (this.#options.dns_jitter ?? 0);
  }

  #retryMs(): number {
    const failure = this.#options.dns_failure_refresh_rate;
    if (failure === undefined)
      return Math.min(this.#options.dns_refresh_rate ?? 5_000, MAX_WAIT_MS);
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
