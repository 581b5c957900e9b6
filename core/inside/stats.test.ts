import { expect, it } from "vitest";
import { StatsReader } from "../admin/stats.ts";
import { ScopedStats, StatsTable } from "./stats.ts";

const CELLS = 4096;
const SET = { counters: ["listed"], gauges: [], histograms: [] } as const;

/** Threads with their stats, and what core shows of them. */
function threads(n: number) {
  const reader = new StatsReader();
  const all = Array.from({ length: n }, () => {
    const memory = new SharedArrayBuffer(CELLS * 8);
    const table = new StatsTable(new Float64Array(memory), () => {
      throw new Error("full");
    });
    const tell = (): void => {
      const { defined } = table;
      table.defined = [];
      const listed = table.takeListed();
      reader.takeBack(memory, table.takeReturned());
      reader.list(listed);
      reader.define(memory, defined);
    };
    return { memory, table, tell };
  });
  const names = () => {
    const { counters, gauges, histograms } = reader.snapshot();
    return [...counters, ...gauges].map(([name]) => name).concat(histograms.map((h) => h.name));
  };
  return { reader, all, names };
}

it("gives the cells of lent stats back with their last holder, and to others after that", () => {
  const { reader, all, names } = threads(1);
  const { table, tell } = all[0]!;
  for (let k = 0; k < 2_000; k++) {
    const lent = table.lend("a");
    const stats = new ScopedStats(table, `cluster.${k}.`, lent);
    stats.counter("requests").add(k);
    stats.gauge("active").set(3);
    stats.histogram("ms").record(k);
    stats.list(SET);
    table.lend("a");
    table.takeBack(lent);
    tell();
    expect(reader.value(`cluster.${k}.requests`)).toBe(k);
    expect(reader.value(`cluster.${k}.active`)).toBe(3);
    expect(names()).toHaveLength(4);
    table.takeBack(lent);
    tell();
  }
  expect(names()).toEqual([]);
});

it("keeps late writers out of the cells of the next", () => {
  const { reader, all, names } = threads(1);
  const { table, tell } = all[0]!;
  const lent = table.lend("a");
  const stats = new ScopedStats(table, "a.", lent);
  const [counter, histogram] = [stats.counter("n"), stats.histogram("h")];
  histogram.record(1);
  table.takeBack(lent);
  const next = new ScopedStats(table, "b.");
  next.counter("n");
  next.histogram("h").record(5);
  counter.add(7);
  histogram.record(7);
  stats.counter("late").inc();
  stats.gauge("late").inc();
  stats.histogram("late").record(1);
  tell();
  expect([names().sort(), reader.value("b.n") + 0]).toEqual([["b.h", "b.n"], 0]);
  reader.flush();
  expect(reader.snapshot().histograms[0]).toMatchObject({ name: "b.h", count: 1, sum: 5 });
});

it("keeps names that others use as well", () => {
  const { all, names } = threads(1);
  const { table, tell } = all[0]!;
  const [a, b] = [table.lend("a"), table.lend("b")];
  new ScopedStats(table, "").counter("before");
  for (const lent of [a, b]) {
    const stats = new ScopedStats(table, "", lent);
    for (const name of ["before", "both", "after"]) stats.counter(name);
  }
  new ScopedStats(table, "").counter("after");
  table.takeBack(a);
  tell();
  expect(names()).toEqual(["before", "both", "after"]);
  table.takeBack(b);
  tell();
  expect(names()).toEqual(["before", "after"]);
});

it("shows a name until all threads have given it back that are still there", () => {
  const { reader, all, names } = threads(3);
  const lent = all.map(({ table }) => table.lend("a"));
  for (const [k, { table, tell }] of all.entries()) {
    const stats = new ScopedStats(table, "c.", lent[k]);
    stats.counter("n").inc();
    stats.list(SET);
    tell();
  }
  reader.forget(all[0]!.memory);
  all[1]!.table.takeBack(lent[1]!);
  all[1]!.tell();
  expect([reader.value("c.n"), names()]).toEqual([2, ["c.n"]]);
  all[2]!.table.takeBack(lent[2]!);
  all[2]!.tell();
  expect(names()).toEqual([]);
});
