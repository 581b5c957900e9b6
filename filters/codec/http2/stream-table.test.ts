import { expect, it } from "vitest";
import type { Stream } from "./stream.ts";
import { StreamTable } from "./stream-table.ts";

const stream = (id: number): Stream => ({ id }) as unknown as Stream;

it("finds, lists and forgets streams as a Map does, whatever the order", () => {
  const table = new StreamTable();
  const map = new Map<number, Stream>();
  let chance = 1;
  const next = (below: number): number => {
    chance = (Math.imul(chance, 1103515245) + 12345) >>> 0;
    return (chance >>> 8) % below;
  };
  let wrong = 0;
  for (let id = 1, step = 0; step < 20_000; step++) {
    // Grows to hundreds, and shrinks again to none.
    if (next(100) < (step < 10_000 ? 53 : 40)) {
      const one = stream(id);
      id += 2 + 2 * next(3);
      table.add(one);
      map.set(one.id, one);
    } else {
      const gone = [...map.keys()][next(map.size + 1)] ?? id + 2;
      table.delete(gone);
      map.delete(gone);
    }
    const asked = 1 + 2 * next(id);
    if (table.get(asked) !== map.get(asked) || table.size !== map.size) wrong++;
    if (step % 500 === 0) expect(table.all()).toEqual([...map.values()]);
  }
  expect(wrong).toBe(0);
});

it("is empty after clear", () => {
  const table = new StreamTable();
  for (let id = 1; id < 100; id += 2) table.add(stream(id));
  table.clear();
  expect([table.size, table.all(), table.get(1)]).toEqual([0, [], undefined]);
  table.add(stream(1));
  expect(table.get(1)?.id).toBe(1);
});
