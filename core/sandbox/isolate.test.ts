import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { BOX, STATS_CELLS } from "../inside/sandbox/layout.ts";
import { Watchdog } from "../isolate.ts";
import { SandboxImage } from "./image.ts";
import { EmptyIsolate, SandboxIsolate, type SandboxMemory } from "./isolate.ts";

// A prelude that writes down how it was called, and whether it was prepared for a package: 1 in the first word of its block.
const IMAGE = `(() => {
  const calls = [];
  const note = (name, text = "") => calls.push(name + text) && calls.join();
  const entry = (name) => () => note(name);
  const prelude = Object.fromEntries(["prepare", "handover", "run"].map((name) => [name, entry(name)]));
  const init = (box) => void (new Int32Array(box)[0] = 1);
  const expect = (uses) => note("expect ", uses);
  const start = (its) => note("start ", its.default);
  globalThis["tsproxy:image"] = { sdk: {}, prelude: { ...prelude, init, place() {}, expect, start } };
})();`;

let watchdog: Watchdog;
let memory: SandboxMemory;
let empty: EmptyIsolate;
let isolate: SandboxIsolate;
beforeEach(async () => {
  watchdog = new Watchdog();
  memory = {
    box: new SharedArrayBuffer(BOX.TOTAL),
    stats: new SharedArrayBuffer(STATS_CELLS * 8),
  };
  empty = await EmptyIsolate.build(new SandboxImage(IMAGE), 64, memory);
  const source = { code: 'export default "a";', filename: "a.js" };
  isolate = await SandboxIsolate.build(empty, source, {
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

test("what takes long in a new isolate is over before a package needs it", async () => {
  new Int32Array(memory.box)[0] = 0;
  const another = await EmptyIsolate.build(new SandboxImage(IMAGE), 64, memory);
  expect(new Int32Array(memory.box)[0]).toBe(1);
  another.dispose();
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
