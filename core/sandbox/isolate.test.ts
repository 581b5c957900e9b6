import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { BOX, STATS_CELLS } from "../inside/sandbox/layout.ts";
import { Watchdog } from "../isolate.ts";
import { SandboxImage } from "./image.ts";
import { EmptyIsolate, SandboxIsolate } from "./isolate.ts";

// A prelude that writes down how it was called.
const IMAGE = `(() => {
  const calls = [];
  const note = (name, text = "") => calls.push(name + text) && calls.join();
  const entry = (name) => () => note(name);
  const prelude = Object.fromEntries(["prepare", "handover", "run"].map((name) => [name, entry(name)]));
  const expect = (uses) => note("expect ", uses);
  const start = (its) => note("start ", its.default);
  globalThis["tsproxy:image"] = { sdk: {}, prelude: { ...prelude, init() {}, expect, start } };
})();`;

let watchdog: Watchdog;
let empty: EmptyIsolate;
let isolate: SandboxIsolate;
beforeEach(async () => {
  watchdog = new Watchdog();
  const memory = {
    box: new SharedArrayBuffer(BOX.TOTAL),
    stats: new SharedArrayBuffer(STATS_CELLS * 8),
  };
  empty = await EmptyIsolate.build(new SandboxImage(IMAGE), 64);
  const source = { code: 'export default "a";', filename: "a.js" };
  isolate = await SandboxIsolate.build(empty, source, memory, {
    timeoutMs: 60_000,
    watchdog,
    worker: 0,
    node: { id: "", cluster: "" },
    runtime: "",
    number: 1,
    callMs: 60_000,
  });
});
afterEach(async () => {
  isolate.dispose();
  await watchdog.stop();
});

test("a package is loaded and its uses are set up in one trip to another thread", async () => {
  const trips = vi.spyOn(empty.aside, "run");
  expect(await isolate.start("[]")).toBe("expect [],start a");
  expect(trips).toHaveBeenCalledTimes(1);
});

test("a call on another thread is one trip there: none that was asked for later overtakes it", async () => {
  const prepared = isolate.call("prepare");
  const ran = isolate.runAside(1);
  const handedOver = isolate.call("handover");
  await ran.catch(() => {});
  expect(await prepared).toBe("prepare");
  expect(await handedOver).toBe("prepare,run,handover");
});
