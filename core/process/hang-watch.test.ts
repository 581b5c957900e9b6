import { expect, test, vi } from "vitest";
import { HangWatch } from "./hang-watch.ts";

function watched(mainCpuMs?: () => number | undefined) {
  const seen: string[] = [];
  const watch = new HangWatch(
    {
      onSuspicion: (who, inside) => seen.push(`${who} in ${inside}`),
      onRelief: () => seen.push("relief"),
      onHang: (who) => seen.push(who),
    },
    mainCpuMs,
  );
  return { watch, seen };
}

test("a thread that turns is never silent, one that waits for its box is not yet", () => {
  const { watch, seen } = watched();
  for (let n = 0; n < 100; n++) watch.onBeat([{ name: "worker 0", turns: n, boxMs: 0 }]);
  expect(seen).toEqual([]);
  // 15 beats of 100 ms: a box of 1 s and 500 ms beyond it.
  for (let n = 0; n < 15; n++) watch.onBeat([{ name: "worker 1", turns: 1, boxMs: 1_000 }]);
  expect(seen).toEqual([]);
  for (let n = 0; n < 2; n++) watch.onBeat([{ name: "worker 1", turns: 1, boxMs: 1_000 }]);
  expect(seen).toEqual(["worker 1"]);
});

test("a thread that gets no CPU waits, and does not hang", () => {
  const { watch, seen } = watched();
  const beat = (cpuMs: number) =>
    watch.onBeat([{ name: "worker 0", turns: 1, cpuMs, boxMs: 1_000 }]);
  for (let n = 0; n < 100; n++) beat(50 + n);
  expect(seen).toEqual([]);
  for (let n = 0; n < 15; n++) beat(150 + n * 100);
  expect(seen).toEqual(["worker 0"]);
});

test("a beat of main ends the longer time that it has asked for", () => {
  vi.useFakeTimers();
  try {
    const { watch, seen } = watched();
    watch.start();
    watch.onBusy(60_000);
    vi.advanceTimersByTime(70_000);
    expect(seen).toEqual([]);
    watch.onBeat([]);
    vi.advanceTimersByTime(11_000);
    expect(seen).toEqual(["the main thread"]);
    watch.stop();
  } finally {
    vi.useRealTimers();
  }
});

test("the main thread may take as much longer as it gets less than a whole CPU", () => {
  vi.useFakeTimers();
  try {
    const { watch, seen } = watched(() => performance.now() / 4);
    watch.start();
    vi.advanceTimersByTime(30_000);
    expect(seen).toEqual([]);
    vi.advanceTimersByTime(20_000);
    expect(seen).toEqual(["the main thread"]);
    watch.stop();
  } finally {
    vi.useRealTimers();
  }
});

test("a thread inside a sandbox is suspect long before it hangs, until it turns again", () => {
  const { watch, seen } = watched();
  const beat = (turns: number, inside?: string) =>
    watch.onBeat([{ name: "worker 0", turns, boxMs: 1_000, inside }]);
  for (let n = 0; n < 6; n++) beat(1);
  expect(seen).toEqual([]);
  beat(2);
  for (let n = 0; n < 3; n++) beat(2, "http/bad");
  expect(seen).toEqual([]);
  beat(2, "http/bad");
  expect(seen).toEqual(["worker 0 in http/bad"]);
  expect(watch.guilty).toBe("http/bad");
  beat(3);
  expect(seen).toEqual(["worker 0 in http/bad", "relief"]);
});

test("a suspect is waited for longer where other workers serve, since a standby is on its way", () => {
  const { watch, seen } = watched();
  let other = 0;
  const beat = () =>
    watch.onBeat([
      { name: "worker 0", turns: 1, boxMs: 1_000, inside: "http/bad" },
      { name: "worker 1", turns: other++, boxMs: 1_000 },
    ]);
  for (let n = 0; n < 60; n++) beat();
  expect(seen).toEqual(["worker 0 in http/bad"]);
  for (let n = 0; n < 10; n++) beat();
  expect(seen).toContain("worker 0");
});

test("a thread that sleeps inside a sandbox gets no CPU, and hangs all the same", () => {
  const { watch, seen } = watched();
  const beat = (isAsleep: boolean) =>
    watch.onBeat([
      { name: "worker 0", turns: 1, cpuMs: 50, boxMs: 1_000, inside: "http/bad", isAsleep },
    ]);
  for (let n = 0; n < 3; n++) beat(n !== 1);
  expect(seen).toEqual([]);
  beat(true);
  expect(seen).toEqual(["worker 0 in http/bad"]);
  for (let n = 0; n < 14; n++) beat(true);
  expect(seen).toEqual(["worker 0 in http/bad", "worker 0"]);
});
