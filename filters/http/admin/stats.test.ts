import { describe, expect, it } from "vitest";
import { start } from "./test-admin.ts";

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

  it("refuses another word for hidden", async () => {
    const t = start(world);
    expect((await t.ask("/stats?hidden=exclude")).status).toBe(200);
    expect(await t.ask("/stats?hidden=bad")).toMatchObject({
      status: 400,
      body: "usage: /stats?hidden=(include|only|exclude)\n\n",
    });
  });

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

  it("prints a page that escapes what names hold", async () => {
    const { body, headers } = await start({ stats: { counters: [["a<b", 1]] } }).ask(
      "/stats?format=html",
    );
    expect(headers["content-type"]).toContain("text/html");
    expect(body).toContain("a&lt;b: 1\n");
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
});
