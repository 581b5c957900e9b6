import os from "node:os";
import { Worker } from "node:worker_threads";
import { afterEach, expect, test } from "vitest";
import { FakeWorker } from "./fake-worker.ts";

const worker = new FakeWorker();
afterEach(() => worker.dispose());

test("a setup that waits for a CPU is taken, though it takes longer than 5 s, while other threads of the process use all there are", async () => {
  const others = Array.from(
    { length: os.availableParallelism() * 4 },
    () => new Worker("for (;;);", { eval: true }),
  );
  const sandbox = await worker.sandbox(`
    import { defineHttpFilter, Type } from "@tsproxy/sdk";
    export default defineHttpFilter({ name: "test", config: Type.Object({}), setup() {
      while (Date.now() < ${Date.now() + 6_000});
      return () => ({});
    } });`);
  await Promise.all(others.map((other) => other.terminate()));
  expect(worker.faults).toEqual([]);
  sandbox.dispose();
});
