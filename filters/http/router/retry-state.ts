import type {
  Cluster,
  Host,
  Priority,
  RequestHeaders,
  ResponseHeaders,
  RetryPolicy,
  SetupContext,
  Timer,
} from "@tsproxy/sdk";
import {
  policyConditions,
  type Retriable,
  retriesFailure,
  retriesHead,
} from "./retry-conditions.ts";
import type { RetryStats, VirtualCharges } from "./stats.ts";
import type { Steering } from "./steering.ts";
import type { UpstreamFailure } from "./upstream-failure.ts";

const BACK_OFF_MS = 25;
/** Envoy's default for the longest back-off, in base intervals. */
const BACK_OFF_GROWTH = 10;

/** "limit": a retry is wanted, but none is left. "overflow": a retry is wanted, but the cluster runs too many. */
export type RetryVerdict = "no" | "yes" | "limit" | "overflow";

export interface RetryStateParts {
  readonly cx: SetupContext;
  readonly cluster: Cluster;
  readonly priority: Priority;
  readonly stats: RetryStats;
  readonly also: readonly VirtualCharges[];
  readonly policy: RetryPolicy | undefined;
  /** What the client's headers ask for. */
  readonly steering: Steering | undefined;
  readonly headers: RequestHeaders;
  readonly onDue: () => void;
}

/** Decides whether, when and where one request is retried. Made only if a policy or the client asks for retries. */
export class RetryState implements Retriable {
  readonly statusCodes: readonly number[];
  readonly #cx: SetupContext;
  readonly #cluster: Cluster;
  readonly #priority: Priority;
  readonly #stats: RetryStats;
  readonly #also: readonly VirtualCharges[];
  readonly #policy: RetryPolicy | undefined;
  readonly #steering: Steering | undefined;
  readonly #timer: Timer;
  readonly #conditions: number;
  readonly #maxIntervalMs: number;
  #intervalMs: number;
  /** The next back-off as the upstream's rate limit headers ask for it, in ms; 0: they do not. */
  #resetMs = 0;
  #left: number;
  /** A retry waits or runs, and counts in the cluster's circuit breaker. */
  #retrying = false;
  readonly #hosts: Host[] = [];
  readonly #excluded = new Set<number>();

  constructor(parts: RetryStateParts) {
    const { cx, policy, steering } = parts;
    this.#cx = cx;
    this.#cluster = parts.cluster;
    this.#priority = parts.priority;
    this.#stats = parts.stats;
    this.#also = parts.also;
    this.#policy = policy;
    this.#steering = steering;
    this.#timer = cx.timer(parts.onDue);
    this.statusCodes = [...(policy?.statusCodes ?? []), ...(steering?.statusCodes ?? [])];
    let conditions = policy === undefined ? 0 : policyConditions(policy);
    conditions |= steering?.retryOn ?? 0;
    const wanted = policy?.requestHeaders ?? [];
    if (wanted.length > 0 && !wanted.some((match) => match.matches(parts.headers))) conditions = 0;
    this.#conditions = conditions;
    this.#left = steering?.maxRetries ?? policy?.retries ?? 1;
    const base =
      policy?.backOffBaseMs ?? cx.runtime.integer("upstream.base_retry_backoff_ms", BACK_OFF_MS);
    this.#intervalMs = Math.max(1, base);
    this.#maxIntervalMs = policy?.backOffMaxMs ?? this.#intervalMs * BACK_OFF_GROWTH;
  }

  /** Some condition may cause a retry, so the request's body has to be kept. */
  get enabled(): boolean {
    return this.#conditions !== 0;
  }

  headers(headers: ResponseHeaders): boolean {
    for (const match of this.#policy?.headers ?? []) if (match.matches(headers)) return true;
    for (const name of this.#steering?.headerNames ?? []) if (headers.has(name)) return true;
    return false;
  }

  // ---- decisions; "yes" arms the timer

  wouldRetry(headers: ResponseHeaders): boolean {
    return retriesHead(this.#conditions, headers, this);
  }

  onHead(headers: ResponseHeaders): RetryVerdict {
    const would = this.wouldRetry(headers);
    if (would) this.#resetMs = this.#resetInterval(headers);
    return this.#decide(would);
  }

  onFailure(failure: UpstreamFailure, sent: boolean): RetryVerdict {
    return this.#decide(retriesFailure(this.#conditions, failure, sent));
  }

  /** Decides about another attempt beside a slow one: the conditions do not matter, only the limits. */
  onHedge(): RetryVerdict {
    return this.#decide(true);
  }

  #decide(would: boolean): RetryVerdict {
    if (!would) {
      if (this.#retrying) {
        this.#stats.success.inc();
        for (const also of this.#also) also.retrySuccess.inc();
      }
      this.end();
      return "no";
    }
    if (this.#left === 0) {
      // A slow retry goes on, and may succeed yet.
      this.#stats.limitExceeded.inc();
      for (const also of this.#also) also.retryLimitExceeded.inc();
      return "limit";
    }
    this.end();
    this.#left--;
    if (!this.#cluster.beginRetry(this.#priority)) {
      this.#stats.overflow.inc();
      for (const also of this.#also) also.retryOverflow.inc();
      return "overflow";
    }
    this.#retrying = true;
    if (!this.#cx.runtime.featureEnabled("upstream.use_retry", 100)) {
      this.end();
      return "no";
    }
    this.#stats.retry.inc();
    for (const also of this.#also) also.retry.inc();
    this.#timer.arm(this.#waitMs());
    return "yes";
  }

  /** Cancels a retry that waits; one that runs no longer counts in the circuit breaker. */
  end(): void {
    this.#timer.cancel();
    if (!this.#retrying) return;
    this.#retrying = false;
    this.#cluster.endRetry(this.#priority);
  }

  // ---- when

  #waitMs(): number {
    const reset = this.#resetMs;
    if (reset > 0) {
      this.#resetMs = 0;
      this.#stats.backOffRateLimited.inc();
      return reset + Math.floor(Math.random() * (reset / 2));
    }
    this.#stats.backOffExponential.inc();
    const interval = this.#intervalMs;
    this.#intervalMs = Math.min(interval * 2, this.#maxIntervalMs);
    return Math.floor(Math.random() * interval);
  }

  /** How long the response asks to wait, in ms. 0: it does not say, or longer than the policy allows. */
  #resetInterval(headers: ResponseHeaders): number {
    for (const { name, format } of this.#policy?.resetHeaders ?? []) {
      const text = headers.get(name);
      if (text === undefined || !/^[0-9]{1,12}$/.test(text)) continue;
      const ms = Number(text) * 1000 - (format === "SECONDS" ? 0 : now());
      if (ms > 1 && ms <= this.#policy!.resetMaxMs) return ms;
    }
    return 0;
  }

  // ---- where

  /** Notes a host that was tried, to be avoided by `previous_hosts` and `previous_priorities`. */
  onHostAttempted(host: Host): void {
    this.#hosts.push(host);
    const every = this.#policy?.previousPrioritiesEvery ?? 0;
    if (every === 0 || this.#hosts.length % every !== 0) return;
    const levelOf = (tried: Host) => this.#cluster.priorityOf?.(tried) ?? tried.priority ?? 0;
    // A level that was excluded has been tried all the same: all were excluded, so the exclusion begins anew.
    if (this.#excluded.has(levelOf(host))) {
      this.#excluded.clear();
      this.#hosts.splice(0, this.#hosts.length, host);
    }
    for (const tried of this.#hosts) this.#excluded.add(levelOf(tried));
  }

  get excludedPriorities(): ReadonlySet<number> | undefined {
    return this.#excluded.size === 0 ? undefined : this.#excluded;
  }

  get hostSelectionRetries(): number {
    return this.#policy?.hostSelectionRetries ?? 1;
  }

  rejects(host: Host): boolean {
    const policy = this.#policy;
    if (policy === undefined) return false;
    if (policy.avoidPreviousHosts && this.#hosts.some((tried) => tried.key === host.key)) {
      return true;
    }
    return policy.avoids.some((avoids) => avoids(host));
  }
}

/** Epoch milliseconds in whole seconds, as Envoy compares them. */
const now = (): number => Math.floor(Date.now() / 1000) * 1000;
