import { TestContext } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import { byLabel } from "./stats.ts";

it("gives each of the first values a stat of its own, and all others one together", () => {
  const cx = new TestContext();
  const denied = byLabel(2, (key) => cx.stats.counter(`quota.${key}.denied`));
  for (const key of ["ann", "bob", "ann", "cyd", "dan", "bob", "ann"]) denied(key).inc();
  const value = (key: string) => cx.stats.value(`quota.${key}.denied`);
  expect([value("ann"), value("bob"), value("other")]).toEqual([3, 2, 2]);
  expect(cx.stats.values.has("quota.cyd.denied")).toBe(false);
});

it("makes a name of whatever a client sends", () => {
  const seen: string[] = [];
  const label = byLabel(10, (value) => seen.push(value));
  for (const value of ["", "a.b:c/d e", "ü\0\r\n", "x".repeat(100_000)]) label(value);
  label("x".repeat(70));
  expect(seen).toEqual(["_", "a_b_c_d_e", "____", "x".repeat(64)]);
});

it("takes numbers alone, as in the proxy", () => {
  const stats = new TestContext().stats as unknown as Record<"counter", (name: string) => Wrong>;
  const made = stats.counter("n");
  expect(() => made.add("3")).toThrow("write a number");
  expect(() => made.inc("a")).toThrow("write add(n)");
});

/** What a filter in JavaScript may do. */
type Wrong = Readonly<Record<"add" | "inc", (amount: string) => void>>;
