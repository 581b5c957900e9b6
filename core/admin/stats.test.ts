import { expect, test } from "vitest";
import { ScopedStats, StatsTable } from "../inside/stats.ts";
import { StatsReader } from "./stats.ts";

function thread(reader: StatsReader) {
  const memory = new SharedArrayBuffer(8 * 10_000);
  const table = new StatsTable(new Float64Array(memory), () => {});
  return {
    memory,
    stats: new ScopedStats(table, ""),
    tell: () => {
      reader.list(table.takeListed());
      reader.define(memory, table.defined);
      table.defined = [];
    },
  };
}

test("cells of one name are summed over threads, and colons are folded", () => {
  const reader = new StatsReader();
  const [a, b] = [thread(reader), thread(reader)];
  a.stats.scope("listener.127.0.0.1:80.").counter("cx").add(3);
  b.stats.counter("listener.127.0.0.1_80.cx").inc();
  b.stats.gauge("active").set(7);
  a.tell();
  b.tell();
  const { counters, gauges } = reader.snapshot();
  expect(counters).toEqual([["listener.127.0.0.1_80.cx", 4, true]]);
  expect(gauges).toEqual([["active", 7, true]]);
});

test("reset makes counters begin at zero and leaves gauges", () => {
  const reader = new StatsReader();
  const a = thread(reader);
  const counter = a.stats.counter("n");
  a.stats.gauge("g").set(2);
  counter.add(5);
  a.tell();
  reader.resetCounters();
  counter.inc();
  expect(reader.snapshot().counters).toEqual([["n", 1, true]]);
  expect(reader.snapshot().gauges).toEqual([["g", 2, true]]);
});

test("the gauges of a thread that is gone are gone, its counts stay", () => {
  const reader = new StatsReader();
  const [a, b] = [thread(reader), thread(reader)];
  for (const t of [a, b]) {
    t.stats.counter("n").inc();
    t.stats.gauge("g").inc();
    t.tell();
  }
  reader.forget(a.memory);
  expect(reader.snapshot().counters).toEqual([["n", 2, true]]);
  expect(reader.snapshot().gauges).toEqual([["g", 1, true]]);
});

test("histogram buckets hold two significant digits", () => {
  const reader = new StatsReader();
  const a = thread(reader);
  const h = a.stats.histogram("ms", "ms");
  for (const v of [0, 0.4, 1, 5, 5.04, 99, 100, 12_345, 5e10]) h.record(v);
  a.tell();
  // Nothing shows before the interval has ended, as in Envoy.
  expect(reader.snapshot().histograms[0]).toMatchObject({ count: 0, interval: null });
  reader.flush();
  const [histogram] = reader.snapshot().histograms;
  expect(histogram!.count).toBe(9);
  const bounds = histogram!.buckets.map(([upper]) => upper);
  expect(bounds).toEqual([1, 1.1, 5.1, 100, 110, 13_000, 1e10]);
  expect(histogram!.buckets[2]![1]).toBe(2);
  expect(histogram!.interval!.count).toBe(9);
  reader.flush();
  expect(reader.snapshot().histograms[0]!.interval).toBeNull();
});

test("a full table still hands out cells, and says so once", () => {
  let full = 0;
  const table = new StatsTable(new Float64Array(1), () => full++);
  const stats = new ScopedStats(table, "");
  stats.counter("a").inc();
  stats.counter("b").inc();
  stats.histogram("c").record(5);
  expect(full).toBe(1);
  expect(table.defined.map((d) => d.name)).toEqual(["a", "c"]);
});

test("a 0 that was written is told apart from one that never was", () => {
  const reader = new StatsReader();
  const a = thread(reader);
  a.stats.counter("never");
  a.stats.counter("nothing").add(0);
  a.stats.gauge("set").set(0);
  a.stats.gauge("back").inc();
  a.stats.gauge("back").dec();
  a.tell();
  const { counters, gauges } = reader.snapshot();
  expect(counters).toEqual([
    ["never", 0, false],
    ["nothing", 0, true],
  ]);
  expect(gauges).toEqual([
    ["set", 0, true],
    ["back", 0, true],
  ]);
});

test("leaves out what the config excludes, and what comes later too", () => {
  const reader = new StatsReader();
  const a = thread(reader);
  a.stats.counter("a.x").inc();
  a.tell();
  reader.exclude((name) => name.startsWith("a."));
  a.stats.counter("a.y").inc();
  a.stats.counter("b").inc();
  a.tell();
  expect(reader.snapshot().counters).toEqual([["b", 1, true]]);
  reader.exclude(() => false);
  expect(reader.snapshot().counters.map(([name]) => name)).toEqual(["a.x", "a.y", "b"]);
});

test("keeps the names looked up last while somebody wants them", () => {
  const reader = new StatsReader();
  const a = thread(reader);
  expect(reader.recentLookups).toBeUndefined();
  reader.trackLookups(true);
  a.stats.counter("x");
  a.stats.counter("y");
  a.tell();
  expect(reader.recentLookups).toEqual([
    ["x", 1],
    ["y", 1],
  ]);
  reader.clearLookups();
  expect(reader.recentLookups).toEqual([]);
  reader.trackLookups(false);
  expect(reader.recentLookups).toBeUndefined();
});

test("listed names show at 0 until somebody counts there", () => {
  const reader = new StatsReader();
  const [a, b] = [thread(reader), thread(reader)];
  const set = {
    counters: ["total", "failed"],
    gauges: ["active"],
    histograms: [["ms", "ms"]],
  } as const;
  a.stats.scope("cluster.a:1.").list?.(set);
  a.stats.scope("cluster.b.").list?.(set);
  a.tell();
  expect(reader.snapshot().counters.map(([name]) => name)).toEqual([
    "cluster.a_1.total",
    "cluster.a_1.failed",
    "cluster.b.total",
    "cluster.b.failed",
  ]);
  expect(reader.snapshot().gauges).toContainEqual(["cluster.b.active", 0, false]);
  expect(reader.snapshot().histograms).toHaveLength(2);
  b.stats.scope("cluster.b.").counter("total").inc();
  b.tell();
  const { counters } = reader.snapshot();
  expect(counters).toHaveLength(4);
  expect(counters).toContainEqual(["cluster.b.total", 1, true]);
  expect(counters).toContainEqual(["cluster.b.failed", 0, false]);
});

test("a name of two lists shows once, and one that the config leaves out does not", () => {
  const reader = new StatsReader();
  const { stats, tell } = thread(reader);
  const scope = stats.scope("c.");
  scope.list?.({ counters: ["old", "both"], gauges: [], histograms: [] });
  scope.list?.({ counters: ["both", "new"], gauges: [], histograms: [] });
  tell();
  const names = () => reader.snapshot().counters.map(([name]) => name);
  expect(names()).toEqual(["c.old", "c.both", "c.new"]);
  reader.exclude((name) => name === "c.old");
  expect(names()).toEqual(["c.both", "c.new"]);
});

test("a counter never goes down, and what is not finite changes nothing", () => {
  const reader = new StatsReader();
  const a = thread(reader);
  const counter = a.stats.counter("n");
  const gauge = a.stats.gauge("g");
  const histogram = a.stats.histogram("h");
  for (const n of [3, -5, Number.NaN, Number.POSITIVE_INFINITY]) counter.add(n);
  for (const n of [3, -5, Number.NaN, Number.NEGATIVE_INFINITY]) gauge.add(n);
  gauge.set(Number.NaN);
  for (const n of [3, Number.NaN, Number.POSITIVE_INFINITY]) histogram.record(n);
  a.tell();
  reader.flush();
  const { counters, gauges, histograms } = reader.snapshot();
  expect([counters[0], gauges[0]]).toEqual([
    ["n", 3, true],
    ["g", -2, true],
  ]);
  expect(histograms[0]).toMatchObject({ count: 1, sum: 3 });
});

test("a package cannot count under a name of the proxy or of another package", () => {
  const reader = new StatsReader();
  const proxy = thread(reader);
  proxy.stats.counter("http.a.downstream_rq_total").add(2);
  proxy.stats
    .scope("cluster.b.")
    .list?.({ counters: ["upstream_rq_total"], gauges: [], histograms: [] });
  proxy.tell();
  const memory = new SharedArrayBuffer(80);
  const cells = new Float64Array(memory).fill(1e9);
  const define = (owner: string, cell: number, name: string) =>
    reader.defineOf(owner, memory, [{ kind: "counter", name, unit: "", cell }]);
  define("http/x", 0, "http.a.downstream_rq_total");
  define("http/x", 1, "cluster.b.upstream_rq_total");
  define("http/x", 2, "@cluster.b.host.1.2.3.4_80");
  define("http/x", 3, "x.n");
  define("http/y", 4, "x.n");
  define("http/y", 5, "x.n");
  expect(reader.snapshot().counters).toEqual([
    ["http.a.downstream_rq_total", 2, true],
    ["x.n", 1e9, true],
    ["cluster.b.upstream_rq_total", 0, false],
  ]);
  expect(reader.takeRefused()).toEqual([
    { owner: "http/x", name: "http.a.downstream_rq_total" },
    { owner: "http/x", name: "cluster.b.upstream_rq_total" },
    { owner: "http/x", name: "@cluster.b.host.1.2.3.4_80" },
    { owner: "http/y", name: "x.n" },
  ]);
  expect(reader.takeRefused()).toEqual([]);
  cells[3] = 7;
  expect(reader.value("x.n")).toBe(7);
});

test("the proxy takes a name from a package that has used it first", () => {
  const reader = new StatsReader();
  const memory = new SharedArrayBuffer(80);
  new Float64Array(memory).fill(1e9);
  for (const [cell, name] of ["a.canary", "b.later", ".b", "."].entries())
    reader.defineOf("http/x", memory, [{ kind: "counter", name, unit: "", cell }]);
  reader.resetCounters();
  const proxy = thread(reader);
  proxy.stats.counter("a.canary").inc();
  proxy.stats.scope("b.").list?.({ counters: ["later"], gauges: [], histograms: [] });
  proxy.tell();
  expect(reader.snapshot().counters).toEqual([
    [".b", 0, true],
    [".", 0, true],
    ["a.canary", 1, true],
    ["b.later", 0, false],
  ]);
  expect(reader.takeRefused().map(({ name }) => name)).toEqual(["b.later", "a.canary"]);
});
