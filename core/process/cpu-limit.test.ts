import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { limitCpu, ownCpuMs, watchWaiting } from "./cpu-limit.ts";

beforeEach(() => void vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] }));
afterEach(() => void vi.useRealTimers());

/** Lets threads use `share` of a CPU until the limit is reached. Answers after how many eighths of it that was. */
function eighths(share: number): number {
  const limitMs = 8_000;
  let seconds = 0;
  let isLate = false;
  limitCpu(
    limitMs,
    () => seconds * share * 1_000,
    () => {
      isLate = true;
    },
  );
  while (!isLate) {
    seconds++;
    vi.advanceTimersByTime(1_000);
  }
  return seconds;
}

test("code that has a CPU for itself is late when the limit is over, whatever other threads use", () => {
  expect(eighths(1)).toBe(8);
  expect(eighths(8)).toBe(8);
});

test("code that waits for a CPU has so much more time, and eight times as much if it never gets one", () => {
  expect(eighths(0.25)).toBe(32);
  expect(eighths(0)).toBe(64);
});

test("what has ended is never late", () => {
  let isLate = false;
  limitCpu(
    100,
    () => 0,
    () => {
      isLate = true;
    },
  )();
  vi.advanceTimersByTime(10_000);
  expect(isLate).toBe(false);
});

test("the CPU time of this process grows while it works", () => {
  const before = ownCpuMs();
  const used = process.cpuUsage();
  while (process.cpuUsage(used).user < 50_000);
  expect(ownCpuMs() - before).toBeGreaterThanOrEqual(50);
});

test("a call that the clock has stopped has waited for a CPU, or has used it", () => {
  const stopped = new Error("Script execution timed out.");
  const hasWaited = watchWaiting();
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
  expect(hasWaited(stopped)).toBe(true);
  expect(hasWaited(new Error("no"))).toBe(false);
  const { cpuUsage } = process;
  try {
    // Two threads that are busy all the time.
    const used = () => 2_000 * performance.now();
    process.cpuUsage = Object.assign(() => ({ user: used(), system: 0 }), cpuUsage);
    const hasWorked = watchWaiting();
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
    expect(hasWorked(stopped)).toBe(false);
  } finally {
    process.cpuUsage = cpuUsage;
  }
});
