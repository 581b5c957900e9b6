import { CellHeap } from "@tsproxy/sdk";
import { afterEach, expect, it } from "vitest";
import { Exchange, FakeWorker, stubs } from "./fake-worker.ts";

const CODE = `
  import { counter, defineHttpFilter, Type } from "@tsproxy/sdk";
  export default defineHttpFilter({ name: "test", config: Type.Object({}), setup(config, cx) {
    const seen = cx.cell("seen", counter());
    if (config.refuses) throw new Error("no");
    return () => ({
      onRequestHeaders(headers) {
        headers.set("x-seen", String(seen.add(1)));
        if (headers.path === "/loop") for (;;) {}
      },
    });
  } });`;
const LOSSES = 3;
/** Room for one cell, and for whoever uses it once. */
const BYTES = 72;

let worker: FakeWorker;
afterEach(() => worker.dispose());

it("isolates that are lost, or whose setup refuses, give back what they use of shared cells", async () => {
  worker = new FakeWorker();
  const cells = new SharedArrayBuffer(BYTES);
  let now = 1000;
  const sandbox = await worker.unprepared(CODE, {
    module: { code: CODE, filename: "test.js", cells },
    limits: { timeoutMs: 250 },
    now: () => now,
  });
  const setUp = (config: object) => sandbox.prepare([{ id: 1, config, place: "/uses/1" }]);
  for (let k = 0; k < LOSSES; k++) expect(await setUp({ refuses: true })).toHaveLength(1);
  expect(await setUp({})).toEqual([]);
  const ask = async (path: string) => {
    const text = `GET ${path} HTTP/1.1\r\nhost: example.com\r\n`;
    const e = await new Exchange(worker, [stubs(worker, sandbox, 1)], text)
      .requestHeaders()
      .settled();
    return e.reply?.status ?? e.request.get("x-seen");
  };
  for (let k = 1; k <= LOSSES; k++) {
    expect(await ask("/loop")).toBe(500);
    now += 60_000;
    expect(await ask("/")).toBe(String(2 * k));
  }
  const heap = new CellHeap(cells);
  expect(heap.acquire("other", 8)).toBeUndefined();
  sandbox.dispose();
  expect(heap.acquire("other", 8)).toBeDefined();
});
