import { getHeapStatistics } from "node:v8";
import { expect, test } from "vitest";
import { collectGarbage } from "./admin/garbage.ts";
import { Isolate, share, Watchdog } from "./isolate.ts";
import { BEAT } from "./protocol.ts";

test("an isolate is ended before its own limit while its thread has to be stricter", async () => {
  const beat = new SharedArrayBuffer(64);
  const watchdog = new Watchdog(beat);
  const isolate = new Isolate({ memoryLimitMb: 64, sdk: "" });
  const code = "export function spin() { for (;;) {} }";
  const spin = isolate.load({ code, filename: "spin" }).entry("spin");
  const inside = new Int32Array(new SharedArrayBuffer(4)).fill(1);
  watchdog.watch(isolate, inside.buffer, 0, 10 * 60_000);
  new Int32Array(beat)[BEAT.MOST_MS] = 250;
  expect(() => spin()).toThrow(/disposed/);
  await watchdog.stop();
});

/** Goes inside after a while; then its thread's CPU time of the last 5 s is told at once; and returns 600 ms later. */
const WORK = `export function work(beatMemory, insideMemory) {
  const beat = new Int32Array(beatMemory);
  const inside = new Int32Array(insideMemory);
  const from = Date.now();
  const until = (ms) => { while (Date.now() < from + ms); };
  until(300);
  inside[0] = 1;
  until(350);
  beat[${BEAT.CPU_MS}] += 5_000;
  beat[${BEAT.SAMPLED}] = Date.now() & 0x3fff_ffff;
  until(950);
  inside[0] = 2;
}`;

test.each([
  ["that was sampled late", 1],
  ["that was not sampled yet", 0],
])("CPU time %s is not taken for the time of the call", async (_what, known) => {
  const beat = new SharedArrayBuffer(64);
  const words = new Int32Array(beat);
  words[BEAT.THREAD] = 1;
  words[BEAT.CPU_MS] = known;
  words[BEAT.SAMPLED] = (Date.now() - 5_000) & 0x3fff_ffff;
  const watchdog = new Watchdog(beat);
  const isolate = new Isolate({ memoryLimitMb: 64, sdk: "" });
  const work = isolate.load({ code: WORK, filename: "work" }).entry("work");
  const inside = new SharedArrayBuffer(4);
  watchdog.watch(isolate, inside, 0, 400);
  work(share(beat), share(inside));
  expect(isolate.disposed).toBe(false);
  await watchdog.stop();
});

test("an isolate keeps nothing of the SDK's text in its thread's heap", () => {
  const before = heapBytes();
  const made = withLargeSdk();
  // V8 keeps the text in which a regex was found last.
  expect("a").toMatch(/a/);
  expect(heapBytes() - before).toBeLessThan(8 * 1024 * 1024);
  const module = {
    code: 'import { nameOfAnExport } from "@tsproxy/sdk"; export const read = () => nameOfAnExport;',
    filename: "reader",
  };
  expect(made.load(module).entry("read")()).toBe(1);
  made.dispose();
});

function withLargeSdk(): Isolate {
  const comment = "x".repeat(16 * 1024 * 1024);
  const sdk = `var nameOfAnExport = 1, nameOfAnother = 2;\n/*${comment}*/\nexport { nameOfAnExport, nameOfAnother };\n`;
  return new Isolate({ memoryLimitMb: 64, sdk });
}

function heapBytes(): number {
  collectGarbage("last-resort");
  return getHeapStatistics().used_heap_size;
}
