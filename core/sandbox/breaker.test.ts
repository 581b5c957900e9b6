import { expect, it } from "vitest";
import { Breaker } from "./breaker.ts";

/** Milliseconds of back-off for each fault at these times. */
const faults = (breaker: Breaker, ...times: number[]): number[] =>
  times.map((now) => breaker.fault(now));

it("opens at the third fault within 10 s", () => {
  const breaker = new Breaker();
  expect(faults(breaker, 0, 9_999)).toEqual([0, 0]);
  expect(breaker.state(9_999)).toBe("closed");
  expect(breaker.fault(10_001)).toBe(0);
  expect(breaker.fault(10_002)).toBe(1000);
  expect([10_003, 11_001, 11_002].map((now) => breaker.state(now))).toEqual([
    "open",
    "open",
    "half-open",
  ]);
});

it("doubles its back-off up to 30 s while trials fail, and tries one entry each time", () => {
  const breaker = new Breaker();
  let now = faults(breaker, 0, 0, 0).at(-1)!;
  const backOffs = Array.from({ length: 7 }, () => {
    expect(breaker.state(now)).toBe("half-open");
    const backOff = breaker.fault(now);
    now += backOff;
    return backOff;
  });
  expect(backOffs).toEqual([2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
});

it("closes when its trial's stream ends, and remembers its back-off for a minute", () => {
  const breaker = new Breaker();
  const tried = (now: number) => {
    expect(breaker.lets(now, 2, () => true)).toBe(true);
    breaker.ended([4], now);
    expect(breaker.state(now)).toBe("half-open");
    breaker.ended([4, 2], now);
    return breaker.state(now);
  };
  faults(breaker, 0, 0, 0);
  expect(tried(1000)).toBe("closed");
  expect(faults(breaker, 20_000, 20_001, 20_002)).toEqual([0, 0, 2000]);
  expect(tried(22_002)).toBe("closed");
  expect(faults(breaker, 90_000, 90_001, 90_002)).toEqual([0, 0, 1000]);
});

it("opens at a fault of its trial however late that comes, and closes when the trial has lasted long", () => {
  const breaker = new Breaker({ trialMs: 5000 });
  faults(breaker, 0, 0, 0);
  const lives = () => true;
  breaker.lets(1000, 2, lives);
  breaker.endLongTrial(5999, lives);
  expect([breaker.fault(5999), breaker.state(7998)]).toEqual([2000, "open"]);
  breaker.lets(8000, 4, lives);
  breaker.endLongTrial(13_000, () => false);
  expect(breaker.state(13_000)).toBe("half-open");
  breaker.endLongTrial(13_000, lives);
  expect(breaker.state(13_000)).toBe("closed");
});

it("lets one stream try while it is half-open, and the next when that one is gone", () => {
  const breaker = new Breaker();
  faults(breaker, 0, 0, 0);
  const live = new Set([2]);
  const lets = (now: number, token: number) => breaker.lets(now, token, (t) => live.has(t));
  expect([lets(999, 2), lets(1000, 2), lets(1000, 4), lets(1000, 2)]).toEqual([
    false,
    true,
    false,
    true,
  ]);
  live.delete(2);
  expect(lets(1001, 4)).toBe(true);
});

it("suspects for 10 s after a fault and after its back-off, and during a trial", () => {
  const breaker = new Breaker();
  expect(breaker.isSuspect(0)).toBe(false);
  breaker.fault(0);
  expect([breaker.isSuspect(9_999), breaker.isSuspect(10_000)]).toEqual([true, false]);
  faults(breaker, 20_000, 20_000);
  expect(breaker.fault(20_000)).toBe(1000);
  expect([breaker.isSuspect(30_999), breaker.isSuspect(31_000)]).toEqual([true, false]);
  breaker.lets(31_000, 2, () => true);
  expect([breaker.isSuspect(40_999), breaker.isSuspect(41_000)]).toEqual([true, false]);
});
