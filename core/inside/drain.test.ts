import { expect, it } from "vitest";
import { DrainWindow } from "./drain.ts";

const RESPONSES = 4_000;

/** Share of responses that close their connection when so much of the drain time has passed. */
function closing(passed: number, immediate = false): number {
  let now = 1_000;
  const drain = new DrainWindow({ ms: 600_000, immediate }, () => now);
  now += passed * 600_000;
  let closed = 0;
  for (let n = 0; n < RESPONSES; n++) if (drain.closes()) closed++;
  return closed / RESPONSES;
}

it("closes the likelier the longer it lasts, and always from half of the time on", () => {
  expect(closing(0)).toBe(0);
  expect(closing(0.125)).toBeGreaterThan(0.2);
  expect(closing(0.125)).toBeLessThan(0.3);
  expect(closing(0.5)).toBe(1);
  expect(closing(2)).toBe(1);
});

it("has connections leave by themselves in the last third, so early that they are gone at its end", () => {
  let now = 5_000;
  const drain = new DrainWindow({ ms: 30_000, immediate: false }, () => now);
  now += 2_000;
  for (let n = 0; n < RESPONSES; n++) {
    const at = 2_000 + drain.leavesIn(5_000)!;
    expect(at >= 20_000 && at < 25_000).toBe(true);
  }
  expect(drain.leavesIn(10_000)).toBeUndefined();
  // One that comes that late is asked by its first response.
  now += 18_000;
  expect(drain.leavesIn(5_000)).toBeUndefined();
});

it("closes at once when asked to, or when there is no time", () => {
  expect(closing(0, true)).toBe(1);
  // The connections themselves still wait for their next response.
  expect(new DrainWindow({ ms: 600_000, immediate: true }, () => 0).immediate).toBe(false);
  const drain = new DrainWindow({ ms: 0, immediate: false }, () => 0);
  expect([drain.immediate, drain.closes()]).toEqual([true, true]);
});
