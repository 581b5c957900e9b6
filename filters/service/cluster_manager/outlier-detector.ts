import type { FileSink, Gauge, HostSpec, SetupContext, StatSet, Stats, Timer } from "@tsproxy/sdk";
import { formatAddress } from "@tsproxy/sdk";
import { type Ejection, isEnforced, mayEject } from "./ejection.ts";
import type { OutlierDetection } from "./health-config.ts";
import { FLAG } from "./health-flags.ts";
import { addressOf } from "./host.ts";
import { type OutlierTable, type Row, WORD } from "./outlier-monitor.ts";

/** Envoy's names of the stats by type. */
const NAMES: Readonly<Record<Ejection, string>> = {
  CONSECUTIVE_5XX: "consecutive_5xx",
  CONSECUTIVE_GATEWAY_FAILURE: "consecutive_gateway_failure",
  CONSECUTIVE_LOCAL_ORIGIN_FAILURE: "consecutive_local_origin_failure",
  SUCCESS_RATE: "success_rate",
  SUCCESS_RATE_LOCAL_ORIGIN: "local_origin_success_rate",
  FAILURE_PERCENTAGE: "failure_percentage",
  FAILURE_PERCENTAGE_LOCAL_ORIGIN: "local_origin_failure_percentage",
};

/** The names of all stats that every cluster with outlier detection lists; the last three counters are Envoy's older ones. */
const OUTLIER_STATS: StatSet = {
  counters: [
    ...Object.values(NAMES).flatMap((name) => [
      `ejections_detected_${name}`,
      `ejections_enforced_${name}`,
    ]),
    "ejections_detected_degradation",
    "ejections_enforced_total",
    "ejections_overflow",
    "ejections_total",
    "ejections_consecutive_5xx",
    "ejections_success_rate",
  ],
  gauges: ["ejections_active"],
  histograms: [],
};

const ROW_WORDS = [WORD.CONSECUTIVE_5XX, WORD.CONSECUTIVE_GATEWAY, WORD.CONSECUTIVE_LOCAL];

/** Counts and types for one origin of errors: responses of the host, or our attempts to reach it (local origin). */
interface Origin {
  readonly total: number;
  readonly successes: number;
  readonly success: Ejection;
  readonly failure: Ejection;
}
const EXTERNAL: Origin = {
  total: WORD.TOTAL,
  successes: WORD.SUCCESSES,
  success: "SUCCESS_RATE",
  failure: "FAILURE_PERCENTAGE",
};
const LOCAL: Origin = {
  total: WORD.LOCAL_TOTAL,
  successes: WORD.LOCAL_SUCCESSES,
  success: "SUCCESS_RATE_LOCAL_ORIGIN",
  failure: "FAILURE_PERCENTAGE_LOCAL_ORIGIN",
};

/** The part of a host that outlier detection uses. */
export interface JudgedHost {
  readonly spec: HostSpec;
  flags: number;
  /** Slot in the table; undefined: no slot was free and the host is not counted. */
  readonly slot: number | undefined;
  readonly outlier: OutlierRecord;
}

/** Ejection history and success rates of one host. */
export class OutlierRecord {
  ejections = 0;
  /** Multiplier of the base ejection time for the current or last ejection; decreases over time without ejections. */
  backOff = 0;
  /** The same for the times in which the host is degraded. */
  degradedBackOff = 0;
  degradedSinceMs = 0;
  /** When the host was last degraded no more. */
  undegradedMs = 0;
  lastEjectionMs: number | undefined = undefined;
  lastUnejectionMs: number | undefined = undefined;
  jitterMs = 0;
  /** Percentage in the last interval; -1: too few requests. */
  successRate = -1;
  localSuccessRate = -1;
  /** Counts at the end of the last interval: total and successes, then the same of local origin. */
  readonly counted: number[] = [0, 0, 0, 0];
}

/** Average of the hosts' success rates and the rate below which hosts are ejected, in percent; -1: unknown. */
export interface SuccessRates {
  average: number;
  threshold: number;
}

/** Ejects failing hosts of a cluster for a time. Runs on the control thread; workers count by OutlierMonitor. */
export class OutlierDetector {
  readonly external: SuccessRates = { average: -1, threshold: -1 };
  readonly local: SuccessRates = { average: -1, threshold: -1 };
  readonly #cx: SetupContext;
  readonly #config: OutlierDetection;
  readonly #clusterName: string;
  readonly #table: OutlierTable;
  readonly #hosts: () => Iterable<JudgedHost>;
  readonly #onChanged: () => void;
  readonly #log: FileSink | undefined;
  readonly #timer: Timer;
  readonly #stats: Stats;
  /** Made when there is something to show, as a gauge that was set counts as used. */
  #active: Gauge | undefined = undefined;

  constructor(parts: {
    readonly cx: SetupContext;
    readonly config: OutlierDetection;
    readonly clusterName: string;
    readonly stats: Stats;
    readonly table: OutlierTable;
    readonly hosts: () => Iterable<JudgedHost>;
    /** Called when flags of hosts have changed. */
    readonly onChanged: () => void;
  }) {
    this.#cx = parts.cx;
    this.#config = parts.config;
    this.#clusterName = parts.clusterName;
    this.#table = parts.table;
    this.#hosts = parts.hosts;
    this.#onChanged = parts.onChanged;
    this.#log =
      parts.config.event_log_path === "" ? undefined : parts.cx.file(parts.config.event_log_path);
    this.#timer = parts.cx.timer(() => this.#onInterval());
    this.#stats = parts.stats.scope("outlier_detection.");
    this.#stats.list?.(OUTLIER_STATS);
  }

  start(): void {
    this.#showActive();
    this.#arm();
  }

  stop(): void {
    this.#timer.cancel();
    this.#active?.set(0);
  }

  /** Called when hosts were added or removed. */
  onHosts(): void {
    this.#showActive();
  }

  /** Called when a worker has counted the configured number of consecutive failures. `enforced`: what it has drawn. */
  onRow(host: JudgedHost, row: Row, enforced: boolean): void {
    if (isEjected(host)) return;
    this.#count(`ejections_detected_${NAMES[row]}`);
    this.#eject(host, row, enforced);
    if (row === "CONSECUTIVE_5XX") this.#count("ejections_consecutive_5xx");
  }

  /** Called when a worker has seen a response that says so. As in Envoy neither percentages nor ejections limit it. */
  onDegraded(host: JudgedHost): void {
    if (isDegraded(host)) return;
    const { outlier } = host;
    host.flags |= FLAG.DEGRADED_OUTLIER_DETECTION;
    outlier.degradedSinceMs = this.#cx.now();
    outlier.degradedBackOff = this.#longer(outlier.degradedBackOff);
    this.#count("ejections_detected_degradation");
    this.#onChanged();
    this.#write(host, outlier.lastUnejectionMs, {
      type: "DEGRADED",
      action: "EJECT",
      enforced: true,
    });
  }

  /** Called when an active check of the host has succeeded. */
  onHealthy(host: JudgedHost): void {
    if (!this.#config.successful_active_health_check_uneject_host) return;
    if (isEjected(host) && (host.flags & FLAG.FAILED_ACTIVE_HC) === 0) this.#uneject(host);
  }

  #arm(): void {
    this.#timer.arm(this.#integer("interval_ms", this.#config.interval));
  }

  /** Reads a runtime override of `outlier_detection.`; `otherwise`: the configured value. */
  #integer(key: string, otherwise: number): number {
    return this.#cx.runtime.integer(`outlier_detection.${key}`, otherwise);
  }

  /** Counts an event; most clusters have none, so a counter is made with the first. */
  #count(name: string): void {
    this.#stats.counter(name).inc();
  }

  #showActive(): void {
    const ejected = this.#ejected();
    if (ejected > 0) this.#active ??= this.#stats.gauge("ejections_active");
    this.#active?.set(ejected);
  }

  /** Number of hosts that are ejected. */
  #ejected(): number {
    let n = 0;
    for (const host of this.#hosts()) if (isEjected(host)) n++;
    return n;
  }

  /** Duration of an ejection in milliseconds; `factor`: multiplier of the base ejection time. */
  #ejectionMs(factor: number): number {
    const config = this.#config;
    const base = this.#integer("base_ejection_time_ms", config.base_ejection_time);
    const most = config.max_ejection_time ?? Math.max(300_000, config.base_ejection_time);
    return Math.min(base * factor, this.#integer("max_ejection_time_ms", most));
  }

  #onInterval(): void {
    if (!this.#isQuiet()) this.#review();
    this.#arm();
  }

  /** True if the interval that ends has changed nothing: of a thousand clusters most have no traffic. */
  #isQuiet(): boolean {
    if (this.external.average !== -1 || this.local.average !== -1) return false;
    for (const host of this.#hosts()) {
      const { outlier, slot } = host;
      if (isEjected(host) || outlier.backOff > 0) return false;
      if (isDegraded(host) || outlier.degradedBackOff > 0) return false;
      if (outlier.successRate !== -1 || outlier.localSuccessRate !== -1) return false;
      if (slot === undefined) continue;
      if (this.#table.read(slot, WORD.TOTAL) !== outlier.counted[0]) return false;
      if (this.#table.read(slot, WORD.LOCAL_TOTAL) !== outlier.counted[2]) return false;
    }
    return true;
  }

  /** Ends ejections whose time is over, and begins those that the figures of the interval call for. */
  #review(): void {
    const now = this.#cx.now();
    const hosts = [...this.#hosts()];
    for (const host of hosts) {
      const { outlier } = host;
      const lasts = this.#ejectionMs(outlier.backOff) + outlier.jitterMs;
      if (isEjected(host) && lasts <= now - (outlier.lastEjectionMs ?? 0)) this.#uneject(host);
      if (isDegraded(host)) {
        const ms = this.#ejectionMs(outlier.degradedBackOff);
        if (ms <= now - outlier.degradedSinceMs) this.#undegrade(host);
      }
      outlier.successRate = outlier.localSuccessRate = -1;
    }
    this.#judge(hosts, EXTERNAL, this.external);
    this.#judge(hosts, LOCAL, this.local);
    const interval = this.#integer("interval_ms", this.#config.interval);
    for (const host of hosts) {
      const { lastUnejectionMs, undegradedMs, degradedBackOff } = host.outlier;
      if (!isDegraded(host) && degradedBackOff > 0 && now - undegradedMs >= interval)
        host.outlier.degradedBackOff--;
      if (isEjected(host) || lastUnejectionMs === undefined) continue;
      if (now - lastUnejectionMs >= interval && host.outlier.backOff > 0) host.outlier.backOff--;
    }
  }

  /** Ejects by success rate, compared with the other hosts, and by failure percentage, for the last interval. */
  #judge(hosts: readonly JudgedHost[], origin: Origin, rates: SuccessRates): void {
    const config = this.#config;
    const success = {
      hosts: this.#integer("success_rate_minimum_hosts", config.success_rate_minimum_hosts),
      volume: this.#integer("success_rate_request_volume", config.success_rate_request_volume),
    };
    const failure = {
      hosts: this.#integer(
        "failure_percentage_minimum_hosts",
        config.failure_percentage_minimum_hosts,
      ),
      volume: this.#integer(
        "failure_percentage_request_volume",
        config.failure_percentage_request_volume,
      ),
    };
    rates.average = rates.threshold = -1;
    const figures = hosts.map((host) => ({ host, ...this.#figures(host, origin) }));
    if (hosts.length < success.hosts && hosts.length < failure.hosts) return;
    const active = figures.filter(({ host, total }) => !isEjected(host) && total > 0);
    for (const { host, rate, total } of active) {
      if (total < Math.min(success.volume, failure.volume)) continue;
      if (origin === EXTERNAL) host.outlier.successRate = rate;
      else host.outlier.localSuccessRate = rate;
    }
    const compared = active.filter(({ total }) => total >= success.volume);
    const counted = active.filter(({ total }) => total >= failure.volume);
    if (compared.length > 0 && compared.length >= success.hosts) {
      const factor = this.#integer("success_rate_stdev_factor", config.success_rate_stdev_factor);
      Object.assign(
        rates,
        thresholdOf(
          compared.map(({ rate }) => rate),
          factor / 1000,
        ),
      );
      for (const { host, rate } of compared) {
        if (rate >= rates.threshold) continue;
        this.#count("ejections_success_rate");
        this.#count(`ejections_detected_${NAMES[origin.success]}`);
        this.#eject(host, origin.success, this.#isEnforced(origin.success));
      }
    }
    if (counted.length > 0 && counted.length >= failure.hosts) {
      const most = this.#integer(
        "failure_percentage_threshold",
        config.failure_percentage_threshold,
      );
      for (const { host, rate } of counted) {
        if (100 - rate < most) continue;
        this.#count(`ejections_detected_${NAMES[origin.failure]}`);
        this.#eject(host, origin.failure, this.#isEnforced(origin.failure));
      }
    }
  }

  /** Number of requests in the interval and percentage of successes; `| 0` because the counts wrap at 32 bits. */
  #figures(host: JudgedHost, origin: Origin): { total: number; rate: number } {
    if (host.slot === undefined) return { total: 0, rate: 0 };
    const { counted } = host.outlier;
    const at = origin === EXTERNAL ? 0 : 2;
    const total = this.#table.read(host.slot, origin.total);
    const successes = this.#table.read(host.slot, origin.successes);
    const news = (total - counted[at]!) | 0;
    const good = (successes - counted[at + 1]!) | 0;
    counted[at] = total;
    counted[at + 1] = successes;
    return { total: news, rate: news === 0 ? 0 : (good * 100) / news };
  }

  #isEnforced(type: Ejection): boolean {
    return isEnforced(this.#config, this.#cx.runtime, type);
  }

  /** As in Envoy, a host that both rules of an interval call for is ejected twice, and for longer. */
  #eject(host: JudgedHost, type: Ejection, enforced: boolean): void {
    const config = this.#config;
    const counts = { ejected: this.#ejected(), all: [...this.#hosts()].length };
    if (!mayEject(config, this.#cx.runtime, counts)) {
      this.#count("ejections_overflow");
      return;
    }
    if (type === "CONSECUTIVE_5XX" || type === "SUCCESS_RATE") this.#count("ejections_total");
    if (enforced) {
      const { outlier } = host;
      host.flags |= FLAG.FAILED_OUTLIER_CHECK;
      this.#count("ejections_enforced_total");
      this.#count(`ejections_enforced_${NAMES[type]}`);
      outlier.ejections++;
      outlier.lastEjectionMs = this.#cx.now();
      const jitter = this.#integer("max_ejection_time_jitter_ms", config.max_ejection_time_jitter);
      outlier.jitterMs = Math.floor(Math.random() * (jitter + 1));
      outlier.backOff = this.#longer(outlier.backOff);
      this.#showActive();
      this.#onChanged();
    }
    this.#write(host, host.outlier.lastUnejectionMs, { type, action: "EJECT", enforced });
  }

  /** The multiplier after one more time of ejection; it stays where the longest time is reached. */
  #longer(backOff: number): number {
    const base = this.#integer("base_ejection_time_ms", this.#config.base_ejection_time);
    const longest = this.#ejectionMs(Number.MAX_SAFE_INTEGER / Math.max(1, base));
    return backOff * base < longest + base ? backOff + 1 : backOff;
  }

  #undegrade(host: JudgedHost): void {
    host.flags &= ~FLAG.DEGRADED_OUTLIER_DETECTION;
    host.outlier.undegradedMs = this.#cx.now();
    this.#onChanged();
    this.#write(host, host.outlier.lastEjectionMs, { action: "UNEJECT" });
  }

  #uneject(host: JudgedHost): void {
    host.flags &= ~FLAG.FAILED_OUTLIER_CHECK;
    host.outlier.lastUnejectionMs = this.#cx.now();
    // Failures from before the ejection must not eject the host again at once.
    if (host.slot !== undefined) for (const word of ROW_WORDS) this.#table.clear(host.slot, word);
    this.#showActive();
    this.#onChanged();
    this.#write(host, host.outlier.lastEjectionMs, { action: "UNEJECT" });
  }

  /** Logs an event as one JSON line of envoy.data.cluster.v3.OutlierDetectionEvent. */
  #write(
    host: JudgedHost,
    lastMs: number | undefined,
    event: { type?: Ejection | "DEGRADED"; action: "EJECT" | "UNEJECT"; enforced?: boolean },
  ): void {
    if (this.#log === undefined) return;
    const { outlier } = host;
    const seconds = lastMs === undefined ? undefined : Math.floor((this.#cx.now() - lastMs) / 1000);
    const line = {
      type: event.type ?? "CONSECUTIVE_5XX",
      timestamp: new Date(Date.now()).toISOString(),
      ...(seconds !== undefined && { secs_since_last_action: String(seconds) }),
      cluster_name: this.#clusterName,
      upstream_url: formatAddress(addressOf(host.spec)),
      action: event.action,
      num_ejections: outlier.ejections,
      enforced: event.enforced ?? false,
      ...(event.type !== undefined && this.#details(outlier, event.type)),
    };
    this.#log.append(`${JSON.stringify(line)}\n`);
  }

  #details(outlier: OutlierRecord, type: Ejection | "DEGRADED"): object {
    const local = type.endsWith("LOCAL_ORIGIN");
    const host_success_rate = Math.trunc(local ? outlier.localSuccessRate : outlier.successRate);
    const rates = local ? this.local : this.external;
    if (type.startsWith("SUCCESS_RATE")) {
      return {
        eject_success_rate_event: {
          host_success_rate,
          cluster_average_success_rate: Math.trunc(rates.average),
          cluster_success_rate_ejection_threshold: Math.trunc(rates.threshold),
        },
      };
    }
    if (type.startsWith("FAILURE_PERCENTAGE"))
      return { eject_failure_percentage_event: { host_success_rate } };
    return { eject_consecutive_event: {} };
  }
}

const isEjected = (host: JudgedHost): boolean => (host.flags & FLAG.FAILED_OUTLIER_CHECK) !== 0;

const isDegraded = (host: JudgedHost): boolean =>
  (host.flags & FLAG.DEGRADED_OUTLIER_DETECTION) !== 0;

/** The average of the rates, and that less `deviations` standard deviations as the threshold. */
function thresholdOf(rates: readonly number[], deviations: number): SuccessRates {
  const average = rates.reduce((sum, rate) => sum + rate, 0) / rates.length;
  const variance = rates.reduce((sum, rate) => sum + (rate - average) ** 2, 0) / rates.length;
  return { average, threshold: average - deviations * Math.sqrt(variance) };
}
