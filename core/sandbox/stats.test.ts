import { expect, test } from "vitest";
import { SandboxStats } from "./stats.ts";

test("takes from a sandbox's cells what a counter can count, and any change of a gauge", () => {
  const cells = new Float64Array(2);
  const owners: string[] = [];
  const sink = {
    cells,
    define: (kind: string, _name: string, _unit: string, owner: string) => {
      owners.push(owner);
      return kind === "counter" ? 0 : 1;
    },
  };
  const memory = new SharedArrayBuffer(16 * 1024);
  const own = new Float64Array(memory);
  const stats = new SandboxStats(sink, memory, "http/x");
  stats.define({ kind: "counter", name: "c", unit: "", cell: 0 });
  stats.define({ kind: "gauge", name: "g", unit: "", cell: 1 });
  for (const value of [7, -100, Number.NaN, -95]) {
    own[0] = own[1] = value;
    stats.merge();
  }
  expect([...cells, ...owners]).toEqual([12, -95, "http/x", "http/x"]);
  stats.end();
  expect([...cells]).toEqual([12, 0]);
});
