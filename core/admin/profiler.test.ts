import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect, it } from "vitest";
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

it("profiles one thread at a time and writes what came of it", async () => {
  const { told, profiler } = start();
  expect(await profiler.start("worker 0", file)).toEqual({});
  expect((await profiler.start("worker 1", file)).error).toMatch(/one runs already/);
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
  expect((await profiler.start("x", file)).error).toBe(
    'failure to start the profiler: there is no thread "x"',
  );
  expect(await profiler.stop(file)).toEqual({});
});

it("says so when the file cannot be written", async () => {
  const { profiler } = start();
  await profiler.start("worker 0", undefined);
  expect((await profiler.stop("/nowhere/at/all.cpuprofile")).error).toMatch(/ENOENT/);
});
