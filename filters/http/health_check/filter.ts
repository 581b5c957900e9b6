import {
  type CellSpec,
  ConfigError,
  type Counter,
  compileHeaderMatch,
  Duration,
  defineHttpFilter,
  HeaderMatcher,
  type HeadMatch,
  type HttpFilter,
  type HttpStream,
  headerName,
  hold,
  type Reply,
  type RequestHeaders,
  type ResponseHeaders,
  reply,
  type SetupContext,
  type Static,
  type Stats,
  Type,
} from "@tsproxy/sdk";

const CHECKED_CLUSTER = headerName("x-envoy-upstream-healthchecked-cluster");
const IMMEDIATE_FAIL = headerName("x-envoy-immediate-health-check-fail");
const DEGRADED = headerName("x-envoy-degraded");

const Config = Type.Object({
  pass_through_mode: Type.Boolean(),
  cache_time: Type.Optional(Duration()),
  cluster_min_healthy_percentages: Type.Optional(
    Type.Record(
      Type.String(),
      Type.Object({ value: Type.Number({ default: 0, minimum: 0, maximum: 100 }) }),
    ),
  ),
  headers: Type.Array(HeaderMatcher, { default: [] }),
});
type Config = Static<typeof Config>;

const MAX_BODY_BYTES = 1_048_576; // of a check, which has none as a rule

/** The last answer to a check that went through, for all workers; kept until its window of time is over. */
interface Cache {
  get(): { readonly status: number; readonly degraded: boolean } | undefined;
  set(status: number, degraded: boolean): void;
}

/** One word: 20 bits of the window's number, one for degraded, ten of the status. */
function cache(windowMs: number): CellSpec<Cache> {
  return {
    bytes: 8,
    open(memory, at) {
      const { words } = memory;
      const window = (): number => (Math.floor(memory.now() / windowMs) + 1) & 0xfffff;
      return {
        get() {
          const word = words[at >> 2]!;
          if (word >>> 11 !== window()) return undefined;
          return { status: word & 0x3ff, degraded: (word & 0x400) !== 0 };
        },
        set(status, degraded) {
          words[at >> 2] = (window() << 11) | (degraded ? 0x400 : 0) | (status & 0x3ff);
        },
      };
    },
  };
}

/** `http.<stat_prefix>.health_check.`: checks that are answered here, and how. */
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

/** One use of the filter in the config. */
class HealthCheck {
  readonly passThrough: boolean;
  readonly cache: Cache | undefined;
  /** An operator wants checks to fail (admin's /healthcheck/fail). */
  failed = false;
  readonly #headers: readonly HeadMatch[];
  readonly #cx: SetupContext;
  readonly #stats: HealthCheckStats;
  readonly #clusters: readonly (readonly [name: string, percent: number])[];

  constructor(config: Config, cx: SetupContext) {
    this.#cx = cx;
    this.#stats = new HealthCheckStats(cx.stats.scope(`${cx.statPrefix ?? ""}health_check.`));
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
    this.cache = cacheMs > 0 ? cx.cell("answer", cache(cacheMs)) : undefined;
    cx.subscribe("core/health_checks_fail", (value) => {
      this.failed = value === true;
    });
  }

  isFor(headers: RequestHeaders): boolean {
    return this.#headers.every((match) => match.matches(headers));
  }

  get clusterName(): string {
    return this.#cx.node.cluster;
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
      return reply(cached.status, { headers, flags, details: "health_check_cached" });
    }
    const details = this.#clusters.length === 0 ? "health_check_ok" : this.#judgeClusters();
    return details.startsWith("health_check_ok") ? reply(200, { details }) : refusal(details);
  }

  /** Envoy's words for the outcome. */
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

class HealthCheckFilter implements HttpFilter {
  readonly #shared: HealthCheck;
  readonly #stream: HttpStream;
  #isCheck = false;
  /** A check that is answered here as soon as its body has come. */
  #waits = false;

  constructor(shared: HealthCheck, stream: HttpStream) {
    this.#shared = shared;
    this.#stream = stream;
  }

  onRequestHeaders(headers: RequestHeaders, endStream: boolean) {
    const shared = this.#shared;
    if (!shared.isFor(headers)) return;
    this.#isCheck = true;
    this.#stream.info.healthCheck = true;
    const handled = !shared.passThrough || shared.failed || shared.cache?.get() !== undefined;
    if (!handled) return;
    if (endStream) return shared.answer();
    this.#waits = true;
    return hold({ body: "buffer", max: MAX_BODY_BYTES });
  }

  /** Nobody reads the body of a check that is answered here; all other bodies go on. */
  onRequestBody() {
    return this.#waits ? this.#shared.answer() : undefined;
  }

  onResponseHeaders(headers: ResponseHeaders): void {
    const shared = this.#shared;
    if (this.#isCheck) {
      shared.cache?.set(headers.status, headers.has(DEGRADED));
      headers.set(CHECKED_CLUSTER, shared.clusterName);
    }
    if (shared.failed) headers.set(IMMEDIATE_FAIL, "true");
  }
}

export default defineHttpFilter({
  name: "envoy.filters.http.health_check",
  aliases: ["envoy.health_check"],
  types: ["envoy.extensions.filters.http.health_check.v3.HealthCheck"],
  config: Config,
  setup(config: Config, cx) {
    const shared = new HealthCheck(config, cx);
    return (stream) => new HealthCheckFilter(shared, stream);
  },
});
