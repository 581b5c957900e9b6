import { expect, it } from "vitest";
import { Breaker } from "./breaker.ts";

/** Milliseconds of back-off for each fault at these times. */
const faults = (breaker: Breaker, ...times: number[]): number[] =>
  times.map((now) => breaker.fault(now));

it("opens at the third fault within 10 s", () => {
  const breaker = new Breaker();
  expect(faults(breaker, 0, 9_999)).toEqual([0, 0]);
  expect(breaker.state).toBe("closed");
  expect(breaker.fault(10_001)).toBe(0);
  expect(breaker.fault(10_002)).toBe(1000);
  expect(breaker.state).toBe("open");
});

it("doubles its back-off up to 30 s while trials fail, and tries one entry each time", () => {
  const breaker = new Breaker();
  faults(breaker, 0, 0, 0);
  const backOffs = Array.from({ length: 7 }, (_, k) => {
    breaker.onRebuilt();
    expect(breaker.state).toBe("half-open");
    return breaker.fault(k * 1000);
  });
  expect(backOffs).toEqual([2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
});

it("closes when a trial goes well, and remembers its back-off for a minute", () => {
  const breaker = new Breaker();
  faults(breaker, 0, 0, 0);
  breaker.onRebuilt();
  breaker.succeeded(1000);
  expect(breaker.state).toBe("closed");
  expect(faults(breaker, 20_000, 20_001, 20_002)).toEqual([0, 0, 2000]);
  breaker.onRebuilt();
  breaker.succeeded(22_000);
  expect(faults(breaker, 90_000, 90_001, 90_002)).toEqual([0, 0, 1000]);
});

it("suspects for 10 s after a fault and while half-open", () => {
  const breaker = new Breaker();
  expect(breaker.isSuspect(0)).toBe(false);
  breaker.fault(0);
  expect([breaker.isSuspect(9_999), breaker.isSuspect(10_000)]).toEqual([true, false]);
});
