import type { Runtime } from "@tsproxy/sdk";
import type { OutlierDetection } from "./health-config.ts";
import type { Row } from "./outlier-monitor.ts";

/** What takes a host out, by Envoy's names. */
export type Ejection =
  | Row
  | "SUCCESS_RATE"
  | "SUCCESS_RATE_LOCAL_ORIGIN"
  | "FAILURE_PERCENTAGE"
  | "FAILURE_PERCENTAGE_LOCAL_ORIGIN";

/** The config fields, which are runtime keys too, of the enforcing percentages. */
const ENFORCING = {
  CONSECUTIVE_5XX: "enforcing_consecutive_5xx",
  CONSECUTIVE_GATEWAY_FAILURE: "enforcing_consecutive_gateway_failure",
  CONSECUTIVE_LOCAL_ORIGIN_FAILURE: "enforcing_consecutive_local_origin_failure",
  SUCCESS_RATE: "enforcing_success_rate",
  SUCCESS_RATE_LOCAL_ORIGIN: "enforcing_local_origin_success_rate",
  FAILURE_PERCENTAGE: "enforcing_failure_percentage",
  FAILURE_PERCENTAGE_LOCAL_ORIGIN: "enforcing_failure_percentage_local_origin",
} as const satisfies Readonly<Record<Ejection, keyof OutlierDetection>>;

/** Draws whether an ejection is carried out, by its percentage. Drawn once for each, by the thread that sees the need. */
export function isEnforced(config: OutlierDetection, runtime: Runtime, type: Ejection): boolean {
  const field = ENFORCING[type];
  return runtime.featureEnabled(`outlier_detection.${field}`, config[field]);
}

/** True if one more of `all` hosts may be ejected beside those that are. */
export function mayEject(
  config: OutlierDetection,
  runtime: Runtime,
  { ejected, all }: { readonly ejected: number; readonly all: number },
): boolean {
  const configured = config.max_ejection_percent;
  const most = Math.min(100, runtime.integer("outlier_detection.max_ejection_percent", configured));
  return (100 * (ejected + 1)) / all <= most || (config.always_eject_one_host && ejected === 0);
}
