import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Isolate, Watchdog } from "../isolate.ts";
import { AfterReloads, COLLECT_AFTER_MS, QUIET, Rest } from "./garbage.ts";

describe("Rest", () => {
  function told(...calls: number[]): number[] {
    const at: number[] = [];
    const rest = new Rest(() => at.push(second));
    let second = 0;
    for (const n of calls) {
      second++;
      rest.tick(n);
    }
    return at;
  }

  const quiet = (calls: number): number[] => new Array(QUIET.seconds).fill(calls);

  it("tells once when a busy thread has been quiet for long enough", () => {
    expect(told(500, 5_000, ...quiet(5_003), 5_010)).toEqual([QUIET.seconds + 2]);
  });
  it("tells again after the next busy time", () => {
    expect(told(5_000, ...quiet(5_001), 9_000, ...quiet(9_001))).toEqual([
      QUIET.seconds + 1,
      2 * QUIET.seconds + 2,
    ]);
  });
  it("does not tell of a thread that goes on being asked, or was hardly ever", () => {
    expect(told(...quiet(0).map((_, second) => 5_000 + 100 * second), 9_000)).toEqual([]);
    expect(told(10, ...quiet(25))).toEqual([]);
  });
  it("tells of a thread that was hardly ever asked if its rest was postponed, once", () => {
    let rests = 0;
    const rest = new Rest(() => rests++);
    rest.postpone();
    for (const calls of quiet(10).slice(1)) rest.tick(calls);
    expect(rests).toBe(0);
    for (const calls of [...quiet(10), ...quiet(25)]) rest.tick(calls);
    expect(rests).toBe(1);
  });
  it("starts again where another isolate counts from 0", () => {
    expect(told(50_000, ...quiet(50_000), 3_000, ...quiet(3_000))).toEqual([
      QUIET.seconds + 1,
      2 * QUIET.seconds + 2,
    ]);
  });
});

describe("AfterReloads", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  /** Commits every `ms` milliseconds; tells after which of them garbage was collected, and whether saves went on. */
  function collections(commits: number, ms: number, turn = 0): (number | string)[] {
    const at: (number | string)[] = [];
    let commit = 0;
    const garbage = new AfterReloads((saves) => at.push(commit, saves), turn);
    for (commit = 1; commit <= commits; commit++) {
      garbage.onCommit();
      vi.advanceTimersByTime(ms);
    }
    return at;
  }

  it("waits while saves follow each other, but not for ever", () => {
    expect(collections(300, 100)).toEqual([128, "go on", 256, "go on"]);
  });
  it("collects in one thread after the other while saves go on", () => {
    expect(collections(140, 100, 1)).toEqual([132, "go on"]);
    expect(collections(140, 100, 2)).toEqual([137, "go on"]);
  });
  it("collects in the first pause once there is enough", () => {
    expect(collections(70, COLLECT_AFTER_MS)).toEqual([32, "are over", 64, "are over"]);
  });
});

describe("Isolate", () => {
  it("gives back what its heap does not need, and what lives in it sees no collector", () => {
    const isolate = new Isolate({ memoryLimitMb: 256, sdk: "" });
    const code = `
      export const fill = () => { let all = []; for (let k = 0; k < 200_000; k++) all.push({ k }); };
      export const sees = () => typeof gc;`;
    const module = isolate.load({ code, filename: "hoard.js" });
    module.entry("fill")();
    const before = isolate.memory;
    isolate.collectGarbage();
    expect(isolate.memory).toBeLessThan(before / 2);
    expect(module.entry("sees")()).toBe("undefined");
    isolate.dispose();
  });
});

describe("Watchdog", () => {
  it("ends what hangs after a collection as before it", async () => {
    const watchdog = new Watchdog();
    const hang = () => {
      const isolate = new Isolate({ memoryLimitMb: 64, sdk: "" });
      const code = "export const hang = () => { for (;;); };";
      const entry = isolate.load({ code, filename: "hang.js" }).entry("hang");
      const beat = new SharedArrayBuffer(4);
      const id = watchdog.watch(isolate, beat, 0, 100);
      Atomics.store(new Int32Array(beat), 0, 1);
      expect(entry).toThrow();
      expect(isolate.disposed).toBe(true);
      watchdog.unwatch(id);
    };
    watchdog.collectGarbage();
    hang();
    for (let k = 0; k < 3; k++) watchdog.collectGarbage();
    hang();
    await watchdog.stop();
    watchdog.collectGarbage();
  });
});
