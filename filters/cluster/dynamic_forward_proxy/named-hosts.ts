// Hot path: `choose` and `resolve` run for every request.
import {
  type BalancerContext,
  contextState,
  type DnsCacheConfig,
  type Gauge,
  type Host,
  type HostNames,
  type NameOutcome,
  outcomeTopic,
  type ProvidedBalancer,
  type ProvidedHosts,
  type SetupContext,
  type SharedCount,
  statedHost,
  type Timer,
  usedTopic,
  wantedTopic,
} from "@tsproxy/sdk";

/** Requests wait this much longer than a name may take, in case the thread that resolves has died. */
const GRACE_MS = 1_000;
/** The control thread drops hosts that are not in use for `host_ttl`; in that time it is told this often which ones are. */
const USED_PARTS = 4;
const USED_LEAST_MS = 10;

const NO_NAME: NameOutcome = { failed: "cares_failure:Misformatted_domain_name" };
const NO_ANSWER: NameOutcome = { failed: "cares_failure:Timeout_while_contacting_DNS_servers" };

interface Waiting {
  readonly told: ((outcome: NameOutcome) => void)[];
  readonly timer: Timer;
}

/** A worker's view of the DNS cache: the hosts of the cluster by the names that requests give them. */
export class NamedHosts implements ProvidedBalancer, HostNames {
  readonly names: HostNames = this;
  readonly #config: DnsCacheConfig;
  readonly #own: ProvidedHosts;
  readonly #cx: SetupContext;
  readonly #pending: SharedCount;
  readonly #maxPending: number;
  readonly #open: Gauge;
  readonly #overflow: { inc(): void };
  readonly #waiting = new Map<string, Waiting>();
  readonly #used = new Set<string>();
  readonly #report: Timer;
  readonly #reportMs: number;

  constructor(config: DnsCacheConfig, own: ProvidedHosts, cx: SetupContext) {
    this.#config = config;
    this.#own = own;
    this.#cx = cx;
    this.#maxPending = config.dns_cache_circuit_breaker?.max_pending_requests ?? 1024;
    this.#pending = cx.sharedCount(`dns_cache|${config.name}|pending`);
    const stats = cx.stats.scope(`dns_cache.${config.name}.`);
    this.#overflow = stats.counter("dns_rq_pending_overflow");
    this.#open = stats.gauge("circuit_breakers.rq_pending_open");
    if (cx.role === "control") {
      this.#open.set(0);
      stats.gauge("circuit_breakers.rq_pending_remaining").set(this.#maxPending);
    }
    this.#reportMs = Math.max(USED_LEAST_MS, config.host_ttl / USED_PARTS);
    this.#report = cx.timer(() => this.#onReport());
    if (cx.role !== "worker") return;
    this.#report.arm(this.#reportMs);
    cx.subscribe(outcomeTopic(config.name), (value) => {
      const { key, outcome } = value as { key: string; outcome: NameOutcome };
      this.#settle(key, outcome);
    });
  }

  choose(context: BalancerContext): Host | undefined {
    const host = statedHost(contextState(context), authorityOf(context), this.#own.defaultPort);
    return host && this.#own.find(host.key);
  }

  whenNamed(context: BalancerContext): Promise<unknown> | undefined {
    const outcome = this.resolve(authorityOf(context), contextState(context));
    return outcome instanceof Promise ? outcome : undefined;
  }

  resolve(
    authority: string,
    state?: ReadonlyMap<string, unknown>,
  ): NameOutcome | Promise<NameOutcome> {
    if (this.#pending.tryAcquire(this.#maxPending) === 0) {
      this.#overflow.inc();
      this.#open.set(1);
      return "pending_overflow";
    }
    const host = statedHost(state, authority, this.#own.defaultPort);
    if (host === undefined || this.#own.find(host.key) !== undefined) {
      this.#pending.release();
      if (host === undefined) return NO_NAME;
      this.#used.add(host.key);
      return "known";
    }
    return new Promise((resolve) => {
      let waiting = this.#waiting.get(host.key);
      if (waiting === undefined) {
        const timer = this.#cx.timer(() => this.#settle(host.key, NO_ANSWER));
        timer.arm(this.#config.dns_query_timeout + GRACE_MS);
        waiting = { told: [], timer };
        this.#waiting.set(host.key, waiting);
      }
      waiting.told.push((outcome) => {
        this.#pending.release();
        this.#open.set(0);
        resolve(outcome);
      });
      // Published for each request, since each is a use of the host.
      this.#cx.publish(wantedTopic(this.#config.name), host);
    });
  }

  dispose(): void {
    this.#report.cancel();
    for (const key of [...this.#waiting.keys()]) this.#settle(key, "again");
  }

  #settle(key: string, outcome: NameOutcome): void {
    const waiting = this.#waiting.get(key);
    if (waiting === undefined) return;
    this.#waiting.delete(key);
    waiting.timer.cancel();
    for (const tell of waiting.told) tell(outcome);
  }

  #onReport(): void {
    if (this.#used.size > 0) this.#cx.publish(usedTopic(this.#config.name), [...this.#used]);
    this.#used.clear();
    this.#report.arm(this.#reportMs);
  }
}

function authorityOf({ stream, head }: BalancerContext): string {
  return stream?.request.authority ?? head?.authority ?? "";
}
