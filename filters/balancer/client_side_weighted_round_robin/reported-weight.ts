import type { Host, TtlMap } from "@tsproxy/sdk";
import type { LoadReport } from "./load-report.ts";

export interface WeightOptions {
  /** Added to the utilization: this many times errors per request. */
  readonly errorPenalty: number;
  readonly metricNames: readonly string[];
  readonly blackoutMs: number;
}

const MAX_WEIGHT = 0xffff_ffff;

/**
 * The weight of one host by its reports: requests a second, divided by utilization. Reports come to whichever worker has asked
 * the host; `shared` is what all of them have heard.
 */
export class ReportedWeight {
  /** The weight in use; undefined: that of the config still counts. */
  current: number | undefined = undefined;
  readonly #shared: TtlMap;
  readonly #weightKey: string;
  readonly #sinceKey: string;
  /** The last report that the others have not heard of. */
  #fresh: { readonly weight: number; readonly at: number } | undefined = undefined;

  constructor(host: Host, shared: TtlMap) {
    this.#shared = shared;
    this.#weightKey = `weight ${host.key}`;
    this.#sinceKey = `since ${host.key}`;
  }

  onReport(report: LoadReport, now: number, options: WeightOptions): void {
    const weight = weightOf(report, options);
    if (weight !== undefined) this.#fresh = { weight, at: this.#fresh?.at ?? now };
  }

  /** Tells the others what this worker has heard since it was last asked. */
  share(): void {
    const fresh = this.#fresh;
    if (fresh === undefined) return;
    this.#fresh = undefined;
    this.#shared.set(this.#weightKey, fresh.weight);
    // When the reports began that go on until now; forgotten with the last of them.
    this.#shared.set(this.#sinceKey, this.#shared.get(this.#sinceKey) ?? fresh.at);
  }

  /** Undefined: the reports have begun within the blackout period, or are too old. */
  at(now: number, { blackoutMs }: WeightOptions): number | undefined {
    const since = this.#shared.get(this.#sinceKey);
    if (since === undefined || now - since < blackoutMs) return undefined;
    return this.#shared.get(this.#weightKey);
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
