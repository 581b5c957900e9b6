import { expect, it } from "vitest";
import { Runtime, RuntimeFlag, RuntimeFraction, RuntimeInteger, RuntimeNumber } from "./runtime.ts";

const runtime = new Runtime();
const share = (numerator: number, denominator = "HUNDRED" as const, runtime_key = "k") =>
  new RuntimeFraction({ default_value: { numerator, denominator }, runtime_key }, runtime);

it("takes the default while no layer has the key", () => {
  runtime.replace([]);
  expect(share(50).enabled(49)).toBe(true);
  expect(share(50).enabled(150)).toBe(false);
  expect(share(100).enabled(Number.MAX_SAFE_INTEGER)).toBe(true);
});

it("reads a whole number as percent, whatever the default's denominator", () => {
  const fraction = new RuntimeFraction(
    { default_value: { numerator: 1, denominator: "MILLION" }, runtime_key: "k" },
    runtime,
  );
  runtime.replace([["k", 50]]);
  expect([fraction.enabled(1_000_049), fraction.enabled(50)]).toEqual([true, false]);
  // What stands behind the point does not count, as in Envoy.
  runtime.replace([["k", 50.9]]);
  expect([fraction.enabled(1_000_049), fraction.enabled(50)]).toEqual([true, false]);
  runtime.replace([["k", { numerator: 3, denominator: 10_000 }]]);
  expect([fraction.enabled(20_002), fraction.enabled(49)]).toEqual([true, false]);
});

it.each([[-1], [2 ** 64], ["half"], [true]])("takes %j for no percentage", (value) => {
  runtime.replace([["k", value]]);
  expect(share(0).enabled(0)).toBe(false);
  expect(share(100).enabled(99)).toBe(true);
});

it("follows changes, also back to none", () => {
  const n = new RuntimeInteger({ default_value: 7, runtime_key: "n" }, runtime);
  const flag = new RuntimeFlag({ default_value: true, runtime_key: "flag" }, runtime);
  const percent = new RuntimeNumber({ default_value: { value: 1.5 }, runtime_key: "p" }, runtime);
  runtime.replace([]);
  expect([n.value, flag.value, percent.value]).toEqual([7, true, 1.5]);
  runtime.replace([
    ["n", 8],
    ["flag", false],
    ["p", 2.5],
  ]);
  expect([n.value, flag.value, percent.value]).toEqual([8, false, 2.5]);
  runtime.replace([]);
  expect([n.value, flag.value, percent.value]).toEqual([7, true, 1.5]);
});

it("never looks an empty key up", () => {
  runtime.replace([["", 0]]);
  expect(share(100, "HUNDRED", "").enabled(5)).toBe(true);
});
