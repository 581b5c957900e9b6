import { counter, type SetupContext, tokenBucket } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import { Exchange, FakeWorker, stubs } from "./fake-worker.ts";

const CODE = `
  import { counter, defineHttpFilter, tokenBucket, Type } from "@tsproxy/sdk";
  const RATE = { maxTokens: 3, tokensPerFill: 3, fillIntervalMs: 60_000 };
  export default defineHttpFilter({ name: "test", config: Type.Object({}), setup(config, cx) {
    const counted = cx.cell("of all", counter()), bucket = cx.cell("of all", tokenBucket(RATE));
    return () => ({
      onRequestHeaders(headers) {
        counted.set(-1);
        headers.set("x-seen", String([bucket.take(3), bucket.take(1), counted.value]));
      },
    });
  } });`;

it("two cells of one name are two cells if they are of two kinds", async () => {
  const cx: SetupContext = new TestContext();
  const counted = cx.cell("of all", counter());
  const rate = { maxTokens: 3, tokensPerFill: 3, fillIntervalMs: 60_000 };
  const bucket = cx.cell("of all", tokenBucket(rate));
  counted.set(-1);
  expect([bucket.take(3), bucket.take(1), counted.value]).toEqual([true, false, -1]);

  const worker = new FakeWorker();
  const module = { code: CODE, filename: "test.js", cells: new SharedArrayBuffer(4096) };
  const sandbox = await worker.unprepared(CODE, { module });
  expect(await sandbox.prepare([{ id: 1, config: {}, place: "" }])).toEqual([]);
  const e = new Exchange(worker, [stubs(worker, sandbox, 1)], "GET / HTTP/1.1\r\nhost: a\r\n");
  await e.requestHeaders().settled();
  expect(e.request.get("x-seen")).toBe("true,false,-1");
  worker.dispose();
});
