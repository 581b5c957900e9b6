import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect, it, vi } from "vitest";
import { Profiler } from "./profiler.ts";

const file = path.join(os.tmpdir(), `profiler-test-${process.pid}.cpuprofile`);

function start(error?: string) {
  const told: (readonly [string, boolean])[] = [];
  const fleet = {
    profile: async (thread: string, enable: boolean) => {
      told.push([thread, enable]);
      return { profile: enable ? "" : "{}", error };
    },
  };
  return { told, profiler: new Profiler(() => fleet) };
}

const CPU = { kind: "cpu" } as const;
const HEAP = { kind: "heap" } as const;

it("profiles one thread at a time and writes what came of it", async () => {
  const { told, profiler } = start();
  expect(await profiler.start("worker 0", file, CPU)).toEqual({});
  expect((await profiler.start("worker 1", file, CPU)).error).toMatch(/one runs already/);
  expect(await profiler.stop(file)).toEqual({ file });
  expect(fs.readFileSync(file, "utf8")).toBe("{}");
  fs.rmSync(file);
  expect(await profiler.stop(file)).toEqual({});
  expect(told).toEqual([
    ["worker 0", true],
    ["worker 0", false],
  ]);
});

it("says why it cannot", async () => {
  const { profiler } = start('there is no thread "x"');
  expect((await profiler.start("x", file, CPU)).error).toBe(
    'failure to start the profiler: there is no thread "x"',
  );
  expect(await profiler.stop(file)).toEqual({});
});

it("says so when the file cannot be written", async () => {
  const { profiler } = start();
  await profiler.start("worker 0", undefined, CPU);
  expect((await profiler.stop("/nowhere/at/all.cpuprofile")).error).toMatch(/ENOENT/);
});

it("each command ends its own profile only", async () => {
  const { told, profiler } = start();
  expect(await profiler.stopAllocations()).toEqual({ error: "Allocation profiler is not started" });
  expect(await profiler.startAllocations("worker 0", HEAP)).toEqual({});
  expect(await profiler.startAllocations("worker 0", HEAP)).toEqual({
    error: "Allocation profiler has already started",
  });
  expect((await profiler.start("worker 0", file, CPU)).error).toMatch(/one runs already/);
  expect(await profiler.stop(file)).toEqual({});
  expect(await profiler.stopAllocations()).toEqual({ profile: "{}" });
  expect(told).toEqual([
    ["worker 0", true],
    ["worker 0", false],
  ]);
});

it("ends a profile of allocations after a minute, and keeps it until it is fetched", async () => {
  vi.useFakeTimers();
  try {
    const { told, profiler } = start();
    await profiler.startAllocations("worker 0", HEAP);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(told).toHaveLength(2);
    expect(await profiler.stopAllocations()).toEqual({ profile: "{}" });
    expect(told).toHaveLength(2);
    expect(await profiler.stopAllocations()).toHaveProperty("error");
  } finally {
    vi.useRealTimers();
  }
});
