import { expect, test } from "vitest";
import { RebuildWait } from "./rebuild-wait.ts";

test("the same code waits longer with each loss, and not at all once it has held for a while", () => {
  const wait = new RebuildWait(60_000);
  const waits = [0, 1, 2, 3, 4].map((at) => wait.afterLoss(at, false));
  expect(waits).toEqual([0, 250, 1000, 5000, 5000]);
  expect(wait.afterLoss(100_000, false)).toBe(0);
});

test("other code is built at once, however often an isolate was lost before", () => {
  const wait = new RebuildWait(60_000);
  for (let at = 0; at < 5; at++) wait.afterLoss(at, false);
  expect(wait.afterLoss(5, true)).toBe(0);
  expect(wait.afterLoss(6, false)).toBe(250);
});
