import { beforeEach, describe, expect, it } from "vitest";
import { fingerprintOf } from "./handover.ts";
import { healthTopic, report } from "./health-desk.ts";
import { FLAG } from "./health-flags.ts";
import { cx, listedCluster, spec, start, useContext } from "./test-clusters.ts";

describe("changes of health", () => {
  const hosts = ["10.0.0.1", "10.0.0.2"].map((ip) => spec(ip));
  const watched = listedCluster("w", hosts, {
    outlier_detection: {
      interval: 10_000,
      base_ejection_time: 30_000,
      max_ejection_percent: 100,
      enforcing_consecutive_5xx: 100,
      max_ejection_time_jitter: 0,
      event_log_path: "",
    },
  });
  const told = () => (cx.published.get(healthTopic("w")) as { flags: object }).flags;
  const value = (name: string) => cx.stats.value(`cluster_manager.${name}`);
  const fail = (host: string) =>
    report(cx, { cluster: "w", config: fingerprintOf(watched), host, what: "CONSECUTIVE_5XX" });
  beforeEach(() => {
    useContext();
    cx.role = "control";
    start(watched);
  });

  it("are told at once when the cluster has just begun, as its first hosts are no update", () => {
    fail("10.0.0.1:80");
    expect(told()).toEqual({ "10.0.0.1:80": FLAG.FAILED_OUTLIER_CHECK });
    expect([value("cluster_updated"), value("update_out_of_merge_window")]).toEqual([1, 1]);
  });

  it("are told together when they follow within the merge window", () => {
    fail("10.0.0.1:80");
    fail("10.0.0.2:80");
    expect(Object.keys(told())).toEqual(["10.0.0.1:80"]);
    cx.clock.advance(1_000);
    expect(Object.keys(told())).toEqual(["10.0.0.1:80", "10.0.0.2:80"]);
    expect([value("cluster_updated"), value("cluster_updated_via_merge")]).toEqual([1, 1]);
    expect(value("update_out_of_merge_window")).toBe(1);
  });
});
