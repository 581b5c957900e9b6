import { afterEach, expect, test, vi } from "vitest";
import { FakeWorker } from "./fake-worker.ts";

const worker = new FakeWorker();
afterEach(() => {
  worker.dispose();
  vi.restoreAllMocks();
});

test("a setup that waits for a CPU is taken, though it takes longer than 5 s", async () => {
  // This process never gets a CPU.
  vi.spyOn(process, "cpuUsage").mockReturnValue({ user: 0, system: 0 });
  const sandbox = await worker.sandbox(`
    import { defineHttpFilter, Type } from "@tsproxy/sdk";
    export default defineHttpFilter({ name: "test", config: Type.Object({}), setup() {
      while (Date.now() < ${Date.now() + 6_000});
      return () => ({});
    } });`);
  expect(worker.faults).toEqual([]);
  sandbox.dispose();
});
