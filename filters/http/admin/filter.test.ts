import { existsSync, readFileSync } from "node:fs";
import {
  Chunk,
  type ClusterManagerStatus,
  type HttpStream,
  RequestHeaders,
  type ResponseHeaders,
  utf8Decode,
  utf8Encode,
} from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import type { ConfigSnapshot, PackageSnapshot, StatsSnapshot } from "./core-data.ts";
import admin from "./filter.ts";

const cluster = (name: string, hosts: number[] = []): ClusterManagerStatus["clusters"][number] => ({
  name,
  observabilityName: name,
  addedViaApi: false,
  thresholds: [
    { maxConnections: 1024, maxPendingRequests: 1024, maxRequests: 1024, maxRetries: 3 },
    { maxConnections: 1024, maxPendingRequests: 1024, maxRequests: 1024, maxRetries: 3 },
  ],
  hosts: hosts.map((port) => ({
    ip: "127.0.0.1",
    port,
    key: `127.0.0.1:${port}`,
    hostname: "",
    weight: 1,
    priority: 0,
    healthStatus: "UNKNOWN",
    healthFlags: "healthy",
    canary: false,
  })),
});

/** Stats of a test: what is at 0 was never written. */
interface GivenStats {
  readonly counters?: readonly (readonly [string, number])[];
  readonly gauges?: readonly (readonly [string, number])[];
  readonly histograms?: StatsSnapshot["histograms"];
}
const written = (list: readonly (readonly [string, number])[] = []) =>
  list.map(([name, value]) => [name, value, value !== 0] as const);

/** A proxy of one listener and two clusters, with the stats that a test gives it. */
function start(
  world: {
    stats?: GivenStats;
    state?: string;
    clusters?: ClusterManagerStatus;
    bootstrap?: ConfigSnapshot["bootstrap"];
    packages?: readonly PackageSnapshot[];
  } = {},
) {
  const cx = new TestContext();
  const ran: string[] = [];
  const operation = (name: string, answer: unknown) =>
    cx.operations.set(name, () => {
      ran.push(name);
      return answer;
    });
  const { counters, gauges, histograms = [] } = world.stats ?? {};
  operation("core.stats", { counters: written(counters), gauges: written(gauges), histograms });
  operation("core.server_info", {
    version: "0.1.0",
    state: world.state ?? "LIVE",
    uptimeSeconds: 35.9,
    options: { concurrency: 2, config_path: "front.yaml" },
    node: { id: "n1", cluster: "c1", locality: { region: "r" } },
  });
  operation("core.listeners", [
    { name: "main", address: { ip: "127.0.0.1", port: 10000 }, additional: [] },
    {
      name: "two",
      address: { ip: "::1", port: 1 },
      additional: [{ ip: "", port: 0, path: "/run/two" }],
    },
  ]);
  operation("core.packages", world.packages ?? []);
  operation("core.config", {
    bootstrap: world.bootstrap ?? {},
    loadedAt: "2026-11-20T09:30:50.219Z",
  });
  operation("core.reset_counters", {});
  operation("core.quit", {});
  for (const name of ["healthcheck", "drain_listeners", "reopen_logs", "change_lookups"])
    operation(`core.${name}`, {});
  operation("core.runtime_modify", true);
  operation("core.memory", {
    allocated: 1,
    heapSize: 2,
    unmapped: 0,
    free: 1,
    cached: 0,
    physical: 3,
  });
  operation("core.log_levels", [
    ["http/router", "info"],
    ["main", "info"],
  ]);
  operation("core.recent_lookups", { total: 7 });
  cx.publish("cluster_manager/status", world.clusters ?? { clusters: [] });
  const factory = cx.setup(admin, {});

  function open(method: string, path: string) {
    const request = new RequestHeaders();
    request.method = method;
    request.path = path;
    const sent = {
      status: 0,
      headers: {} as Record<string, string>,
      body: "",
      pieces: 0,
      ended: false,
    };
    const hooks = { onSend: () => {} };
    const filter = factory({
      request,
      responder: {
        sendHeaders(headers: ResponseHeaders, endStream: boolean) {
          sent.status = headers.status;
          sent.headers = Object.fromEntries(headers);
          sent.ended = endStream;
        },
        sendBody(memory: Uint8Array, at: number, end: number, endStream: boolean) {
          sent.body += utf8Decode(memory, at, end);
          sent.pieces++;
          sent.ended = endStream;
          hooks.onSend();
        },
      },
    } as unknown as HttpStream);
    return { filter, request, sent, hooks };
  }

  async function ask(path: string, method = "GET", { form = "" } = {}) {
    const { filter, request, sent } = open(method, path);
    if (form !== "") request.append("content-type", "application/x-www-form-urlencoded");
    filter.onRequestHeaders!(request, form === "");
    const bytes = utf8Encode(form);
    if (form !== "") filter.onRequestBody!(new Chunk(bytes, 0, bytes.length), true);
    await settled();
    filter.onEnd!();
    return sent;
  }
  return { cx, ran, open, ask };
}

/** Operations of a test answer in microtasks; a macrotask is after them all. */
const settled = () => new Promise<void>((resolve) => setImmediate(resolve));

describe("requests", () => {
  it("answers with Envoy's headers", async () => {
    const { status, headers, body } = await start().ask("/ready");
    expect(status).toBe(200);
    expect(headers).toEqual({
      "content-type": "text/plain; charset=UTF-8",
      "cache-control": "no-cache, max-age=0",
      "x-content-type-options": "nosniff",
    });
    expect(body).toBe("LIVE\n");
  });

  it("is not ready while it drains", async () => {
    const { status, body } = await start({ state: "DRAINING" }).ask("/ready", "POST");
    expect([status, body]).toEqual([503, "DRAINING\n"]);
  });

  it("names the commands when it does not know one", async () => {
    const { status, body } = await start().ask("/nonsense?x");
    expect(status).toBe(404);
    expect(body).toMatch(/^invalid path\. admin commands are:\n {2}\/: Admin home page\n/);
  });

  it.each(["/quitquitquit", "/reset_counters"])("changes nothing for a GET of %s", async (path) => {
    const t = start();
    const { status, body } = await t.ask(path);
    expect([status, body]).toEqual([405, "Method GET not allowed, POST required."]);
    expect(t.ran).toEqual([]);
  });

  it("resets counters", async () => {
    const t = start();
    expect((await t.ask("/reset_counters", "POST")).body).toBe("OK\n");
    expect(t.ran).toEqual(["core.reset_counters"]);
  });

  it("quits once the answer has gone out", async () => {
    const t = start();
    const { filter, request, sent, hooks } = t.open("POST", "/quitquitquit");
    const ranWhenSent: string[][] = [];
    hooks.onSend = () => void ranWhenSent.push([...t.ran]);
    filter.onRequestHeaders!(request, true);
    await settled();
    expect(sent.body).toBe("OK\n");
    expect(ranWhenSent).toEqual([[]]);
    expect(t.ran).toEqual(["core.quit"]);
  });

  it("waits for the end of a request's body, which it drops", async () => {
    const t = start();
    const { filter, request, sent } = t.open("POST", "/ready");
    filter.onRequestHeaders!(request, false);
    await settled();
    expect(sent.status).toBe(0);
    filter.onRequestBody!(undefined as never, true);
    await settled();
    expect(sent.body).toBe("LIVE\n");
  });

  it("sends no body to HEAD", async () => {
    const { status, body, ended } = await start().ask("/help", "HEAD");
    expect([status, body, ended]).toEqual([200, "", true]);
  });

  it("lists every command in the help and on the home page", async () => {
    const t = start();
    const { body } = await t.ask("/help");
    const home = await t.ask("/");
    expect(home.headers["content-type"]).toBe("text/html; charset=UTF-8");
    const paths = [...body.matchAll(/^ {2}(\/[a-z_/]+)/gm)].map((match) => match[1]!);
    expect(paths.length).toBeGreaterThan(8);
    for (const path of paths) expect(home.body).toContain(`>${path}<`);
    expect(home.body).toContain('<form action="/quitquitquit" method="post">');
  });

  it("answers 500 when core does", async () => {
    const t = start();
    t.cx.operations.set("core.stats", () => {
      throw new Error("no answer in 5 s");
    });
    const { status, body } = await t.ask("/stats");
    expect(status).toBe(500);
    expect(body).toContain("no answer in 5 s");
  });

  it("makes no more of the answer than the client takes", async () => {
    const counters = Array.from({ length: 5000 }, (_, k) => [`cluster.c${k}.x`, k] as const);
    const t = start({ stats: { counters } });
    const { filter, request, sent, hooks } = t.open("GET", "/stats");
    hooks.onSend = () => filter.onResponseBlocked!(true);
    filter.onRequestHeaders!(request, true);
    await settled();
    expect(sent.pieces).toBe(1);
    expect(sent.body.length).toBeLessThan(20_000);
    hooks.onSend = () => {};
    filter.onResponseBlocked!(false);
    expect(sent.ended).toBe(true);
    expect(sent.body.split("\n")).toHaveLength(5001);
  });

  it("stops when the client leaves", async () => {
    const t = start();
    const { filter, request, sent } = t.open("GET", "/stats");
    filter.onRequestHeaders!(request, true);
    filter.onReset!();
    await settled();
    expect(sent.status).toBe(0);
  });

  it("makes a bounded number of answers at a time", async () => {
    const t = start();
    const ask = () => {
      const opened = t.open("GET", "/listeners");
      opened.filter.onResponseBlocked!(true);
      opened.filter.onRequestHeaders!(opened.request, true);
      return opened;
    };
    const open = Array.from({ length: 65 }, ask);
    await settled();
    expect(open.map(({ sent }) => sent.status)).toEqual([...Array(64).fill(200), 503]);
    for (const { filter } of open) filter.onReset!();
    expect((await t.ask("/listeners")).status).toBe(200);
  });
});

describe("/stats", () => {
  const world = {
    stats: {
      counters: [
        ["cluster.up.upstream_rq_200", 29],
        ["@host|up|127.0.0.1:1|rq_total", 29],
        ["cluster.up.upstream_rq_503", 0],
      ] as const,
      gauges: [["cluster.up.membership_total", 1]] as const,
      histograms: [
        // 26 times 1, as in a recording of Envoy, which prints exactly these figures.
        {
          name: "l.accepted",
          unit: "",
          count: 26,
          sum: 26,
          buckets: [[1.1, 26]] as const,
          interval: { count: 1, sum: 11, buckets: [[12, 1]] as const },
        },
        { name: "l.none", unit: "ms", count: 0, sum: 0, buckets: [], interval: null },
        {
          name: "l.time",
          unit: "ms",
          count: 4,
          sum: 708,
          buckets: [
            [1, 3],
            [710, 1],
          ] as const,
          interval: null,
        },
      ],
    },
  };

  it("prints counters and gauges by name, then histograms", async () => {
    expect((await start(world).ask("/stats")).body.split("\n")).toEqual([
      "cluster.up.membership_total: 1",
      "cluster.up.upstream_rq_200: 29",
      "cluster.up.upstream_rq_503: 0",
      "l.accepted: P0(11.5,1.0037037037037038) P25(11.5,1.025925925925926) P50(11.5,1.048148148148148) " +
        "P75(11.5,1.074074074074074) P90(11.5,1.0888888888888888) P95(11.5,1.0925925925925926) " +
        "P99(11.5,1.0962962962962963) P99.5(11.5,1.0962962962962963) P99.9(11.5,1.0962962962962963) " +
        "P100(11.5,1.0962962962962963)",
      "l.none: No recorded values",
      "l.time: P0(nan,0) P25(nan,0) P50(nan,0) P75(nan,0) P90(nan,705) P95(nan,705) P99(nan,705) " +
        "P99.5(nan,705) P99.9(nan,705) P100(nan,705)",
      "",
    ]);
  });

  it.each([
    ["/stats?filter=_rq_2", ["cluster.up.upstream_rq_200: 29"]],
    [
      "/stats?filter=%5Ecluster.*(200%7C503)$",
      ["cluster.up.upstream_rq_200: 29", "cluster.up.upstream_rq_503: 0"],
    ],
    ["/stats?filter=cluster|l&invert_filter", []],
    ["/stats?usedonly&type=Counters", ["cluster.up.upstream_rq_200: 29"]],
    ["/stats?type=Gauges", ["cluster.up.membership_total: 1"]],
    ["/stats?type=TextReadouts", []],
  ])("selects: %s", async (path, lines) => {
    expect((await start(world).ask(path)).body).toBe(lines.map((line) => `${line}\n`).join(""));
  });

  it("prints JSON as Envoy does", async () => {
    const t = start(world);
    expect((await t.ask("/stats?format=json&filter=rq_200")).body).toBe(
      '{"stats":[{"name":"cluster.up.upstream_rq_200","value":29}]}',
    );
    expect(JSON.parse((await t.ask("/stats?format=json&filter=nothing")).body)).toEqual({
      stats: [],
    });
    const { stats } = JSON.parse((await t.ask("/stats?format=json")).body);
    expect(stats).toHaveLength(4);
    expect(stats[3].histograms.supported_quantiles).toEqual([
      0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100,
    ]);
    expect(stats[3].histograms.computed_quantiles[2]).toMatchObject({
      name: "l.time",
      values: [
        { cumulative: 0, interval: null },
        {},
        {},
        {},
        { cumulative: 705, interval: null },
        {},
        {},
        {},
        {},
        {},
      ],
    });
    const only = JSON.parse((await t.ask("/stats?format=json&type=Histograms&filter=none")).body);
    expect(only.stats[0].histograms.computed_quantiles[0].values[0]).toEqual({
      cumulative: null,
      interval: null,
    });
  });

  it("counts into Envoy's buckets", async () => {
    const t = start(world);
    const text = (await t.ask("/stats?filter=l.time&histogram_buckets=disjoint")).body;
    expect(text).toMatch(
      /^l\.time: B0\.5\(0,3\) B1\(0,0\) .* B500\(0,0\) B1000\(0,1\) B2500\(0,0\) .* B600000\(0,0\) B1\.8e\+06\(0,0\) B3\.6e\+06\(0,0\)\n$/,
    );
    const { stats } = JSON.parse(
      (await t.ask("/stats?format=json&filter=l.time&histogram_buckets=cumulative")).body,
    );
    expect(stats[0].histograms[0].buckets.at(-1)).toEqual({
      upper_bound: 3600000,
      interval: 0,
      cumulative: 4,
    });
  });

  it("refuses a pattern that is none, or has no end", async () => {
    const t = start(world);
    expect(await t.ask("/stats?filter=a)(b")).toMatchObject({
      status: 400,
      body: expect.stringContaining("Invalid re2 regex: "),
    });
    expect((await t.ask(`/stats?filter=${"a".repeat(1025)}`)).status).toBe(400);
    expect((await t.ask("/stats?format=xml")).body).toBe(
      "usage: /stats?format=(html|active-html|json|prometheus|text)\n\n",
    );
    expect((await t.ask("/stats?type=x")).body).toBe("invalid &type= param");
    expect((await t.ask("/stats?histogram_buckets=x")).status).toBe(400);
  });
});

describe("histograms in detail", () => {
  // 0, 0 and 2, as Envoy 1.40 printed them.
  const histogram = {
    name: "http.main.t",
    unit: "ms",
    count: 3,
    sum: 2,
    interval: null,
    buckets: [
      [1, 2],
      [2.1, 1],
    ] as const,
  };
  const world = {
    stats: { histograms: [histogram, { ...histogram, name: "none", count: 0, buckets: [] }] },
  };

  it("as text", async () => {
    expect((await start(world).ask("/stats?filter=main&histogram_buckets=detailed")).body).toBe(
      "http.main.t:\n  totals=0,0:2, 2,0.1:1\n  intervals=\n" +
        "  summary=P0(nan,0) P25(nan,0) P50(nan,0) P75(nan,2.05) P90(nan,2.05) P95(nan,2.05) P99(nan,2.05) P99.5(nan,2.05) P99.9(nan,2.05) P100(nan,2.05)\n",
    );
  });

  it("as JSON", async () => {
    const { body } = await start(world).ask(
      "/stats?filter=main&histogram_buckets=detailed&format=json",
    );
    const { histograms } = JSON.parse(body).stats[0];
    expect(histograms.supported_percentiles).toHaveLength(10);
    expect(histograms.details[0]).toMatchObject({
      name: "http.main.t",
      totals: [
        { lower_bound: 0, width: 0, count: 2 },
        { lower_bound: 2, width: 0.1, count: 1 },
      ],
      intervals: [],
    });
    expect(histograms.details[0].percentiles[3]).toEqual({ cumulative: 2.05, interval: null });
  });

  it("as a page that shows what is there and nothing else", async () => {
    const { body, headers } = await start({ stats: { counters: [["a<b", 1]] } }).ask(
      "/stats?format=html",
    );
    expect(headers["content-type"]).toContain("text/html");
    expect(body).toContain("a&lt;b: 1\n");
  });
});

describe("commands that change something", () => {
  it.each([
    ["/healthcheck/fail", "core.healthcheck"],
    ["/healthcheck/ok", "core.healthcheck"],
    ["/drain_listeners?graceful&inboundonly", "core.drain_listeners"],
    ["/reopen_logs", "core.reopen_logs"],
    ["/stats/recentlookups/enable", "core.change_lookups"],
    ["/runtime_modify?a=1", "core.runtime_modify"],
  ])("%s wants POST, and answers OK", async (path, operation) => {
    const t = start();
    expect((await t.ask(path)).status).toBe(405);
    expect(t.ran).toEqual([]);
    expect(await t.ask(path, "POST")).toMatchObject({ status: 200, body: "OK\n" });
    expect(t.ran).toEqual([operation]);
  });

  it("takes the values of a form", async () => {
    const t = start();
    const told: unknown[] = [];
    t.cx.operations.set("core.runtime_modify", (args) => told.push(args));
    await t.ask("/runtime_modify?a=1", "POST", { form: "b=2%20x&c=" });
    expect(told).toEqual([{ a: "1", b: "2 x", c: "" }]);
    expect((await t.ask("/runtime_modify", "POST")).status).toBe(400);
  });

  it("says so when no layer of the runtime takes changes", async () => {
    const t = start();
    t.cx.operations.set("core.runtime_modify", () => false);
    expect(await t.ask("/runtime_modify?a=1", "POST")).toMatchObject({
      status: 503,
      body: "No admin layer specified",
    });
  });
});

describe("/logging", () => {
  it("lists loggers and changes one, several, or all", async () => {
    const t = start();
    expect((await t.ask("/logging", "POST")).body).toBe(
      "active loggers:\n  http/router: info\n  main: info\n  router: info\n\n",
    );
    const set: unknown[] = [];
    t.cx.operations.set("core.set_log_levels", (args) => {
      set.push((args as { changes: unknown }).changes);
      return [["main", "debug"]];
    });
    for (const query of ["level=debug", "main=trace", "paths=main:off,router:error"])
      expect((await t.ask(`/logging?${query}`, "POST")).body).toBe(
        "active loggers:\n  main: debug\n\n",
      );
    expect(set).toEqual([
      [["", "debug"]],
      [["main", "trace"]],
      [
        ["main", "off"],
        ["http/router", "error"],
      ],
    ]);
  });

  it.each([
    ["level=loud", "unknown logger level"],
    ["nobody=info", "unknown logger name"],
    ["paths=main", "unknown logger level"],
    ["level=info&main=debug", "invalid number of parameters"],
  ])("refuses %s", async (query, reason) => {
    const { status, body } = await start().ask(`/logging?${query}`, "POST");
    expect(status).toBe(400);
    expect(body).toMatch(new RegExp(`^error: ${reason}\n\nusage: /logging`));
  });
});

describe("what Envoy has beside", () => {
  it("answers memory in decimal strings", async () => {
    const body = JSON.parse((await start().ask("/memory")).body);
    expect(Object.keys(body)).toEqual([
      "allocated",
      "heap_size",
      "pageheap_unmapped",
      "pageheap_free",
      "total_thread_cache",
      "total_physical_bytes",
    ]);
    expect(body.allocated).toBe("1");
  });

  it.each([
    ["/heap_dump", "GET", "The current build does not support heap dump"],
    ["/heapprofiler?enable=y", "POST", "The current build does not support heap profiler"],
  ])("says that %s is not there", async (path, method, body) => {
    expect(await start().ask(path, method)).toMatchObject({ status: 501, body });
  });

  it("prints the names of stats that were looked up", async () => {
    const t = start();
    expect((await t.ask("/stats/recentlookups")).body).toBe(
      "Lookup tracking is not enabled. Use /stats/recentlookups/enable to enable.\n\ntotal: 7\n",
    );
    t.cx.operations.set("core.recent_lookups", () => ({ recent: [["a.b", 2]], total: 9 }));
    expect((await t.ask("/stats/recentlookups")).body).toBe(
      "   Count Lookup\n       2 a.b\n\ntotal: 9\n",
    );
  });
});

describe("/stats/prometheus", () => {
  it.each([
    [
      "cluster.up.upstream_rq_200",
      'envoy_cluster_upstream_rq{envoy_response_code="200",envoy_cluster_name="up"} 1',
    ],
    [
      "cluster.up.retry.upstream_rq_5xx",
      'envoy_cluster_retry_upstream_rq_xx{envoy_response_code_class="5",envoy_cluster_name="up"} 1',
    ],
    [
      "cluster.a-b.upstream_cx_total",
      'envoy_cluster_upstream_cx_total{envoy_cluster_name="a-b"} 1',
    ],
    [
      "http.ing.downstream_rq_2xx",
      'envoy_http_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix="ing"} 1',
    ],
    [
      "listener.admin.http.admin.downstream_rq_2xx",
      'envoy_listener_admin_http_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix="admin"} 1',
    ],
    [
      "listener.127.0.0.1_80.worker_0.downstream_cx_total",
      'envoy_listener_worker_downstream_cx_total{envoy_worker_id="0",envoy_listener_address="127.0.0.1_80"} 1',
    ],
    [
      "listener.[__1]_80.downstream_cx_total",
      'envoy_listener_downstream_cx_total{envoy_listener_address="[__1]_80"} 1',
    ],
    ["tcp.t.downstream_cx_total", 'envoy_tcp_downstream_cx_total{envoy_tcp_prefix="t"} 1'],
    [
      "vhost.v.vcluster.c.upstream_rq_total",
      'envoy_vhost_vcluster_upstream_rq_total{envoy_virtual_cluster="c",envoy_virtual_host="v"} 1',
    ],
    [
      "mine.http_local_rate_limit.ok",
      'envoy_http_local_rate_limit_ok{envoy_local_http_ratelimit_prefix="mine"} 1',
    ],
    ["server.uptime", "envoy_server_uptime{} 1"],
  ])("%s", async (name, line) => {
    const { body } = await start({ stats: { counters: [[name, 1]] } }).ask("/stats/prometheus");
    const metric = line.slice(0, line.indexOf("{"));
    expect(body).toBe(`# TYPE ${metric} counter\n${line}\n`);
  });

  it("gathers the stats of a metric under one type", async () => {
    const counters = ["cluster.a.upstream_rq_200", "cluster.ab.x", "cluster.b.upstream_rq_404"].map(
      (name) => [name, 1] as const,
    );
    const { body } = await start({ stats: { counters } }).ask("/stats?format=prometheus&usedonly");
    expect(body.match(/# TYPE \S+/g)).toEqual([
      "# TYPE envoy_cluster_upstream_rq",
      "# TYPE envoy_cluster_x",
    ]);
    expect(body.split("\n").slice(0, 3)).toEqual([
      "# TYPE envoy_cluster_upstream_rq counter",
      'envoy_cluster_upstream_rq{envoy_response_code="200",envoy_cluster_name="a"} 1',
      'envoy_cluster_upstream_rq{envoy_response_code="404",envoy_cluster_name="b"} 1',
    ]);
  });

  it("prints histograms with cumulative buckets", async () => {
    const histogram = { name: "cluster.a.t", unit: "ms", count: 3, sum: 13, interval: null };
    const buckets = [
      [1, 1],
      [1.1, 1],
      [13, 1],
    ] as const;
    const t = start({ stats: { histograms: [{ ...histogram, buckets }] } });
    const lines = (await t.ask("/stats/prometheus")).body.split("\n");
    expect(lines[0]).toBe("# TYPE envoy_cluster_t histogram");
    expect(lines).toContain('envoy_cluster_t_bucket{envoy_cluster_name="a",le="0.5"} 1');
    expect(lines).toContain('envoy_cluster_t_bucket{envoy_cluster_name="a",le="1"} 2');
    expect(lines).toContain('envoy_cluster_t_bucket{envoy_cluster_name="a",le="10"} 2');
    expect(lines).toContain('envoy_cluster_t_bucket{envoy_cluster_name="a",le="25"} 3');
    expect(lines.slice(-4)).toEqual([
      'envoy_cluster_t_bucket{envoy_cluster_name="a",le="+Inf"} 3',
      'envoy_cluster_t_sum{envoy_cluster_name="a"} 13',
      'envoy_cluster_t_count{envoy_cluster_name="a"} 3',
      "",
    ]);
    // A summary is one of the last interval, in which nothing came.
    const summary = (await t.ask("/stats/prometheus?histogram_buckets=summary")).body;
    expect(summary).toContain('envoy_cluster_t{envoy_cluster_name="a",quantile="0.999"} nan\n');
    expect(summary).toContain('envoy_cluster_t_count{envoy_cluster_name="a"} 0\n');
    expect(await t.ask("/stats/prometheus?histogram_buckets=detailed")).toMatchObject({
      status: 400,
      body: "unsupported prometheus histogram bucket mode",
    });
  });

  it("takes tags and bounds of the config", async () => {
    const stats_config = {
      stats_tags: [
        { tag_name: "my_tag", regex: "^http\\.((.*?)\\.)downstream_rq_t" },
        { tag_name: "fixed", fixed_value: "fx" },
      ],
      histogram_bucket_settings: [
        { match: { suffix: "rq_time" }, buckets: [1, 5.5, 1000] },
        { match: { prefix: "http." }, buckets: [7] },
      ],
    };
    const time = { unit: "ms", count: 1, sum: 2, interval: null, buckets: [[2.1, 1]] as const };
    const t = start({
      bootstrap: { stats_config },
      stats: {
        counters: [["http.main.downstream_rq_2xx", 4]],
        histograms: [
          { ...time, name: "http.main.downstream_rq_time" },
          { ...time, name: "http.main.other" },
        ],
      },
    });
    const body = (await t.ask("/stats/prometheus")).body;
    const labels = 'fixed="fx",envoy_http_conn_manager_prefix="main"';
    expect(body).toContain(
      `envoy_http_downstream_rq_xx{envoy_response_code_class="2",${labels}} 4\n`,
    );
    const time_ = "envoy_http_downstream_rq_time_bucket";
    expect(body).toContain(
      `${time_}{${labels},my_tag="main",le="1"} 0\n` +
        `${time_}{${labels},my_tag="main",le="5.5"} 1\n` +
        `${time_}{${labels},my_tag="main",le="1000"} 1\n`,
    );
    expect((await t.ask("/stats?filter=other&histogram_buckets=cumulative")).body).toBe(
      "http.main.other: B7(0,1)\n",
    );
  });

  it("leaves default tags out when the config says so", async () => {
    const stats_config = { use_all_default_tags: false };
    const counters = [["cluster.up.upstream_rq_200", 1]] as const;
    const t = start({ bootstrap: { stats_config }, stats: { counters } });
    expect((await t.ask("/stats/prometheus")).body).toContain(
      "envoy_cluster_up_upstream_rq_200{} 1\n",
    );
  });
});

describe("/clusters and /listeners", () => {
  const world = {
    clusters: { clusters: [cluster("up", [10100]), cluster("empty")] },
    stats: {
      counters: [["@host|up|127.0.0.1:10100|cx_total", 15]] as const,
      gauges: [["@host|up|127.0.0.1:10100|cx_active", 1]] as const,
    },
  };

  it("prints the figures of hosts", async () => {
    const { body } = await start(world).ask("/clusters");
    expect(body).toContain(
      "up::127.0.0.1:10100::cx_active::1\nup::127.0.0.1:10100::cx_connect_fail::0\n",
    );
    expect(body).toContain("up::127.0.0.1:10100::cx_total::15\n");
    expect(body).toContain("empty::observability_name::empty\n");
  });

  it("picks clusters by name", async () => {
    const { body } = await start(world).ask("/clusters?filter=^em&format=json");
    expect(JSON.parse(body).cluster_statuses.map((c: { name: string }) => c.name)).toEqual([
      "empty",
    ]);
  });

  it("tells why a host is not healthy", async () => {
    const sick = cluster("sick", [1]);
    const host = {
      ...sick.hosts[0]!,
      healthFlags: "/failed_active_hc",
      healthStatus: "DRAINING",
      priority: 1,
    };
    const t = start({ clusters: { clusters: [{ ...sick, hosts: [host] }] } });
    const { body } = await t.ask("/clusters?format=json");
    expect(JSON.parse(body).cluster_statuses[0].host_statuses[0]).toMatchObject({
      health_status: { failed_active_health_check: true, eds_health_status: "DRAINING" },
      priority: 1,
    });
  });

  it("lists listeners", async () => {
    const t = start();
    expect((await t.ask("/listeners")).body).toBe(
      "main::127.0.0.1:10000\ntwo::[::1]:1\ntwo::/run/two\n",
    );
    expect(JSON.parse((await t.ask("/listeners?format=json")).body).listener_statuses[1]).toEqual({
      name: "two",
      local_address: { socket_address: { address: "::1", port_value: 1 } },
      additional_local_addresses: [{ pipe: { path: "/run/two" } }],
    });
  });
});

describe("/config_dump", () => {
  const bootstrap = {
    node: { id: "n1", cluster: "c1" },
    static_resources: {
      listeners: [
        {
          name: "main",
          filter_chains: [{ filters: [{ typed_config: { route_config: { name: "r1" } } }] }],
        },
      ],
      clusters: [
        { name: "dead", transport_socket: { private_key: { inline_string: "secret" }, sni: "x" } },
        { name: "up" },
      ],
    },
  };
  const ask = async (path: string) => {
    const world = { bootstrap, clusters: { clusters: [cluster("up", [1, 2])] } };
    const { status, body } = await start(world).ask(path);
    return { status, body, configs: status === 200 ? JSON.parse(body).configs : [] };
  };

  it("dumps bootstrap, clusters, listeners and routes", async () => {
    const { configs } = await ask("/config_dump");
    expect(configs.map((c: { "@type": string }) => c["@type"].split(".").at(-1))).toEqual([
      "BootstrapConfigDump",
      "ClustersConfigDump",
      "ListenersConfigDump",
      "ScopedRoutesConfigDump",
      "RoutesConfigDump",
      "SecretsConfigDump",
    ]);
    expect(configs[4].static_route_configs[0].route_config).toEqual({
      "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
      name: "r1",
    });
  });

  it("shows no secret", async () => {
    const { body } = await ask("/config_dump");
    expect(body).not.toContain('"secret"');
    expect(body.match(/"\[redacted\]"/g)).toHaveLength(2);
    expect(body).toContain('"sni": "x"');
  });

  it("flattens a resource and picks by name", async () => {
    const { configs } = await ask("/config_dump?resource=static_clusters&name_regex=^up");
    expect(configs).toEqual([
      {
        "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster",
        cluster: { "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", name: "up" },
        last_updated: "2026-11-20T09:30:50.219Z",
      },
    ]);
  });

  it("keeps what a mask names", async () => {
    expect((await ask("/config_dump?mask=bootstrap.node.id")).configs).toEqual([
      {
        "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
        bootstrap: { node: { id: "n1" } },
      },
    ]);
    expect(
      (await ask("/config_dump?resource=static_listeners&mask=last_updated")).configs[0],
    ).toEqual({
      "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump.StaticListener",
      last_updated: "2026-11-20T09:30:50.219Z",
    });
  });

  it("adds endpoints when asked to", async () => {
    const { configs } = await ask("/config_dump?include_eds");
    const { endpoint_config } = configs[2].static_endpoint_configs[0];
    expect(endpoint_config.cluster_name).toBe("up");
    expect(endpoint_config.endpoints[0].lb_endpoints).toHaveLength(2);
  });

  it("says what it cannot dump", async () => {
    expect(await ask("/config_dump?resource=foo")).toMatchObject({
      status: 404,
      body: "foo not found in config dump",
    });
    expect((await ask("/config_dump?resource=bootstrap")).status).toBe(400);
    expect((await ask("/config_dump?resource=static_endpoint_configs")).status).toBe(404);
    expect(await ask("/config_dump?mask=nothing")).toMatchObject({
      status: 400,
      body: "FieldMask nothing could not be successfully applied to any configs.",
    });
    expect((await ask("/config_dump?resource=static_clusters&mask=nothing")).status).toBe(400);
    expect(await ask("/config_dump?resource=dynamic_listeners")).toMatchObject({
      status: 200,
      body: "{}\n",
    });
    expect((await ask("/config_dump?mask=a..b")).status).toBe(400);
    expect((await ask("/config_dump?mask=static_clusters.cluster")).status).toBe(400);
  });
});

describe("/filters", () => {
  const good: PackageSnapshot = {
    package: "http/router",
    kind: "http",
    name: "envoy.filters.http.router",
    origin: "shipped",
    group: "builtin",
    generation: 1,
    state: "active",
    builtAt: "2026-11-20T09:30:50.219Z",
    uses: 1,
  };
  const bad: PackageSnapshot = {
    ...good,
    package: "http/mine",
    name: "mine",
    origin: "dropped-in",
    group: "mine",
    generation: 4,
    state: "failed",
    uses: 2,
    error: {
      message: "unexpected }",
      file: "mine/filter.ts",
      line: 3,
      column: 22,
      frame: "3 | }\n    ^",
    },
  };

  it("prints each package, and the error of its last save", async () => {
    const { body } = await start({ packages: [good, bad] }).ask("/filters");
    expect(body).toBe(
      "http/mine    mine                       failed  generation 4, 2 uses, dropped-in, group mine\n" +
        "    mine/filter.ts:3:22: unexpected }\n" +
        "    3 | }\n" +
        "        ^\n" +
        "http/router  envoy.filters.http.router  active  generation 1, 1 use, shipped, group builtin\n",
    );
  });

  it("tells machines the same", async () => {
    const { body } = await start({ packages: [good, bad] }).ask("/filters?format=json&filter=mine");
    expect(JSON.parse(body).filters).toEqual([
      {
        package: "http/mine",
        kind: "http",
        name: "mine",
        origin: "dropped-in",
        group: "mine",
        generation: 4,
        state: "failed",
        uses: 2,
        built_at: good.builtAt,
        error: bad.error,
      },
    ]);
  });
});

describe("beside a recording of Envoy 1.40", () => {
  const recording = new URL("../../../../shared/corpus/observed-1.40/admin.json", import.meta.url);
  const exists = existsSync(recording);
  const why = exists ? "" : " (skipped: the recording is not on this machine)";
  const recorded = (request: string): string => {
    const { cases } = JSON.parse(readFileSync(recording, "utf8"));
    const { response } = cases.find((c: { request: string }) => c.request === request);
    // The recorder cuts long answers and adds a newline to each.
    return response.slice(response.indexOf("\n\n") + 2).replace(/\n$/, "");
  };

  it.skipIf(!exists)(`has the lines of /clusters${why}`, async () => {
    const world = { clusters: { clusters: [cluster("up", [10100])] } };
    const lines = (await start(world).ask("/clusters")).body.split("\n");
    const keys = (text: string[]) =>
      text.filter((line) => line !== "").map((line) => line.replace(/::[^:]*$/, ""));
    expect(keys(lines)).toEqual(
      keys(
        recorded("GET /clusters")
          .split("\n")
          .filter((line) => line.startsWith("up::")),
      ),
    );
  });

  it.skipIf(!exists)(`has the JSON of /clusters${why}`, async () => {
    const counters = [
      ["@host|garb|127.0.0.1:10102|cx_total", 1],
      ["@host|garb|127.0.0.1:10102|rq_error", 1],
      ["@host|garb|127.0.0.1:10102|rq_total", 1],
    ] as const;
    const world = { clusters: { clusters: [cluster("garb", [10102])] }, stats: { counters } };
    const text = recorded("GET /clusters?format=json");
    const first = `${text.slice(0, text.indexOf('\n  },\n  {\n   "name": "echo"'))}\n  }\n ]\n}\n`;
    const { body } = await start(world).ask("/clusters?format=json");
    expect(JSON.parse(body)).toEqual(JSON.parse(first));
  });

  it.skipIf(!exists)(`has the keys of /server_info${why}`, async () => {
    const text = recorded("GET /server_info");
    const head = JSON.parse(`${text.slice(0, text.indexOf(',\n "node"'))}\n}`);
    const ours = JSON.parse((await start().ask("/server_info")).body);
    expect(Object.keys(ours)).toEqual([...Object.keys(head), "node", "hot_restart_initializing"]);
    expect(Object.keys(ours.command_line_options)).toEqual(Object.keys(head.command_line_options));
    expect(ours).toMatchObject({ state: "LIVE", uptime_current_epoch: "35s" });
    expect(ours.node).toMatchObject({
      id: "n1",
      cluster: "c1",
      locality: { region: "r", zone: "", sub_zone: "" },
    });
  });

  it.skipIf(!exists)(`prints /listeners to the byte${why}`, async () => {
    const t = start();
    const [main] = recorded("GET /listeners").split("\n");
    expect(main).toBe("main::127.0.0.1:10000");
    expect((await t.ask("/listeners")).body).toContain(`${main}\n`);
    const json = recorded("GET /listeners?format=json");
    const one = (await t.ask("/listeners?format=json")).body;
    const entry = json.slice(0, json.indexOf('\n  },\n  {\n   "name": "edge"'));
    expect(one.startsWith(entry)).toBe(true);
  });

  it.skipIf(!exists)(
    `prints the stats that were recorded, as text and JSON, to the byte${why}`,
    async () => {
      const lines = recorded("GET /stats?filter=http.ing").split("\n");
      const scalars = lines
        .map((line) => /^(\S+): (\d+)$/.exec(line))
        .filter((match) => match !== null);
      const counters = scalars.map((match) => [match[1]!, Number(match[2])] as const);
      const { body } = await start({ stats: { counters: [...counters].reverse() } }).ask(
        "/stats?filter=http.ing",
      );
      expect(body).toBe(scalars.map((match) => `${match[0]}\n`).join(""));
      const json = recorded("GET /stats?format=json&filter=cluster.up.upstream_rq");
      const values = JSON.parse(json).stats.flatMap((s: { name?: string; value: number }) =>
        s.name === undefined ? [] : [[s.name, s.value]],
      );
      const ours = (await start({ stats: { counters: values } }).ask("/stats?format=json")).body;
      expect(ours).toBe(`${json.slice(0, json.indexOf(',{"histograms"'))}]}`);
    },
  );

  it.skipIf(!exists)(`prints the Prometheus lines that were recorded${why}`, async () => {
    const names = recorded("GET /stats?filter=^cluster.up\\.").split("\n");
    const counters = names
      .map((line) => /^(cluster\.up\.\S+): (\d+)$/.exec(line))
      .filter((match) => match !== null)
      .map((match) => [match[1]!, Number(match[2])] as const);
    const ours = new Set(
      (await start({ stats: { counters } }).ask("/stats/prometheus")).body.split("\n"),
    );
    // The last line of a cut answer is none.
    const lines = recorded("GET /stats/prometheus?filter=cluster.up\\.|http.ing")
      .split("\n")
      .slice(0, -1);
    expect(lines.length).toBeGreaterThan(50);
    expect(lines.filter((line) => !ours.has(line))).toEqual([]);
  });

  it.skipIf(!exists)(`dumps a cluster as recorded${why}`, async () => {
    const text = recorded("GET /config_dump?resource=static_clusters&name_regex=^dead");
    const { "@type": _, ...dead } = JSON.parse(text).configs[0].cluster;
    const world = { bootstrap: { static_resources: { clusters: [dead, { name: "up" }] } } };
    const ours = (await start(world).ask("/config_dump?resource=static_clusters&name_regex=^dead"))
      .body;
    expect(ours).toBe(text);
  });

  it.skipIf(!exists)(
    `has the commands that Envoy has, and what is our own apart${why}`,
    async () => {
      const paths = (text: string) =>
        [...text.matchAll(/^ {2}(\/[a-z_/]*)/gm)].map((match) => match[1]!);
      const theirs = new Set(paths(recorded("GET /help")));
      const help = (await start().ask("/help")).body;
      expect(paths(help)).toEqual([...theirs]);
      expect(help).toContain("\n    /filters: ");
    },
  );
});
