import { expect, test } from "vitest";
import { BEAT } from "../protocol.ts";
import { isAsleep, leastCpuMs, sampleCpu, signThread, silence } from "./thread-cpu.ts";

test("what a thread waited for a CPU counts an eighth", () => {
  expect(silence(250, 250)).toBe(250);
  expect(silence(250, 0)).toBe(100);
  expect(silence(250, 30)).toBe(130);
  expect(silence(2_000, 0)).toBe(250);
});

test("what was told up to 100 ms ago lets nobody loop for longer", () => {
  expect(silence(250, 151)).toBe(250);
});

test("the CPU of a thread can be read by its number", () => {
  const beat = new Int32Array(8);
  signThread(beat);
  expect(beat[BEAT.THREAD]).toBeGreaterThan(0);
  sampleCpu(beat);
  const before = beat[BEAT.CPU_MS]!;
  const used = process.cpuUsage();
  while (process.cpuUsage(used).user < 50_000);
  sampleCpu(beat);
  expect(beat[BEAT.CPU_MS]! - before).toBeGreaterThan(20);
});

test("of the threads that wanted a CPU all the time counts the one that had least", () => {
  const times = (all: Readonly<Record<string, readonly [cpuMs: number, waitedMs: number]>>) =>
    new Map(Object.entries(all).map(([id, [cpuMs, waitedMs]]) => [id, { cpuMs, waitedMs }]));
  const before = times({ main: [900, 0], worker: [5_000, 70], pool: [30, 10] });
  const now = { main: [910, 0], worker: [9_900, 150], pool: [1_030, 4_000] } as const;
  expect(leastCpuMs(before, times(now))).toBe(1_000);
  // One that has come since.
  expect(leastCpuMs(before, times({ ...now, young: [400, 4_590] }))).toBe(400);
  expect(leastCpuMs(before, times({ main: [905, 0] }))).toBe(5);
  expect(leastCpuMs(before, times({}))).toBeUndefined();
});

test("looks at a thread leave no buffers behind, as there are twenty a second", () => {
  const beat = new Int32Array(8);
  signThread(beat);
  const before = process.memoryUsage().arrayBuffers;
  for (let k = 0; k < 10; k++) {
    sampleCpu(beat);
    isAsleep(beat);
  }
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64 * 1024);
});

test("of a thread that has ended nothing is told", () => {
  const beat = new Int32Array(8);
  beat[BEAT.THREAD] = 2 ** 31 - 1;
  sampleCpu(beat);
  expect(beat[BEAT.CPU_MS]).toBe(0);
});
