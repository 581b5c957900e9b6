import { CellHeap } from "@tsproxy/sdk";
import { afterAll, beforeAll, expect, it } from "vitest";
import { bundlePreludes } from "./packages/preludes.ts";
import type { FromWorker, WorkerStart } from "./protocol.ts";
import { sandboxCells } from "./sandbox/cells.ts";
import type { Thread } from "./thread.ts";
import { threadStarter } from "./threads.ts";

let thread: Thread;
let onMessage: (message: FromWorker) => void = () => {};
const ended = Promise.withResolvers<void>();

beforeAll(async () => {
  const start = {
    prelude: await bundlePreludes(),
    node: { id: "", cluster: "" } as WorkerStart["node"],
    drain: { ms: 1000, immediate: true },
  };
  thread = threadStarter(start, Promise.resolve())("worker", 0, {
    onMessage: (message) => onMessage(message),
    onExit: () => ended.resolve(),
  });
});
afterAll(() => thread.kill("the test is over"));

it("a thread that has lost the change that it is to extend says so", async () => {
  const answer = new Promise<FromWorker>((resolve) => {
    onMessage = (message) => "generation" in message && resolve(message);
  });
  const config = { text: [], listeners: [] } as never;
  thread.post({ type: "extend", generation: 7, config, listeners: "[]", nth: 0 });
  expect(await answer).toMatchObject({
    type: "refused",
    generation: 7,
    refusals: [{ message: expect.stringContaining("was lost while this was set up") }],
  });
});

it("what isolates of a killed thread used of a package's cells may be used by others", async () => {
  const memory = sandboxCells("http/test", "cell")!;
  // The first thread of the process.
  const [lost, other] = [(1 << 16) | 5, (2 << 16) | 5].map(
    (isolate) => new CellHeap(memory, 0, undefined, { worker: 0, isolate }),
  );
  const most = memory.byteLength - 100;
  expect(lost!.acquire("one", most)).toBeDefined();
  expect(other!.acquire("another", most)).toBeUndefined();
  thread.kill("it is killed");
  await ended.promise;
  expect(other!.acquire("another", most)).toBeDefined();
});
