import { expect, test } from "vitest";
import { BOX, STATS_CELLS } from "../inside/sandbox/layout.ts";
import { Watchdog } from "../isolate.ts";
import { SandboxImage } from "./image.ts";
import { EmptyIsolate, SandboxIsolate } from "./isolate.ts";

// A prelude that writes down how it was called.
const IMAGE = `(() => {
  const calls = [];
  const entry = (name) => () => calls.push(name) && calls.join();
  const prelude = Object.fromEntries(["prepare", "handover", "run"].map((name) => [name, entry(name)]));
  globalThis["tsproxy:image"] = { sdk: {}, prelude: { ...prelude, init() {}, adopt: () => "" } };
})();`;

test("a call on another thread is one trip there: none that was asked for later overtakes it", async () => {
  const watchdog = new Watchdog();
  const memory = {
    box: new SharedArrayBuffer(BOX.TOTAL),
    stats: new SharedArrayBuffer(STATS_CELLS * 8),
  };
  const empty = await EmptyIsolate.build(new SandboxImage(IMAGE), 64);
  const source = { code: "export default {};", filename: "a.js" };
  const isolate = await SandboxIsolate.build(empty, source, memory, {
    timeoutMs: 60_000,
    watchdog,
    worker: 0,
    node: { id: "", cluster: "" },
    runtime: "",
    number: 1,
    callMs: 60_000,
  });
  const prepared = isolate.call("prepare");
  const ran = isolate.runAside(1);
  const handedOver = isolate.call("handover");
  await ran.catch(() => {});
  expect(await prepared).toBe("prepare");
  expect(await handedOver).toBe("prepare,run,handover");
  isolate.dispose();
  await watchdog.stop();
});
