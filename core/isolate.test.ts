import { expect, test } from "vitest";
import { Isolate, Watchdog } from "./isolate.ts";
import { BEAT } from "./protocol.ts";

test("an isolate whose code has hung another thread is ended long before its own limit", async () => {
  const beat = new SharedArrayBuffer(64);
  const watchdog = new Watchdog(beat);
  const isolate = new Isolate({ memoryLimitMb: 64, sdk: "" });
  const code = "export function spin() { for (;;) {} }";
  const spin = isolate.load({ code, filename: "spin" }).entry("spin");
  const inside = new Int32Array(new SharedArrayBuffer(4)).fill(1);
  watchdog.watch(isolate, inside.buffer, 0, 10 * 60_000);
  new Int32Array(beat)[BEAT.DOUBTED] = 1;
  expect(() => spin()).toThrow(/disposed/);
  await watchdog.stop();
});
