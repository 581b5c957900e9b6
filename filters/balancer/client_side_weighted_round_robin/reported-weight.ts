import type { LoadReport } from "./load-report.ts";

export interface WeightOptions {
  /** Added to the utilization: this many times errors per request. */
  readonly errorPenalty: number;
  readonly metricNames: readonly string[];
  readonly blackoutMs: number;
  readonly expirationMs: number;
}

const MAX_WEIGHT = 0xffff_ffff;

/** The weight of one host by its reports: requests a second, divided by utilization. */
export class ReportedWeight {
  /** The weight in use; undefined: that of the config still counts. */
  current: number | undefined = undefined;
  #weight = 1;
  /** When the reports began that go on until now; undefined: there are none, or the last was too old. */
  #since: number | undefined = undefined;
  #updatedAt = 0;

  onReport(report: LoadReport, now: number, options: WeightOptions): void {
    const weight = weightOf(report, options);
    if (weight === undefined) return;
    this.#weight = weight;
    this.#updatedAt = now;
    this.#since ??= now;
  }

  /** Undefined: the reports have begun within the blackout period, or are too old. */
  at(now: number, { blackoutMs, expirationMs }: WeightOptions): number | undefined {
    if (this.#since === undefined || now - this.#since < blackoutMs) return undefined;
    if (now - this.#updatedAt <= expirationMs) return this.#weight;
    this.#since = undefined;
    return undefined;
  }
}

function weightOf(report: LoadReport, options: WeightOptions): number | undefined {
  const rate = report.get("rps_fractional") ?? 0;
  if (rate <= 0) return undefined;
  const penalty = (options.errorPenalty * (report.get("eps") ?? 0)) / rate;
  const utilization = utilizationOf(report, options.metricNames) + penalty;
  if (!(utilization > 0)) return undefined;
  // A weight of 0 would mean no turn at all, ever.
  return Math.max(1, Math.floor(Math.min(rate / utilization, MAX_WEIGHT)));
}

/** The application's own figure, else the largest of the metrics that the config names, else that of the CPU. */
function utilizationOf(report: LoadReport, names: readonly string[]): number {
  const application = report.get("application_utilization") ?? 0;
  if (application > 0) return application;
  const most = Math.max(0, ...names.map((name) => report.get(name) ?? 0));
  return most > 0 ? most : (report.get("cpu_utilization") ?? 0);
}
