import {
  defineHealthChecker,
  type HealthEvents,
  type HealthTarget,
  type HostSpec,
  Type,
} from "@tsproxy/sdk";
import { TestContext, TestSlot } from "@tsproxy/sdk/testing";
import { beforeEach, describe, expect, it } from "vitest";
import { isEnforced } from "./ejection.ts";
import type { HealthCheck, OutlierDetection } from "./health-config.ts";
import { FLAG, flagsText, healthBy } from "./health-flags.ts";
import { ClusterChecks, HostCheck } from "./host-check.ts";
import { type JudgedHost, OutlierDetector, OutlierRecord } from "./outlier-detector.ts";
import { OutlierMonitor, type OutlierTable, outlierTable, type Row } from "./outlier-monitor.ts";

let cx: TestContext;
beforeEach(() => {
  cx = new TestContext();
  cx.role = "control";
});
const spec = (ip: string): HostSpec => ({
  ip,
  port: 80,
  hostname: "",
  weight: 1,
  priority: 0,
  healthStatus: "",
});

describe("active checks", () => {
  const CONFIG: HealthCheck = {
    timeout: 1_000,
    interval: 5_000,
    initial_jitter: 0,
    interval_jitter: 0,
    interval_jitter_percent: 0,
    unhealthy_threshold: 2,
    healthy_threshold: 3,
    reuse_connection: true,
    no_traffic_interval: 60_000,
    unhealthy_interval: 7_000,
    unhealthy_edge_interval: 700,
    healthy_edge_interval: 500,
    always_log_health_check_failures: false,
    always_log_health_check_success: false,
    event_log_path: "/events.log",
  };
  let checks: number;
  let timeouts: number;
  let events: HealthEvents;
  let target: HealthTarget;
  let told: [changed: boolean, ok: boolean][];
  let host: { spec: HostSpec; flags: number };

  const checker = defineHealthChecker({
    name: "played",
    config: Type.Object({}),
    setup: () => ({
      type: "PLAYED",
      create: (to, on) => {
        events = on;
        target = to;
        return {
          check: () => void checks++,
          onTimeout: () => void timeouts++,
          close: () => {},
        };
      },
    }),
  });

  function start(config: Partial<HealthCheck> = {}, more: Partial<HostSpec> = {}, traffic = true) {
    checks = timeouts = 0;
    told = [];
    host = { spec: { ...spec("10.0.0.1"), ...more }, flags: FLAG.FAILED_ACTIVE_HC };
    const slot = new TestSlot(
      { name: "played", package: "health/played", config: {} },
      cx.setup(checker, {}),
    );
    const shared = new ClusterChecks({
      cx,
      config: { ...CONFIG, ...config },
      clusterName: "c",
      checker: slot,
      connectOptionsFor: () => ({ timeoutMs: 1_000 }),
      stats: cx.stats.scope("cluster.c."),
      hadTraffic: () => traffic,
    });
    const check = new HostCheck(
      shared,
      host,
      false,
      (changed, ok) => void told.push([changed, ok]),
    );
    check.start();
    return check;
  }
  const failed = (): boolean => (host.flags & FLAG.FAILED_ACTIVE_HC) !== 0;
  const stat = (name: string) => cx.stats.value(`cluster.c.health_check.${name}`);
  const ok = (degraded = false): void => events.onHealthy({ degraded });
  const no = (): void => events.onFailure({ type: "no", status: 503 });
  const lost = (): void => events.onFailure({ type: "network" });
  /** The next check begins after exactly so long. */
  const nextIn = (ms: number): void => {
    const before = checks;
    cx.clock.advance(ms - 1);
    expect(checks).toBe(before);
    cx.clock.advance(1);
    expect(checks).toBe(before + 1);
  };

  it("believe the first good word at once, and later ones only in a row", () => {
    start();
    expect([checks, failed()]).toEqual([1, true]);
    ok();
    expect([failed(), stat("healthy")]).toEqual([false, 1]);
    nextIn(5_000);
    no();
    expect([failed(), stat("healthy")]).toEqual([true, 0]);
    nextIn(7_000);
    ok();
    nextIn(500);
    ok();
    nextIn(500);
    ok();
    expect(failed()).toBe(false);
    nextIn(5_000);
    expect([stat("attempt"), stat("success"), stat("failure")]).toEqual([6, 4, 1]);
  });

  it("bear failures of the network, and retriable answers, up to the threshold", () => {
    start();
    ok();
    nextIn(5_000);
    lost();
    expect(failed()).toBe(false);
    nextIn(700);
    events.onFailure({ type: "no", retriable: true });
    expect(failed()).toBe(true);
    expect([stat("network_failure"), stat("failure")]).toEqual([1, 2]);
  });

  it("count a check without an end as a failure, and say so of a host that is out", () => {
    start();
    cx.clock.advance(1_000);
    expect(timeouts).toBe(1);
    expect(host.flags).toBe(FLAG.FAILED_ACTIVE_HC | FLAG.ACTIVE_HC_TIMEOUT);
    ok(); // too late to count
    expect(failed()).toBe(true);
    nextIn(7_000);
    lost();
    expect(host.flags).toBe(FLAG.FAILED_ACTIVE_HC);
  });

  it("are rare until the cluster has had a request", () => {
    const quiet = start({}, {}, false);
    ok();
    nextIn(60_000);
    quiet.close();
    start({ no_traffic_healthy_interval: 9_000 }, {}, false);
    ok();
    nextIn(9_000);
    no();
    nextIn(60_000);
  });

  it("mark degraded hosts, and those that want to be left out", () => {
    start();
    ok(true);
    expect([host.flags, stat("degraded")]).toEqual([FLAG.DEGRADED_ACTIVE_HC, 1]);
    nextIn(5_000);
    ok();
    expect([host.flags, stat("degraded")]).toEqual([0, 1]);
    nextIn(5_000);
    events.onFailure({ type: "no", immediate: true });
    expect(host.flags & FLAG.EXCLUDED_VIA_IMMEDIATE_HC_FAIL).not.toBe(0);
  });

  it("fail a host that a response of its own has given up", () => {
    const check = start();
    ok();
    check.onPassiveFailure();
    expect(failed()).toBe(true);
    expect([stat("passive_failure"), stat("healthy")]).toEqual([1, 0]);
  });

  it("tell of every change, and of the first word whatever it is", () => {
    start();
    lost();
    nextIn(7_000);
    lost();
    expect(told).toEqual([
      [true, false],
      [false, false],
    ]);
  });

  it("go where the endpoint's health_check_config says", () => {
    start({}, { healthCheck: { disabled: false, port: 8081, hostname: "hc.test" } });
    expect([target.address, target.hostname]).toEqual([{ ip: "10.0.0.1", port: 8081 }, "hc.test"]);
  });

  it("write what happens as Envoy's JSON lines", () => {
    start();
    ok();
    nextIn(5_000);
    no();
    const lines = cx.files.get("/events.log")!.trim().split("\n");
    const [added, ejected] = lines.map((line) => JSON.parse(line));
    expect(added).toMatchObject({
      health_checker_type: "PLAYED",
      host: { socket_address: { address: "10.0.0.1", port_value: 80 } },
      cluster_name: "c",
      add_healthy_event: { first_check: true },
    });
    expect(ejected.eject_unhealthy_event).toEqual({
      failure_type: "ACTIVE",
      http_status_code: 503,
    });
    expect(Object.keys(added).slice(0, 5)).toEqual([
      "health_checker_type",
      "host",
      "cluster_name",
      "add_healthy_event",
      "timestamp",
    ]);
  });
});

describe("outlier detection", () => {
  const CONFIG: OutlierDetection = {
    consecutive_5xx: 3,
    interval: 10_000,
    base_ejection_time: 30_000,
    max_ejection_percent: 100,
    enforcing_consecutive_5xx: 100,
    enforcing_success_rate: 100,
    success_rate_minimum_hosts: 5,
    success_rate_request_volume: 100,
    success_rate_stdev_factor: 1900,
    consecutive_gateway_failure: 2,
    enforcing_consecutive_gateway_failure: 0,
    split_external_local_origin_errors: false,
    consecutive_local_origin_failure: 2,
    enforcing_consecutive_local_origin_failure: 100,
    enforcing_local_origin_success_rate: 100,
    failure_percentage_threshold: 85,
    enforcing_failure_percentage: 0,
    enforcing_failure_percentage_local_origin: 0,
    failure_percentage_minimum_hosts: 5,
    failure_percentage_request_volume: 50,
    max_ejection_time_jitter: 0,
    successful_active_health_check_uneject_host: true,
    event_log_path: "/outliers.log",
    always_eject_one_host: false,
    detect_degraded_hosts: true,
  };
  let hosts: JudgedHost[];
  let monitors: OutlierMonitor[];
  let detector: OutlierDetector;
  let table: OutlierTable;

  /** Two workers report in turn: their counts are one. */
  function start(count: number, config: Partial<OutlierDetection> = {}): void {
    const all = { ...CONFIG, ...config };
    table = cx.cell(`table ${count}`, outlierTable(count));
    hosts = Array.from({ length: count }, (_, slot) => ({
      spec: spec(`10.0.0.${slot}`),
      flags: 0,
      slot,
      outlier: new OutlierRecord(),
    }));
    detector = new OutlierDetector({
      cx,
      config: all,
      clusterName: "c",
      stats: cx.stats.scope("cluster.c."),
      table,
      hosts: () => hosts,
      onChanged: () => {},
    });
    monitors = hosts.map(
      (host, slot) =>
        new OutlierMonitor(table, slot, all, cx.runtime, (row: Row) =>
          detector.onRow(host, row, isEnforced(all, cx.runtime, row)),
        ),
    );
    detector.start();
  }
  const ejected = (): number[] =>
    hosts.flatMap((host, k) => ((host.flags & FLAG.FAILED_OUTLIER_CHECK) !== 0 ? [k] : []));
  const stat = (name: string) => cx.stats.value(`cluster.c.outlier_detection.ejections_${name}`);
  const codes = (k: number, ...list: number[]): void => {
    for (const code of list) monitors[k]!.onCode(code);
  };
  const many = (k: number, good: number, bad: number): void => {
    for (let n = 0; n < good; n++) codes(k, 200);
    for (let n = 0; n < bad; n++) codes(k, 500);
  };

  it("takes a host out after so many 5xx in a row, whoever saw them", () => {
    start(2);
    codes(0, 500, 503, 200, 500, 502);
    expect(ejected()).toEqual([]);
    codes(0, 404, 500, 500, 500);
    expect(ejected()).toEqual([0]);
    expect([stat("active"), stat("enforced_total"), stat("enforced_consecutive_5xx")]).toEqual([
      1, 1, 1,
    ]);
    expect([stat("total"), stat("consecutive_5xx"), stat("detected_consecutive_5xx")]).toEqual([
      1, 1, 1,
    ]);
  });

  it("counts rows of failures without a gap, though a report of one takes its time", () => {
    start(1, { enforcing_consecutive_5xx: 0 });
    const reports: Row[] = [];
    const worker = () =>
      new OutlierMonitor(table, 0, CONFIG, cx.runtime, (row) => reports.push(row));
    const workers = [worker(), worker()];
    const fail = (times: number): void => {
      for (let n = 0; n < times; n++) workers[n % 2]!.onCode(500);
    };
    const hear = (): void => {
      for (const row of reports.splice(0)) detector.onRow(hosts[0]!, row, false);
    };
    fail(7);
    hear();
    expect(stat("detected_consecutive_5xx")).toBe(2);
    fail(2);
    hear();
    expect(stat("detected_consecutive_5xx")).toBe(3);
  });

  it("shows no ejections in use before the first", () => {
    start(2);
    // The names are listed; a gauge that is set counts as used.
    cx.stats.gauges.clear();
    cx.clock.advance(25_000);
    expect([...cx.stats.gauges]).toEqual([]);
    codes(0, 500, 500, 500);
    expect([...cx.stats.gauges]).toEqual(["cluster.c.outlier_detection.ejections_active"]);
    expect(stat("active")).toBe(1);
  });

  it("only counts what it is not to enforce", () => {
    start(2);
    codes(0, 502, 503);
    expect(ejected()).toEqual([]);
    expect(stat("detected_consecutive_gateway_failure")).toBe(1);
    expect(stat("enforced_consecutive_gateway_failure")).toBe(0);
  });

  it("lets a host back after the base time, and longer each time it goes again", () => {
    start(2);
    codes(0, 500, 500, 500);
    cx.clock.advance(29_999);
    expect(ejected()).toEqual([0]);
    cx.clock.advance(1);
    expect([ejected(), stat("active")]).toEqual([[], 0]);
    codes(0, 500, 500, 500);
    cx.clock.advance(50_000);
    expect(ejected()).toEqual([0]);
    cx.clock.advance(10_000);
    expect(ejected()).toEqual([]);
  });

  it("forgets old sins, one for each interval that goes well", () => {
    start(2);
    codes(0, 500, 500, 500);
    cx.clock.advance(30_000);
    cx.clock.advance(10_000);
    codes(0, 500, 500, 500);
    cx.clock.advance(30_000);
    expect(ejected()).toEqual([]);
  });

  it("keeps to the longest ejection time", () => {
    start(2, { max_ejection_time: 40_000 });
    for (let n = 0; n < 3; n++) {
      codes(0, 500, 500, 500);
      cx.clock.advance(40_000);
      expect(ejected()).toEqual([]);
    }
  });

  it("takes no more hosts than the percentage allows, but one if it must", () => {
    start(5, { max_ejection_percent: 20 });
    for (const k of [0, 1]) codes(k, 500, 500, 500);
    expect([ejected(), stat("overflow")]).toEqual([[0], 1]);
    start(5, { max_ejection_percent: 10 });
    codes(0, 500, 500, 500);
    expect(ejected()).toEqual([]);
    start(5, { max_ejection_percent: 10, always_eject_one_host: true });
    for (const k of [0, 1]) codes(k, 500, 500, 500);
    expect(ejected()).toEqual([0]);
  });

  it("takes a host that says so for degraded for the base time, and longer each time", () => {
    start(2, { max_ejection_percent: 0 });
    const [host] = hosts as [JudgedHost];
    const degraded = () => (host.flags & FLAG.DEGRADED_OUTLIER_DETECTION) !== 0;
    detector.onDegraded(host);
    detector.onDegraded(host);
    expect([stat("detected_degradation"), stat("enforced_total")]).toEqual([1, 0]);
    expect(healthBy(host.spec, host.flags)).toBe("degraded");
    expect(flagsText(host.spec, host.flags)).toBe("/degraded_outlier_detection");
    cx.clock.advance(29_999);
    expect(degraded()).toBe(true);
    cx.clock.advance(1);
    expect(degraded()).toBe(false);
    detector.onDegraded(host);
    cx.clock.advance(50_000);
    expect(degraded()).toBe(true);
    cx.clock.advance(10_000);
    expect(degraded()).toBe(false);
    // Two intervals that go well are forgotten.
    cx.clock.advance(20_000);
    detector.onDegraded(host);
    cx.clock.advance(30_000);
    expect(degraded()).toBe(false);
    expect(ejected()).toEqual([]);
  });

  it("counts failures of our own as codes, or by themselves when they are split", () => {
    start(2);
    for (let n = 0; n < 3; n++) monitors[0]!.onLocalFailure(503);
    expect(stat("detected_consecutive_5xx")).toBe(1);
    start(2, { split_external_local_origin_errors: true });
    monitors[1]!.onLocalFailure(503);
    monitors[1]!.onConnected(false);
    monitors[1]!.onLocalFailure(504);
    expect(ejected()).toEqual([]);
    monitors[1]!.onLocalFailure(503);
    expect([ejected(), stat("enforced_consecutive_local_origin_failure")]).toEqual([[1], 1]);
  });

  it("takes out whose success rate is far below the others'", () => {
    start(5, { consecutive_5xx: 1000, consecutive_gateway_failure: 1000 });
    for (let k = 0; k < 4; k++) many(k, 100, 0);
    many(4, 50, 50);
    cx.clock.advance(10_000);
    expect(ejected()).toEqual([4]);
    // Mean 90, deviation 20: 90 - 1.9 × 20.
    expect([detector.external.average, detector.external.threshold]).toEqual([90, 52]);
    expect(hosts.map((host) => host.outlier.successRate)).toEqual([100, 100, 100, 100, 50]);
    expect(stat("enforced_success_rate")).toBe(1);
  });

  it("does not compare hosts that had too few requests", () => {
    start(5, { consecutive_5xx: 1000, consecutive_gateway_failure: 1000 });
    for (let k = 0; k < 4; k++) many(k, 99, 0);
    many(4, 0, 99);
    cx.clock.advance(10_000);
    expect(ejected()).toEqual([]);
  });

  it("takes out who fails more than a fixed percentage", () => {
    start(5, {
      consecutive_5xx: 1000,
      enforcing_failure_percentage: 100,
      success_rate_request_volume: 1000,
    });
    for (let k = 0; k < 4; k++) many(k, 20, 80);
    many(4, 15, 85);
    cx.clock.advance(10_000);
    expect([ejected(), stat("enforced_failure_percentage")]).toEqual([[4], 1]);
  });

  it("takes a host out twice, and for longer, that both rules of an interval call for", () => {
    start(5, {
      consecutive_5xx: 1000,
      consecutive_gateway_failure: 1000,
      enforcing_failure_percentage: 100,
    });
    for (let k = 0; k < 4; k++) many(k, 100, 0);
    many(4, 0, 100);
    cx.clock.advance(10_000);
    expect([ejected(), stat("active")]).toEqual([[4], 1]);
    expect([stat("enforced_success_rate"), stat("enforced_failure_percentage")]).toEqual([1, 1]);
    const lines = cx.files.get("/outliers.log")!.trim().split("\n");
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { type: "SUCCESS_RATE", num_ejections: 1 },
      { type: "FAILURE_PERCENTAGE", num_ejections: 2 },
    ]);
    cx.clock.advance(50_000);
    expect(ejected()).toEqual([4]);
    cx.clock.advance(10_000);
    expect([ejected(), stat("active")]).toEqual([[], 0]);
  });

  it("writes what a rule would do to a host that another has taken out", () => {
    start(5, { consecutive_5xx: 1000, consecutive_gateway_failure: 1000 });
    for (let k = 0; k < 4; k++) many(k, 100, 0);
    many(4, 0, 100);
    cx.clock.advance(10_000);
    const lines = cx.files.get("/outliers.log")!.trim().split("\n");
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { type: "SUCCESS_RATE", num_ejections: 1, enforced: true },
      { type: "FAILURE_PERCENTAGE", num_ejections: 1, enforced: false },
    ]);
  });

  it("lets a host back that an active check finds well", () => {
    start(2);
    codes(0, 500, 500, 500);
    detector.onHealthy(hosts[0]!);
    expect([ejected(), stat("active")]).toEqual([[], 0]);
  });

  it("follows the runtime", () => {
    start(2);
    cx.runtime.replace([["outlier_detection.consecutive_5xx", 2]]);
    codes(0, 500, 500);
    expect(ejected()).toEqual([0]);
  });

  it("writes what happens as Envoy's JSON lines", () => {
    start(2);
    codes(0, 500, 500, 500);
    cx.clock.advance(30_000);
    const lines = cx.files.get("/outliers.log")!.trim().split("\n");
    const [eject, back] = lines.map((line) => JSON.parse(line));
    expect(eject).toMatchObject({
      type: "CONSECUTIVE_5XX",
      cluster_name: "c",
      upstream_url: "10.0.0.0:80",
      action: "EJECT",
      num_ejections: 1,
      enforced: true,
      eject_consecutive_event: {},
    });
    expect(back).toMatchObject({ action: "UNEJECT", secs_since_last_action: "30" });
  });
});
