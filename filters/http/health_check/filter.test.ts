import { TestCluster, TestContext, TestHost, TestStream } from "@tsproxy/sdk/testing";
import { beforeEach, describe, expect, it } from "vitest";
import healthCheck from "./filter.ts";

let cx: TestContext;
beforeEach(() => {
  cx = new TestContext();
});

const PATH = {
  name: ":path",
  string_match: { exact: "/hc", ignore_case: false },
  invert_match: false,
  treat_missing_header_as_empty: false,
};
const setup = (config: object = {}) => {
  const factory = cx.setup(healthCheck, { pass_through_mode: false, headers: [PATH], ...config });
  return (path = "/hc") => new TestStream(cx, factory).requestHeaders("GET", path);
};
const cluster = (healthy: number, unhealthy: number): void => {
  const made = new TestCluster("a", cx.stats);
  made.hosts.length = 0;
  for (let k = 0; k < healthy + unhealthy; k++) {
    const host = new TestHost({ ip: `10.0.0.${k}`, port: 1 });
    host.health = k < healthy ? "healthy" : "unhealthy";
    made.hosts.push(host);
  }
  cx.clusterMap.set("a", made);
};

describe("a check", () => {
  it("is answered here, and others go on", () => {
    const ask = setup();
    expect(ask().reply).toMatchObject({ status: 200, body: "", details: "health_check_ok" });
    expect(ask().info.healthCheck).toBe(true);
    const other = ask("/x");
    expect([other.reply, other.info.healthCheck]).toEqual([undefined, undefined]);
  });

  it("goes on with pass_through_mode, and its answer is marked", () => {
    const s = setup({ pass_through_mode: true })().responseHeaders(200);
    expect(s.reply).toBeUndefined();
    expect(s.downstream.header("x-envoy-upstream-healthchecked-cluster")).toBe("test-cluster");
  });

  it("names a cluster beyond Latin-1 in UTF-8", () => {
    cx.node = { id: "n", cluster: "кластер" };
    const s = setup({ pass_through_mode: true })().responseHeaders(200);
    const bytes = Buffer.from("кластер").toString("latin1");
    expect(s.downstream.header("x-envoy-upstream-healthchecked-cluster")).toBe(bytes);
  });

  it("fails while an operator says so, passed through or not, and all other answers warn", () => {
    const own = setup();
    const passed = setup({ pass_through_mode: true });
    const underWay = passed();
    cx.publish("core/health_checks_fail", true);
    const failure = { status: 503, flags: ["LH"], details: "health_check_failed" };
    expect([own().reply, passed().reply]).toMatchObject([failure, failure]);
    const other = own("/x").responseHeaders(200);
    expect(other.downstream.header("x-envoy-immediate-health-check-fail")).toBe("true");
    underWay.responseHeaders(200);
    expect(underWay.downstream.header("x-envoy-immediate-health-check-fail")).toBe("true");
    cx.publish("core/health_checks_fail", false);
    expect(own().reply!.status).toBe(200);
  });

  it("asks how many hosts of clusters are healthy", () => {
    const ask = (value: number) =>
      setup({ cluster_min_healthy_percentages: { a: { value } } })().reply!;
    expect(ask(1).details).toBe("health_check_failed_no_cluster_found");
    cluster(0, 0);
    expect(ask(1).details).toBe("health_check_failed_cluster_empty");
    expect(ask(0).status).toBe(200);
    cluster(1, 1);
    expect(ask(50)).toMatchObject({ status: 200, details: "health_check_ok_cluster_healthy" });
    expect(ask(51)).toMatchObject({
      status: 503,
      details: "health_check_failed_cluster_unhealthy",
    });
  });

  it("is answered as the upstream did for as long as cache_time says", () => {
    const ask = setup({ pass_through_mode: true, cache_time: 5_000 });
    ask().responseHeaders(503, { "x-envoy-degraded": "" });
    expect(ask().reply).toMatchObject({
      status: 503,
      details: "health_check_cached",
      headers: [["x-envoy-degraded", ""]],
    });
    cx.clock.advance(5_000);
    expect(ask().reply).toBeUndefined();
  });

  it("with a body is answered when that has come", () => {
    const factory = cx.setup(healthCheck, { pass_through_mode: false, headers: [PATH] });
    const s = new TestStream(cx, factory).requestHeaders("POST", "/hc", {}, false);
    expect(s.reply).toBeUndefined();
    expect(s.requestBody("x").reply!.status).toBe(200);
  });

  it("is what its headers say: bodies of other requests go on, and so do those that the upstream answers", () => {
    for (const [passed, path] of [
      [false, "/x"],
      [true, "/hc"],
    ] as const) {
      const factory = cx.setup(healthCheck, { pass_through_mode: passed, headers: [PATH] });
      const stream = new TestStream(cx, factory).requestHeaders("POST", path, {}, false);
      stream.requestBody("abc", true);
      expect(stream.reply).toBeUndefined();
    }
  });

  it("is counted where it is answered here", () => {
    cluster(0, 1);
    const ask = setup({ cluster_min_healthy_percentages: { a: { value: 50 } } });
    ask();
    ask("/x");
    expect(cx.stats.value("health_check.request_total")).toBe(1);
    expect(cx.stats.value("health_check.failed")).toBe(1);
    expect(cx.stats.value("health_check.failed_cluster_unhealthy")).toBe(1);
  });

  it("may not be cached where nothing is passed through", () => {
    expect(() => setup({ cache_time: 1_000 })).toThrow("must not be set");
  });
});
