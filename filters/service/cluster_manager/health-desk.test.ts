import type { Cluster } from "@tsproxy/sdk";
import { beforeEach, describe, expect, it } from "vitest";
import { fingerprintOf } from "./handover.ts";
import { healthTopic, report } from "./health-desk.ts";
import { FLAG } from "./health-flags.ts";
import { cluster, cx, listedCluster, spec, start, useContext } from "./test-clusters.ts";

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
  const fail = (host: string, enforced = true, ahead = 0) => {
    const config = fingerprintOf(watched);
    report(cx, { cluster: "w", config, host, what: "CONSECUTIVE_5XX", enforced, ahead });
  };
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

  it("are told to who has ejected a host that is not to be ejected", () => {
    fail("10.0.0.1:80");
    cx.published.delete(healthTopic("w"));
    fail("10.0.0.2:80", false);
    expect(cx.published.has(healthTopic("w"))).toBe(false);
    fail("10.0.0.2:80", false, FLAG.FAILED_OUTLIER_CHECK);
    expect(told()).toEqual({ "10.0.0.1:80": FLAG.FAILED_OUTLIER_CHECK });
    expect(value("cluster_updated")).toBe(1);
  });
});

describe("a worker that has seen a failure", () => {
  const hosts = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map((ip) => spec(ip));
  const detection = {
    consecutive_5xx: 2,
    consecutive_gateway_failure: 9,
    max_ejection_percent: 34,
    enforcing_consecutive_5xx: 100,
  };
  const begin = (more: object): Cluster => {
    useContext();
    const config = listedCluster("w", hosts, more);
    const own = cluster(start(config), "w");
    const slots = Object.fromEntries(hosts.map(({ ip }, k) => [`${ip}:80`, k]));
    cx.publish(healthTopic("w"), { config: fingerprintOf(config), warm: true, flags: {}, slots });
    return own;
  };
  const chosen = (from: Cluster) => {
    const ips = Array.from({ length: 6 }, () => from.chooseHost!({})?.address.ip);
    return [...new Set(ips)].sort();
  };
  const all = hosts.map(({ ip }) => ip);
  const fail = async (from: Cluster, ip: string) => {
    let host = from.chooseHost!({});
    while (host?.address.ip !== ip) host = from.chooseHost!({});
    host.onResponse(500);
    host.onResponse(500);
    await Promise.resolve();
  };

  it("chooses a host no more that this ejects, before it is told, but ejects no more than may be", async () => {
    const own = begin({ outlier_detection: detection });
    await fail(own, "10.0.0.2");
    expect(chosen(own)).toEqual(["10.0.0.1", "10.0.0.3"]);
    await fail(own, "10.0.0.1");
    expect(chosen(own)).toEqual(["10.0.0.1", "10.0.0.3"]);
  });

  it("chooses it further where ejections are not enforced", async () => {
    const own = begin({ outlier_detection: { ...detection, enforcing_consecutive_5xx: 0 } });
    await fail(own, "10.0.0.2");
    expect(chosen(own)).toEqual(all);
  });

  it("waits where changes are told together", async () => {
    const own = begin({ outlier_detection: detection });
    const list = cx.published.get(healthTopic("w"));
    cx.publish(healthTopic("w"), list);
    cx.clock.advance(900);
    await fail(own, "10.0.0.2");
    expect(chosen(own)).toEqual(all);
    cx.clock.advance(200);
    await fail(own, "10.0.0.2");
    expect(chosen(own)).toEqual(["10.0.0.1", "10.0.0.3"]);
    cx.publish(healthTopic("w"), list);
    expect(chosen(own)).toEqual(all);
  });

  it("chooses a host no more that says so itself", async () => {
    const own = begin({ health_checks: [{}] });
    own.chooseHost!({})?.onImmediateHealthCheckFail?.();
    await Promise.resolve();
    expect(chosen(own)).toHaveLength(2);
  });
});
