import { expect, test } from "vitest";
import { BEAT } from "../protocol.ts";
import { isAsleep, sampleCpu, signThread, silence } from "./thread-cpu.ts";

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
