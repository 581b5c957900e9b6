import type { HostHealth, HostSpec } from "@tsproxy/sdk";

/** Health flags of a host, determined by the control thread; the bits are Envoy's. */
export const FLAG = {
  FAILED_ACTIVE_HC: 0x1,
  FAILED_OUTLIER_CHECK: 0x2,
  DEGRADED_ACTIVE_HC: 0x8,
  PENDING_DYNAMIC_REMOVAL: 0x20,
  PENDING_ACTIVE_HC: 0x40,
  EXCLUDED_VIA_IMMEDIATE_HC_FAIL: 0x80,
  ACTIVE_HC_TIMEOUT: 0x100,
  DEGRADED_OUTLIER_DETECTION: 0x400,
} as const;

const UNHEALTHY = FLAG.FAILED_ACTIVE_HC | FLAG.FAILED_OUTLIER_CHECK;
const DEGRADED = FLAG.DEGRADED_ACTIVE_HC | FLAG.DEGRADED_OUTLIER_DETECTION;
const EXCLUDED = FLAG.PENDING_ACTIVE_HC | FLAG.EXCLUDED_VIA_IMMEDIATE_HC_FAIL;

/** Health of a host by its flags and the status from discovery. */
export function healthBy(spec: HostSpec, flags: number): HostHealth {
  const said = spec.healthStatus;
  if ((flags & UNHEALTHY) !== 0) return "unhealthy";
  if (said === "UNHEALTHY" || said === "DRAINING" || said === "TIMEOUT") return "unhealthy";
  return said === "DEGRADED" || (flags & DEGRADED) !== 0 ? "degraded" : "healthy";
}

/** True if the host does not count in the totals for priorities and panic. */
export function excludedBy(spec: HostSpec, flags: number): boolean {
  return (flags & EXCLUDED) !== 0 || spec.healthStatus === "DRAINING";
}

/** Envoy's text for admin's /clusters: `healthy`, or `/` and the name of each flag. */
export function flagsText(spec: HostSpec, flags: number): string {
  const said = spec.healthStatus;
  let text = "";
  const say = (condition: boolean, word: string): void => {
    if (condition) text += word;
  };
  say((flags & FLAG.FAILED_ACTIVE_HC) !== 0, "/failed_active_hc");
  say((flags & FLAG.FAILED_OUTLIER_CHECK) !== 0, "/failed_outlier_check");
  say(said === "UNHEALTHY" || said === "TIMEOUT", "/failed_eds_health");
  say((flags & FLAG.DEGRADED_ACTIVE_HC) !== 0, "/degraded_active_hc");
  say(said === "DEGRADED", "/degraded_eds_health");
  say((flags & FLAG.PENDING_DYNAMIC_REMOVAL) !== 0, "/pending_dynamic_removal");
  say((flags & FLAG.PENDING_ACTIVE_HC) !== 0, "/pending_active_hc");
  say((flags & FLAG.EXCLUDED_VIA_IMMEDIATE_HC_FAIL) !== 0, "/excluded_via_immediate_hc_fail");
  say((flags & FLAG.ACTIVE_HC_TIMEOUT) !== 0, "/active_hc_timeout");
  say(said === "DRAINING", "/eds_status_draining");
  say((flags & FLAG.DEGRADED_OUTLIER_DETECTION) !== 0, "/degraded_outlier_detection");
  return text === "" ? "healthy" : text;
}
