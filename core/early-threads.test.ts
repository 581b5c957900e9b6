import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { untilAllLoaded } from "./early-threads.ts";

test("a thread that is to make isolates waits until the others have loaded their modules", async () => {
  const loading = new Int32Array(new SharedArrayBuffer(4)).fill(1);
  const go = new Int32Array(new SharedArrayBuffer(4));
  const other = new Worker(
    `const { parentPort, workerData } = require("node:worker_threads");
    import(workerData.module).then(({ onLoaded }) => {
      parentPort.postMessage("here");
      Atomics.wait(workerData.go, 0, 0);
      onLoaded(workerData);
    });`,
    {
      eval: true,
      workerData: { loading, go, module: new URL("./early-threads.ts", import.meta.url).href },
    },
  );
  await once(other, "message");
  Atomics.store(go, 0, 1);
  Atomics.notify(go, 0);
  untilAllLoaded({ loading });
  expect(Atomics.load(loading, 0)).toBe(0);
  await other.terminate();
});
