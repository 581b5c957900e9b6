import {
  ConfigError,
  type Counter,
  compileHeaderMatch,
  type HeadMatch,
  headerText,
  type Reply,
  type RequestHeaders,
  reply,
  type SetupContext,
  type Stats,
} from "@tsproxy/sdk";
import { type AnswerCache, answerCache } from "./answer-cache.ts";
import type { Config } from "./config.ts";

/** What all streams of one use share: which requests are checks, and how they are answered. */
export class HealthCheck {
  readonly passThrough: boolean;
  readonly cache: AnswerCache | undefined;
  /** The cluster that this proxy belongs to, as a header value. */
  readonly clusterName: string;
  /** An operator wants checks to fail (admin's /healthcheck/fail). */
  failed = false;
  readonly #headers: readonly HeadMatch[];
  readonly #cx: SetupContext;
  readonly #stats: HealthCheckStats;
  readonly #clusters: readonly (readonly [name: string, percent: number])[];

  constructor(config: Config, cx: SetupContext) {
    this.#cx = cx;
    this.#stats = new HealthCheckStats(cx.stats.scope(`${cx.statPrefix ?? ""}health_check.`));
    this.clusterName = headerText(cx.node.cluster, "node.cluster");
    this.passThrough = config.pass_through_mode;
    this.#headers = config.headers.map((match, k) =>
      compileHeaderMatch(match, `headers[${k}]`, cx),
    );
    this.#clusters = Object.entries(config.cluster_min_healthy_percentages ?? {}).map(
      ([name, percent]) => [name, Math.trunc(percent.value)],
    );
    const cacheMs = config.cache_time ?? 0;
    if (!config.pass_through_mode && cacheMs > 0)
      throw new ConfigError(
        "cache_time",
        "must not be set when pass_through_mode is off; remove it",
      );
    this.cache = cacheMs > 0 ? cx.cell("answer", answerCache(cacheMs)) : undefined;
    cx.subscribe("core/health_checks_fail", (value) => {
      this.failed = value === true;
    });
  }

  isFor(headers: RequestHeaders): boolean {
    return this.#headers.every((match) => match.matches(headers));
  }

  answer(): Reply {
    const answer = this.#answer();
    this.#stats.total.inc();
    (answer.status >= 200 && answer.status < 300 ? this.#stats.ok : this.#stats.failed).inc();
    return answer;
  }

  #answer(): Reply {
    if (this.failed) return refusal("health_check_failed");
    const cached = this.cache?.get();
    if (cached !== undefined) {
      this.#stats.cached.inc();
      if (cached.degraded) this.#stats.degraded.inc();
      const headers: [string, string][] = cached.degraded ? [["x-envoy-degraded", ""]] : [];
      const fine = cached.status >= 200 && cached.status < 300;
      const flags = fine ? [] : ["LH"];
      // Upstreams may answer with 101, filters may not.
      return {
        ...reply(200, { headers, flags, details: "health_check_cached" }),
        status: cached.status,
      };
    }
    const details = this.#clusters.length === 0 ? "health_check_ok" : this.#judgeClusters();
    return details.startsWith("health_check_ok") ? reply(200, { details }) : refusal(details);
  }

  /** %RESPONSE_CODE_DETAILS% of the outcome, in Envoy's words. */
  #judgeClusters(): string {
    for (const [name, percent] of this.#clusters) {
      const cluster = this.#cx.clusters.get(name);
      if (cluster === undefined) {
        this.#stats.noCluster.inc();
        return "health_check_failed_no_cluster_found";
      }
      const { hosts } = cluster;
      if (hosts.length === 0 && percent > 0) {
        this.#stats.emptyCluster.inc();
        return "health_check_failed_cluster_empty";
      }
      const available = hosts.filter((host) => host.healthy).length;
      if (100 * available < hosts.length * percent) {
        this.#stats.unhealthyCluster.inc();
        return "health_check_failed_cluster_unhealthy";
      }
    }
    return "health_check_ok_cluster_healthy";
  }
}

function refusal(details: string): Reply {
  return reply(503, { flags: ["LH"], details });
}

/** `http.<stat_prefix>.health_check.`: the checks that are answered here. */
class HealthCheckStats {
  readonly total: Counter;
  readonly ok: Counter;
  readonly failed: Counter;
  readonly cached: Counter;
  readonly degraded: Counter;
  readonly noCluster: Counter;
  readonly emptyCluster: Counter;
  readonly unhealthyCluster: Counter;

  constructor(stats: Stats) {
    this.total = stats.counter("request_total");
    this.ok = stats.counter("ok");
    this.failed = stats.counter("failed");
    this.cached = stats.counter("cached_response");
    this.degraded = stats.counter("degraded");
    this.noCluster = stats.counter("failed_cluster_not_found");
    this.emptyCluster = stats.counter("failed_cluster_empty");
    this.unhealthyCluster = stats.counter("failed_cluster_unhealthy");
  }
}
