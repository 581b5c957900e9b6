import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { limitCpu, ownCpuMs, watchWaiting } from "./cpu-limit.ts";

beforeEach(() => void vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] }));
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

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

/** So long after, `watchWaiting` tells this, if the process has so many CPUs for itself. */
function patienceWith(cpus: number): number | undefined {
  const began = performance.now();
  const user = () => 1_000 * cpus * (performance.now() - began);
  vi.spyOn(process, "cpuUsage").mockImplementation(() => ({ user: user(), system: 0 }));
  const waited = watchWaiting();
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
  return waited();
}

test("a process that waits for a CPU needs as much longer as it gets less, eight times as long if it never gets one", () => {
  expect(patienceWith(1)).toBeUndefined();
  expect(patienceWith(8)).toBeUndefined();
  // A little more, rounded up.
  expect(patienceWith(0.28)).toBe(4);
  expect(patienceWith(0)).toBe(8);
});
