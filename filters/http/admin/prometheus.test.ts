import { describe, expect, it } from "vitest";
import { cluster, start } from "./test-admin.ts";

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

  it("sorts by the names of stats, not of metrics", async () => {
    const counters = ["http1.y", "http.x"].map((name) => [name, 1] as const);
    const { body } = await start({ stats: { counters } }).ask("/stats/prometheus");
    expect(body.match(/# TYPE \S+/g)).toEqual(["# TYPE envoy_http_x", "# TYPE envoy_http1_y"]);
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
    // The harmonic means of 1 and 1.1, and of 12 and 13.
    const SUM = (2.2 / 2.1 + 312 / 25).toPrecision(32).replace(/0+$/, "");
    const t = start({ stats: { histograms: [{ ...histogram, buckets }] } });
    const lines = (await t.ask("/stats/prometheus")).body.split("\n");
    expect(lines[0]).toBe("# TYPE envoy_cluster_t histogram");
    expect(lines).toContain('envoy_cluster_t_bucket{envoy_cluster_name="a",le="0.5"} 1');
    expect(lines).toContain('envoy_cluster_t_bucket{envoy_cluster_name="a",le="1"} 2');
    expect(lines).toContain('envoy_cluster_t_bucket{envoy_cluster_name="a",le="10"} 2');
    expect(lines).toContain('envoy_cluster_t_bucket{envoy_cluster_name="a",le="25"} 3');
    expect(lines.slice(-4)).toEqual([
      'envoy_cluster_t_bucket{envoy_cluster_name="a",le="+Inf"} 3',
      `envoy_cluster_t_sum{envoy_cluster_name="a"} ${SUM}`,
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

  it("sums samples to the last digit as Envoy does", async () => {
    const buckets = [
      [9.1, 2],
      [11, 1],
    ] as const;
    const sizes = { unit: "bytes", count: 3, sum: 28, interval: null, name: "cluster.a.t" };
    const t = start({ stats: { histograms: [{ ...sizes, buckets }] } });
    expect((await t.ask("/stats/prometheus")).body).toContain(
      'envoy_cluster_t_sum{envoy_cluster_name="a"} 28.57563799000263315974734723568\n',
    );
  });

  it("takes tags and bounds of the config", async () => {
    const stats_config = {
      stats_tags: [
        { tag_name: "my_tag", regex: "^http\\.((.*?)\\.)downstream_rq_t" },
        { tag_name: "fixed", fixed_value: "fx" },
        { tag_name: "kind", regex: "(other)$" },
        { tag_name: "ahead", regex: "^listener(?=\\.).*_((cx))_" },
      ],
      histogram_bucket_settings: [
        { match: { suffix: "rq_time" }, buckets: [1, 5.5, 1000] },
        { match: { suffix: "other" }, bins: 20 },
        { match: { prefix: "http." }, buckets: [7] },
      ],
    };
    const time = { unit: "ms", count: 1, sum: 2, interval: null, buckets: [[2.1, 1]] as const };
    const t = start({
      bootstrap: { stats_config },
      stats: {
        counters: [
          ["http.main.downstream_rq_2xx", 4],
          ["listener.127.0.0.1_80.worker_0.downstream_cx_total", 5],
        ],
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
    expect(body).toContain(
      `envoy_http__count{fixed="fx",kind="other",envoy_http_conn_manager_prefix="main"} 1\n`,
    );
    const ofListener = 'fixed="fx",envoy_listener_address="127.0.0.1_80",ahead="cx"';
    expect(body).toContain(
      `envoy_listener_worker_downstream__total{envoy_worker_id="0",${ofListener}} 5\n`,
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

  it("has the stats of single hosts from the start, where a cluster asks for them", async () => {
    const t = start({
      clusters: { clusters: [{ ...cluster("up", [80]), perEndpointStats: true }] },
    });
    const { body } = await t.ask("/stats?usedonly&filter=rq_timeout");
    expect(body).toBe("cluster.up.endpoint.127.0.0.1_80.rq_timeout: 0\n");
    const of = (port: number) => {
      const names = "cx_connect_fail cx_total rq_error rq_success rq_timeout rq_total".split(" ");
      const gauges = ["cx_active", "rq_active", "rq_pending_active"];
      const lines = [...names, ...gauges].map((name) => `${name}: 0\n`);
      return [...lines, "healthy: 1\n"].map((l) => `cluster.up.endpoint.127.0.0.1_${port}.${l}`);
    };
    // Host by host after all others.
    const two = start({
      clusters: { clusters: [{ ...cluster("up", [81, 80]), perEndpointStats: true }] },
      stats: { counters: [["z", 1]], gauges: [["y", 2]] },
    });
    const all = (await two.ask("/stats?filter=^[yzc]")).body;
    expect(all).toBe(["y: 2\n", "z: 1\n", ...of(81), ...of(80)].join(""));
    expect((await two.ask("/stats/prometheus?filter=cx_total")).body).toContain(
      'envoy_endpoint_address="127.0.0.1:80"',
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
