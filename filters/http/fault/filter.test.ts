import type { Route } from "@tsproxy/sdk";
import { TestContext, TestStream, withDefaults } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import { Config } from "./config.ts";
import fault from "./filter.ts";

const always = { percentage: { numerator: 100, denominator: "HUNDRED" } };
const toCluster = (cluster: string) => ({ action: { type: "route", cluster } }) as Route;

function harness(config: object, options: { route?: object; cx?: TestContext } = {}) {
  const cx = options.cx ?? new TestContext();
  cx.statPrefix = "http.x.";
  const factory = cx.setup(fault, withDefaults(Config, config));
  const routeConfigs = options.route === undefined ? [] : [withDefaults(Config, options.route)];
  const stream = (cluster = "a") =>
    new TestStream(cx, factory, { routeConfigs, route: toCluster(cluster) });
  const get = (headers: Record<string, string> = {}) =>
    stream().requestHeaders("GET", "/", headers);
  const stat = (name: string) => cx.stats.value(`http.x.fault.${name}`);
  return { cx, stream, get, stat };
}

describe("an abort", () => {
  it("answers in the upstream's place", () => {
    const { get, stat } = harness({ abort: { http_status: 418, ...always } });
    expect(get().reply).toMatchObject({
      status: 418,
      body: "fault filter abort",
      details: "fault_filter_abort",
      flags: ["FI"],
    });
    expect(stat("aborts_injected")).toBe(1);
  });

  it("tells in the metadata that there was one, under the filter's name", () => {
    const { get, cx } = harness({ abort: { http_status: 418, ...always } });
    expect(get().metadata.get("envoy.filters.http.fault")).toEqual({});
    const named = Object.assign(cx, { configName: "second" });
    const again = harness(
      { abort: { http_status: 418, ...always }, filter_metadata: { a: 1 } },
      { cx: named },
    );
    expect(again.get().metadata.get("second")).toEqual({ a: 1 });
  });

  it("by gRPC status is a 200 that says so to gRPC clients", () => {
    const { get } = harness({ abort: { grpc_status: 8, ...always } });
    expect(get().reply).toMatchObject({ status: 200, grpcStatus: 8 });
  });

  it("never happens without a percentage", () => {
    expect(harness({ abort: { http_status: 418 } }).get().reply).toBeUndefined();
  });

  it("happens as often as the percentage says", () => {
    const percentage = { numerator: 2500, denominator: "TEN_THOUSAND" };
    const { get, stat } = harness({ abort: { http_status: 500, percentage } });
    for (let k = 0; k < 4000; k++) get().end();
    expect(stat("aborts_injected")).toBeGreaterThan(850);
    expect(stat("aborts_injected")).toBeLessThan(1150);
  });
});

describe("a delay", () => {
  it("holds the request back, and may be followed by an abort", async () => {
    const { get, stat } = harness({
      delay: { fixed_delay: 300, ...always },
      abort: { http_status: 503, ...always },
    });
    const s = get();
    await s.advance(290);
    expect([s.waiting, s.reply]).toEqual([true, undefined]);
    expect(stat("active_faults")).toBe(1);
    await s.advance(20);
    expect(s.reply?.status).toBe(503);
    expect(s.info.flags).toEqual(["DI", "FI"]);
    s.end();
    expect([stat("delays_injected"), stat("active_faults")]).toEqual([1, 0]);
  });

  it("counts as a fault until it is over, or to the end of an answer that is slowed down", async () => {
    const delay = { fixed_delay: 300, ...always };
    const active = async (config: object) => {
      const { get, stat } = harness({ delay, ...config });
      const s = get();
      await s.advance(310);
      const after = [s.upstream.ended, stat("active_faults")];
      s.end();
      return [...after, stat("active_faults")];
    };
    expect(await active({})).toEqual([true, 0, 0]);
    const response_rate_limit = { header_limit: {}, ...always };
    expect(await active({ response_rate_limit })).toEqual([true, 1, 0]);
  });

  it("ends with its stream", async () => {
    const { cx, get, stat } = harness({ delay: { fixed_delay: 300, ...always } });
    const s = get();
    s.end();
    expect([cx.clock.armed, stat("active_faults")]).toEqual([0, 0]);
  });
});

describe("headers", () => {
  const byHeaders = {
    delay: { header_delay: {}, ...always },
    abort: { header_abort: {}, percentage: { numerator: 50, denominator: "HUNDRED" } },
  };

  it("ask for faults, and forward what they asked for", async () => {
    const { get } = harness({ ...byHeaders, abort: { header_abort: {}, ...always } });
    const s = get({ "x-envoy-fault-delay-request": "250", "x-envoy-fault-abort-request": "501" });
    await s.advance(240);
    expect(s.reply).toBeUndefined();
    await s.advance(30);
    expect(s.reply?.status).toBe(501);
  });

  it.each([["junk"], ["199"], ["600"], ["-1"], ["99999999999999999999"]])(
    "that ask for status %s ask for nothing",
    (status) => {
      const { get } = harness({ abort: { header_abort: {}, ...always } });
      const s = get({ "x-envoy-fault-abort-request": status });
      expect([s.reply, s.upstream.ended]).toEqual([undefined, true]);
    },
  );

  it("can lower a percentage and not raise it", () => {
    const { get, stat } = harness(byHeaders);
    const ask = (percentage: string) => {
      const before = stat("aborts_injected");
      const headers = {
        "x-envoy-fault-abort-request": "500",
        "x-envoy-fault-abort-request-percentage": percentage,
      };
      for (let k = 0; k < 400; k++) get(headers).end();
      return stat("aborts_injected") - before;
    };
    expect(ask("0")).toBe(0);
    expect(ask("100")).toBeLessThan(280);
  });
});

describe("only the requests that are meant", () => {
  const abort = { abort: { http_status: 500, ...always } };

  it("by header, by node, by cluster", () => {
    const { stream } = harness({
      ...abort,
      headers: [{ name: "x-break", string_match: { exact: "1" } }],
      downstream_nodes: ["n1"],
      upstream_cluster: "a",
    });
    const all = { "x-break": "1", "x-envoy-downstream-service-node": "n1" };
    expect(stream().requestHeaders("GET", "/", all).reply?.status).toBe(500);
    expect(stream("b").requestHeaders("GET", "/", all).reply).toBeUndefined();
    expect(stream().requestHeaders("GET", "/", { "x-break": "1" }).reply).toBeUndefined();
    const node = { "x-envoy-downstream-service-node": "n1" };
    expect(stream().requestHeaders("GET", "/", node).reply).toBeUndefined();
  });

  it("by the route's own fault, which takes the place of the filter's", () => {
    expect(harness(abort, { route: {} }).get().reply).toBeUndefined();
    expect(harness({}, { route: abort }).get().reply?.status).toBe(500);
  });

  it("as many at a time as the cap lets, over all workers", () => {
    const config = { delay: { fixed_delay: 1000, ...always }, max_active_faults: 2 };
    const one = harness(config);
    const cx = new TestContext();
    cx.cells = one.cx.cells;
    const other = harness(config, { cx });
    const [a, b] = [one.get(), other.get()];
    expect([a.waiting, b.waiting, other.get().waiting]).toEqual([true, true, false]);
    expect(other.stat("faults_overflow")).toBe(1);
    a.end();
    expect(other.get().waiting).toBe(true);
  });
});

describe("runtime keys", () => {
  it("win over the config, those of the client's cluster over all", () => {
    const { cx, get, stat } = harness({ abort: { http_status: 500 } });
    cx.runtime.replace([
      ["fault.http.abort.abort_percent", 100],
      ["fault.http.abort.http_status", 504],
      ["fault.http.mine.abort.abort_percent", 100],
      ["fault.http.mine.abort.http_status", 429],
    ]);
    expect(get().reply?.status).toBe(504);
    const headers = { "x-envoy-downstream-service-cluster": "mine" };
    expect(get(headers).reply?.status).toBe(429);
    expect(get({ "x-envoy-downstream-service-cluster": "other" }).reply).toBeUndefined();
    expect(stat("mine.aborts_injected")).toBe(1);
  });

  it.each([
    [999, 999],
    [600, 600],
    [1000, 500],
    [199, 500],
  ])(
    "may ask for any status of three digits that ends a response: %s is answered %s",
    (asked, status) => {
      const { cx, get } = harness({ abort: { http_status: 500, ...always } });
      cx.runtime.replace([["fault.http.abort.http_status", asked]]);
      expect(get().reply?.status).toBe(status);
    },
  );

  it("of the client's cluster take the place of the others, but for the length of a delay", async () => {
    const { cx, get } = harness({
      delay: { fixed_delay: 5000, ...always },
      abort: { http_status: 500, ...always },
    });
    const headers = { "x-envoy-downstream-service-cluster": "mine" };
    cx.runtime.replace([
      ["fault.http.abort.http_status", 504],
      ["fault.http.delay.fixed_duration_ms", 300],
    ]);
    const s = get(headers);
    expect(s.waiting).toBe(true);
    await s.advance(310);
    expect(s.reply?.status).toBe(500);
  });
});

describe("a response's rate", () => {
  it("is kept to the limit", async () => {
    const { get, stat } = harness({
      response_rate_limit: { fixed_limit: { limit_kbps: 1 }, ...always },
    });
    const s = get().responseHeaders(200, {}, false);
    s.responseBody("x".repeat(64), false);
    expect(s.downstream.body).toHaveLength(64);
    s.responseBody("y".repeat(512));
    await s.advance(450);
    expect(s.downstream.body).toHaveLength(64);
    await s.advance(80);
    expect([s.downstream.body.length, s.downstream.ended]).toEqual([576, true]);
    expect(stat("response_rl_injected")).toBe(1);
    expect(s.metadata.get("envoy.filters.http.fault")).toBeUndefined();
  });
});

it("refuses faults that say nothing, or two things", () => {
  for (const config of [
    { delay: always },
    { delay: { fixed_delay: 0 } },
    { abort: { http_status: 500, grpc_status: 1 } },
    { response_rate_limit: {} },
  ])
    expect(() => harness(config)).toThrow();
});
