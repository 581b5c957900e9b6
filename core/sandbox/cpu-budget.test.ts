import { expect, it } from "vitest";
import { CpuBudget } from "./cpu-budget.ts";

/** A budget of 5 ms an entry, for a thread that has had `cpu.ms` of CPU time. */
function budget(): { readonly cpu: { ms: number }; readonly of: CpuBudget } {
  const cpu = { ms: 1000 };
  return { cpu, of: new CpuBudget(5, () => cpu.ms) };
}

it("measures the next entries after one through the gate that may have used its limit", () => {
  const { cpu, of } = budget();
  of.rest(0);
  cpu.ms += 5.1;
  expect(of.suspect(10)).toBe(true);
  expect([109, 110].map((now) => of.isPrecise(now))).toEqual([true, false]);
});

it("does not suspect an entry that was long by the clock while its thread waited for a CPU", () => {
  const { cpu, of } = budget();
  of.rest(0);
  cpu.ms += 4.9;
  expect(of.suspect(40)).toBe(false);
  expect(of.isPrecise(40)).toBe(false);
});

it("counts from the last reading of the thread's CPU time, of which there is one a millisecond at most", () => {
  const { cpu, of } = budget();
  of.rest(0);
  cpu.ms += 3;
  of.rest(0.9);
  cpu.ms += 3;
  expect(of.suspect(2)).toBe(true);
  of.rest(3);
  cpu.ms += 3;
  expect(of.suspect(4)).toBe(false);
});

it("does not suspect an entry of core whose thread waited for a CPU either", () => {
  const { cpu, of } = budget();
  const enter = (ms: number): boolean => {
    const began = performance.now();
    of.begin(began);
    while (performance.now() - began < 6);
    cpu.ms += ms;
    return of.end(1, began);
  };
  enter(1);
  expect(of.isPrecise(performance.now())).toBe(false);
  enter(6);
  expect(of.isPrecise(performance.now())).toBe(true);
});
