import { expect, it } from "vitest";
import { CheckTimeout } from "./check-timeout.ts";

/** A time-out of 100 ms whose timer fires as late as is said: how much time it took. */
function timeout(lateMs: readonly number[]): number {
  let now = 0;
  let due = 0;
  let fire = (): void => {};
  let isOver = false;
  const cx = {
    now: () => now,
    timer: (onFired: () => void) => {
      fire = onFired;
      return { armed: true, arm: (ms: number) => void (due = now + ms), cancel: () => {} };
    },
  };
  const made = new CheckTimeout(cx, () => {
    isOver = true;
  });
  made.arm(100);
  for (let k = 0; !isOver; k++) {
    now = due + (lateMs[k] ?? 0);
    fire();
  }
  return now;
}

it("takes its time, also by a clock that is a little late", () => {
  expect(timeout([])).toBe(100);
  expect(timeout([15, 15, 15])).toBe(105);
});

it("does not count time in which the thread stood still", () => {
  expect(timeout([0, 500, 200])).toBe(800);
});
