// Hot path: limits are acquired and released for every exchange.
import {
  type CellSpec,
  type Gauge,
  type Priority,
  RuntimeInteger,
  RuntimeNumber,
  type SetupContext,
  type SharedCount,
  type StatSet,
  type Stats,
  type Thresholds,
  type Timer,
} from "@tsproxy/sdk";
import type { ClusterConfig } from "./config.ts";
import { type RequestWindow, requestWindow } from "./request-window.ts";

const DEFAULTS: Thresholds = Object.freeze({
  maxConnections: 1024,
  maxPendingRequests: 1024,
  maxRequests: 1024,
  maxRetries: 3,
});
/** Default of `min_retry_concurrency`: concurrent retries that a retry budget always allows. */
const DEFAULT_RETRY_CONCURRENCY = 3;
/** Interval at which the gauges are updated. */
const SHOW_MS = 50;

type ThresholdsConfig = NonNullable<
  NonNullable<ClusterConfig["circuit_breakers"]>["thresholds"]
>[number];

function thresholdsConfig(config: ClusterConfig, priority: Priority): ThresholdsConfig | undefined {
  const name = priority === "high" ? "HIGH" : "DEFAULT";
  return config.circuit_breakers?.thresholds.find((entry) => entry.priority === name);
}

/** The configured limits, as Envoy's admin reports them without traffic; runtime overrides are not included. */
export function thresholdsOf(config: ClusterConfig, priority: Priority): Thresholds {
  const entry = thresholdsConfig(config, priority);
  return {
    maxConnections: entry?.max_connections ?? DEFAULTS.maxConnections,
    maxPendingRequests: entry?.max_pending_requests ?? DEFAULTS.maxPendingRequests,
    maxRequests: entry?.max_requests ?? DEFAULTS.maxRequests,
    maxRetries:
      entry?.retry_budget === undefined
        ? (entry?.max_retries ?? DEFAULTS.maxRetries)
        : (entry.retry_budget.min_retry_concurrency ?? DEFAULT_RETRY_CONCURRENCY),
  };
}

/** A limit on a count that all workers share. */
export class Limit {
  readonly count: SharedCount;
  readonly #most: { readonly value: number };
  /** Counts what is acquired; undefined: nobody asks. */
  readonly #window: RequestWindow | undefined;

  constructor(count: SharedCount, most: { readonly value: number }, window?: RequestWindow) {
    this.count = count;
    this.#most = most;
    this.#window = window;
  }

  get most(): number {
    return this.#most.value;
  }
  get full(): boolean {
    return this.count.value >= this.#most.value;
  }
  tryAcquire(): boolean {
    if (this.count.tryAcquire(this.#most.value) === 0) return false;
    this.#window?.add();
    return true;
  }
  /** Counts one more even if the limit is exceeded. */
  acquire(): void {
    this.count.acquire();
    this.#window?.add();
  }
  release(): void {
    this.count.release();
  }
}

/** The limits of one cluster for one priority. */
export class CircuitBreaker {
  readonly connections: Limit;
  readonly pending: Limit;
  readonly requests: Limit;
  readonly retries: Limit;
  readonly pools: Limit;
  /** The config sets `max_connections`: it is enforced exactly, while each worker of Envoy may exceed it by one. */
  readonly exact: boolean;
  /** With a retry budget: above 0 once a worker has asked it for a retry. */
  readonly budgetAsked: SharedCount | undefined;
  /** Number of pools, over all workers, in which requests wait because no connection may be opened. */
  readonly starving: SharedCount;
  readonly #note: (use: Use) => void;
  #hasAsked = false;

  constructor(config: ClusterConfig, priority: Priority, cx: SetupContext, used: UsedLimits) {
    const entry = thresholdsConfig(config, priority);
    const limits = thresholdsOf(config, priority);
    const limit = (what: string, most: number, seen?: RequestWindow): Limit => {
      const runtime_key = `circuit_breakers.${config.name}.${priority}.max_${what}`;
      return new Limit(
        cx.sharedCount(`circuit_breakers|${config.name}|${priority}|${what}`),
        new RuntimeInteger({ default_value: most, runtime_key }, cx.runtime),
        seen,
      );
    };
    const intervalMs = entry?.retry_budget?.budget_interval ?? 0;
    // The control thread only shows limits.
    const window =
      intervalMs > 0 && cx.role === "worker"
        ? cx.cell(`retry budget ${config.name} ${priority}`, requestWindow(intervalMs))
        : undefined;
    this.connections = limit("connections", limits.maxConnections);
    this.pending = limit("pending_requests", limits.maxPendingRequests);
    this.requests = limit("requests", limits.maxRequests, window);
    this.pools = limit("connection_pools", entry?.max_connection_pools ?? Number.MAX_SAFE_INTEGER);
    const retries = limit("retries", limits.maxRetries);
    if (entry?.retry_budget === undefined) {
      this.retries = retries;
      this.budgetAsked = undefined;
    } else {
      this.budgetAsked = cx.sharedCount(`circuit_breakers|${config.name}|${priority}|asked`);
      const budget = this.#budget(config, priority, entry.retry_budget, window, cx);
      this.retries = new Limit(retries.count, budget);
    }
    this.exact = entry?.max_connections !== undefined;
    this.starving = cx.sharedCount(`circuit_breakers|${config.name}|${priority}|starving`);
    this.#note = (use) => used.add(usedBit(config.name, priority, use));
  }

  /** Gives the counts back: of a cluster that is removed, as others come with ever new names. */
  dispose(): void {
    const { connections, pending, requests, retries, pools } = this;
    if (this.#hasAsked) this.budgetAsked?.release();
    for (const { count } of [connections, pending, requests, retries, pools]) count.dispose?.();
    this.budgetAsked?.dispose?.();
    this.starving.dispose?.();
  }

  /** Called before the first request or connection: from now on the limits are shown. */
  begin(): this {
    this.#note("requests");
    return this;
  }

  tryAcquireRetry(): boolean {
    const isAllowed = this.retries.tryAcquire();
    if (isAllowed) this.#note("retries");
    return isAllowed;
  }

  /**
   * `retry_budget`: the limit of retries is a percentage of active and pending requests, or of the attempts that have begun within
   * `budget_interval`, retries among them.
   */
  #budget(
    config: ClusterConfig,
    priority: Priority,
    budget: NonNullable<ThresholdsConfig["retry_budget"]>,
    window: RequestWindow | undefined,
    cx: SetupContext,
  ): { readonly value: number } {
    const key = `circuit_breakers.${config.name}.${priority}.retry_budget`;
    const percent = new RuntimeNumber(
      {
        default_value: { value: budget.budget_percent?.value ?? 20 },
        runtime_key: `${key}.budget_percent`,
      },
      cx.runtime,
    );
    const least = new RuntimeInteger(
      {
        default_value: budget.min_retry_concurrency ?? DEFAULT_RETRY_CONCURRENCY,
        runtime_key: `${key}.min_retry_concurrency`,
      },
      cx.runtime,
    );
    const interval = new RuntimeInteger(
      { default_value: budget.budget_interval ?? 0, runtime_key: `${key}.budget_interval` },
      cx.runtime,
    );
    const { budgetAsked, pending, requests } = this;
    const isWorker = cx.role === "worker";
    const ask = () => {
      this.#hasAsked = true;
      budgetAsked?.acquire();
    };
    return {
      get value() {
        if (isWorker && budgetAsked?.value === 0) ask();
        const counted =
          window === undefined || interval.value === 0
            ? pending.count.value + requests.count.value
            : window.sum;
        return Math.max(least.value, Math.floor((percent.value / 100) * counted));
      },
    };
  }
}

/** A power of two; far more than there are clusters. */
const USED_BITS = 1 << 17;

/** What uses limits: a cluster's first request (or connection), and its first retry. */
type Use = "requests" | "retries";

/** The limits that some thread uses, as bits in memory that all threads share; one table for all clusters. */
export interface UsedLimits {
  add(bit: number): void;
  has(bit: number): boolean;
  delete(bit: number): void;
}

const USED: CellSpec<UsedLimits> = {
  kind: "used_limits",
  bytes: USED_BITS / 8,
  open({ words }, at) {
    const wordOf = (bit: number): number => (at >> 2) + (bit >> 5);
    return {
      add: (bit) => void Atomics.or(words, wordOf(bit), 1 << (bit & 31)),
      delete: (bit) => void Atomics.and(words, wordOf(bit), ~(1 << (bit & 31))),
      has: (bit) => (Atomics.load(words, wordOf(bit)) & (1 << (bit & 31))) !== 0,
    };
  },
};

/** The bit of a cluster's limits. If two share one, both are shown once either is in use: stats of unused limits are the same. */
function usedBit(cluster: string, priority: Priority, use: Use): number {
  const name = `${use}|${priority}|${cluster}`;
  let hash = 0;
  for (let k = 0; k < name.length; k++) hash = Math.imul(hash ^ name.charCodeAt(k), 0x01000193);
  return (hash ^ (hash >>> 15)) & (USED_BITS - 1);
}

/** `cx`: that of the package, as a cluster's own context has cells of its own. */
export const openUsed = (cx: SetupContext): UsedLimits => cx.cell("limits in use", USED);

function statsOf(config: ClusterConfig, cx: SetupContext): Stats {
  return cx.stats.scope(`cluster.${config.alt_stat_name || config.name}.`);
}

/** Each limit with Envoy's names for its gauges `…_open` and `remaining_…`. */
const SHOWN = [
  ["connections", "cx", "cx"],
  ["pools", "cx_pool", "cx_pools"],
  ["requests", "rq", "rq"],
  ["pending", "rq_pending", "pending"],
  ["retries", "rq_retry", "retries"],
] as const;
const BREAKER_STATS: StatSet = {
  counters: [],
  gauges: ["default", "high"].flatMap((priority) =>
    SHOWN.map(([, open]) => `circuit_breakers.${priority}.${open}_open`),
  ),
  histograms: [],
};

/** Gauges of one limit, set only by the control thread, as all threads' values are added. `…_open` is created with the first use. */
class ShownLimit {
  readonly cluster: string;
  readonly #limit: Limit;
  readonly #isUsed: () => boolean;
  readonly #makeOpen: () => Gauge;
  readonly #remaining: Gauge | undefined;
  #open: Gauge | undefined = undefined;
  #hasCounted = false;

  constructor(
    cluster: string,
    limit: Limit,
    isUsed: () => boolean,
    makeOpen: () => Gauge,
    remaining: Gauge | undefined,
  ) {
    this.cluster = cluster;
    this.#limit = limit;
    this.#isUsed = isUsed;
    this.#makeOpen = makeOpen;
    this.#remaining = remaining;
  }

  show(): void {
    const { most, count } = this.#limit;
    const { value } = count;
    if (this.#open === undefined && this.#isUsed()) this.#open = this.#makeOpen();
    // As in Envoy, a limit of 0 is not shown as open before something has been counted in it.
    if (value > 0) this.#hasCounted = true;
    this.#open?.set(this.#hasCounted && value >= most ? 1 : 0);
    // Envoy's value for "no limit" is 2^64 - 1; minus the current count, read as a signed 64-bit number, that is -1 - value.
    if (most === Number.MAX_SAFE_INTEGER) this.#remaining?.set(-1 - value);
    else this.#remaining?.set(Math.max(0, most - value));
  }
  hide(): void {
    this.#open?.set(0);
    this.#remaining?.set(0);
  }
}

/** `remaining_retries` of a retry budget. As in Envoy it is `max_retries` until the first retry is asked for, and 0 from then on. */
interface ShownBudget {
  readonly cluster: string;
  readonly asked: SharedCount;
  readonly left: Gauge;
  readonly first: number;
}

/** Limits that are not in use yet. */
interface Unused {
  readonly bit: number;
  readonly config: ClusterConfig;
  readonly priority: Priority;
}

/**
 * Stats of all circuit breakers of one generation of clusters, on the control thread. Limits are shown only once in use, as
 * in large configs most clusters have no traffic.
 */
export class BreakerDisplay {
  #limits: ShownLimit[] = [];
  #budgets: ShownBudget[] = [];
  /** By cluster: its own context, and what is given back when it is removed. */
  readonly #shown = new Map<string, { readonly cx: SetupContext; breakers: CircuitBreaker[] }>();
  #unused: Unused[] = [];
  readonly #used: UsedLimits;
  readonly #cx: SetupContext;
  readonly #timer: Timer;

  constructor(cx: SetupContext, used: UsedLimits) {
    this.#cx = cx;
    this.#used = used;
    this.#timer = cx.timer(() => this.#show());
  }

  /** Shows the limits of one more cluster; `cx`: its own. */
  add(config: ClusterConfig, cx: SetupContext): void {
    this.#shown.set(config.name, { cx, breakers: [] });
    statsOf(config, cx).list?.(BREAKER_STATS);
    for (const priority of ["default", "high"] as const) {
      // With `track_remaining` the gauges exist from the beginning.
      const isShown = thresholdsConfig(config, priority)?.track_remaining === true;
      if (isShown) this.#add(config, priority);
      else this.#unused.push({ bit: usedBit(config.name, priority, "requests"), config, priority });
    }
  }

  /** A made cluster is gone. */
  remove(cluster: string): void {
    const shown = this.#shown.get(cluster);
    this.#shown.delete(cluster);
    this.#limits = this.#limits.filter((limit) => limit.cluster !== cluster);
    this.#budgets = this.#budgets.filter((budget) => budget.cluster !== cluster);
    this.#unused = this.#unused.filter(({ config }) => config.name !== cluster);
    for (const breaker of shown?.breakers ?? []) breaker.dispose();
    // Of another cluster that has the same bit the limits are shown by now, or after its next beginning.
    for (const priority of ["default", "high"] as const)
      for (const use of ["requests", "retries"] as const)
        this.#used.delete(usedBit(cluster, priority, use));
  }

  #add(config: ClusterConfig, priority: Priority): void {
    const entry = thresholdsConfig(config, priority);
    const breaker = new CircuitBreaker(config, priority, this.#cx, this.#used);
    const { cx, breakers } = this.#shown.get(config.name)!;
    breakers.push(breaker);
    const stats = statsOf(config, cx).scope(`circuit_breakers.${priority}.`);
    for (const [limit, open, remaining] of SHOWN) {
      const left =
        entry?.track_remaining === true ? stats.gauge(`remaining_${remaining}`) : undefined;
      const asked = limit === "retries" ? breaker.budgetAsked : undefined;
      const makeOpen = () => stats.gauge(`${open}_open`);
      const counted = asked === undefined ? left : undefined;
      const bit = usedBit(config.name, priority, limit === "retries" ? "retries" : "requests");
      const isUsed = () => this.#used.has(bit);
      this.#limits.push(new ShownLimit(config.name, breaker[limit], isUsed, makeOpen, counted));
      if (asked !== undefined && left !== undefined)
        this.#budgets.push({
          cluster: config.name,
          asked,
          left,
          first: entry?.max_retries ?? DEFAULTS.maxRetries,
        });
    }
  }

  begin(): void {
    this.#show();
  }
  /** Of a generation that has shown them. */
  end(): void {
    for (const limit of this.#limits) limit.hide();
    for (const { left } of this.#budgets) left.set(0);
    this.dispose();
  }

  dispose(): void {
    this.#timer.cancel();
    for (const { breakers } of this.#shown.values())
      for (const breaker of breakers) breaker.dispose();
  }

  #show(): void {
    const used = this.#unused.filter(({ bit }) => this.#used.has(bit));
    if (used.length > 0) this.#unused = this.#unused.filter((limits) => !used.includes(limits));
    for (const { config, priority } of used) this.#add(config, priority);
    for (const limit of this.#limits) limit.show();
    for (const { asked, left, first } of this.#budgets) left.set(asked.value > 0 ? 0 : first);
    this.#timer.arm(SHOW_MS);
  }
}
