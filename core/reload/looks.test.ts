import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Looks } from "./looks.ts";
import { Watch } from "./watch.ts";

/** For a machine that is busy with something else. */
const PATIENT = { timeout: 120_000, interval: 5 };

let root: string;
beforeEach(() => {
  root = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "looks-")));
});
afterEach(() => {
  vi.useRealTimers();
  fs.rmSync(root, { recursive: true, force: true });
});

test("comes to a last look although events never cease, and rests between looks", async () => {
  vi.useFakeTimers();
  const looks: [number, boolean][] = [];
  const start = performance.now();
  const under = new Looks(async (_, last) => void looks.push([performance.now() - start, last]));
  for (let ms = 0; ms < 2_100; ms++) {
    under.event("a");
    await vi.advanceTimersByTimeAsync(1);
  }
  const closed = under.close();
  await vi.advanceTimersByTimeAsync(10);
  await closed;
  const finals = looks.filter(([, last]) => last).map(([ms]) => ms);
  expect(finals[0]).toBeGreaterThanOrEqual(2_000);
  expect(finals[0]).toBeLessThan(2_020);
  expect(looks.length).toBeLessThan(2_100 / 5 + 10);
});

test("looks at once, and again 60 and 250 ms after the last event; only the last look is final", async () => {
  vi.useFakeTimers();
  const looks: [number, boolean][] = [];
  const start = Date.now();
  const under = new Looks(async (_, last) => void looks.push([Date.now() - start, last]));
  under.event("a");
  await vi.advanceTimersByTimeAsync(40);
  under.event("a");
  await vi.advanceTimersByTimeAsync(1_000);
  expect(looks.slice(0, 3)).toEqual([
    [0, false],
    [40, false],
    [100, false],
  ]);
  expect(looks).toHaveLength(4);
  // It lets a turn pass, for which the clock of this test counts 1 ms.
  expect(looks[3]).toEqual([291, true]);
});

test("a save right after the looks for another one is looked at at once", async () => {
  vi.useFakeTimers();
  const looks: number[] = [];
  const start = performance.now();
  const under = new Looks(async () => void looks.push(performance.now() - start));
  for (let ms = 0; ms < 3; ms++) {
    under.event("a");
    await vi.advanceTimersByTimeAsync(1);
  }
  expect(looks).toEqual([0, 1, 2]);
  await under.close();
});

test("a save that a long turn kept waiting is judged no sooner than others", async () => {
  const at: Record<"event" | "look" | "last look", number> = { event: 0, look: 0, "last look": 0 };
  const looks = new Looks(async (_, last) => {
    at[last ? "last look" : "look"] = performance.now();
  });
  const watch = new Watch((directory) => {
    at.event = performance.now();
    looks.event(directory);
  });
  watch.set(new Map([[root, undefined]]));
  await vi.waitFor(() => expect(at.look).toBeGreaterThan(0), PATIENT);
  const saved = performance.now();
  fs.writeFileSync(path.join(root, "a.txt"), "saved");
  // Both looks that the first event asked for are due then.
  while (performance.now() < saved + 300);
  await vi.waitFor(() => expect(at["last look"]).toBeGreaterThan(0), PATIENT);
  expect(at.event).toBeGreaterThan(saved);
  expect(at["last look"] - at.event).toBeGreaterThan(240);
  watch.close();
  await looks.close();
});

test("one look at a time: events during a look make one more, with all directories since the last final one", async () => {
  vi.useFakeTimers();
  let atOnce = 0;
  const looks: string[] = [];
  const under = new Looks(async (directories, last) => {
    expect(++atOnce).toBe(1);
    await new Promise((resolve) => setTimeout(resolve, 30));
    looks.push(`${[...directories].join("+")}${last ? " final" : ""}`);
    atOnce--;
  });
  under.event("a");
  await vi.advanceTimersByTimeAsync(5);
  under.event("b");
  under.event("b");
  await vi.advanceTimersByTimeAsync(400);
  expect(looks).toEqual(["a", "a+b", "a+b", "a+b final"]);
  under.event("c");
  await vi.advanceTimersByTimeAsync(400);
  expect(looks.at(-1)).toBe("c final");
});
