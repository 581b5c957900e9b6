import { describe, expect, it } from "vitest";
import { EdfScheduler } from "./edf.ts";

const weights: Record<string, number> = { a: 3, b: 1, c: 2 };
const take = (scheduler: EdfScheduler<string>, n: number): string =>
  Array.from({ length: n }, () => scheduler.pick()).join("");
const count = (text: string, letter: string): number => text.split(letter).length - 1;

describe("EdfScheduler", () => {
  it("takes equal weights in turn", () => {
    expect(take(new EdfScheduler(["a", "b", "c"], () => 1, 0), 7)).toBe("abcabca");
  });

  it("gives each entry its weight's share of every period, wherever it starts", () => {
    for (let picks = 0; picks < 13; picks++) {
      const seen = take(new EdfScheduler(["a", "b", "c"], (e) => weights[e]!, picks), 600);
      expect(Math.abs(count(seen, "a") - 300)).toBeLessThanOrEqual(1);
      expect(Math.abs(count(seen, "b") - 100)).toBeLessThanOrEqual(1);
      expect(Math.abs(count(seen, "c") - 200)).toBeLessThanOrEqual(1);
    }
  });

  it("gives exact shares of whole periods far from the start too", () => {
    for (let picks = 2 ** 28; picks < 2 ** 28 + 100; picks++) {
      const scheduler = new EdfScheduler(["a", "b"], (e) => (e === "a" ? 3 : 1), picks);
      expect(count(take(scheduler, 16), "a")).toBe(12);
    }
  });

  it("spreads the picks of a heavy entry between the others", () => {
    const seen = take(new EdfScheduler(["a", "b"], (e) => (e === "a" ? 3 : 1), 0), 40);
    expect(seen).not.toContain("aaaaa"); // a tie may fall to either side of a turn
    expect(seen).not.toContain("bb");
  });

  it("begins where the picks before would have left it", () => {
    const fresh = new EdfScheduler(["a", "b", "c"], (e) => weights[e]!, 0);
    take(fresh, 6_000);
    const moved = new EdfScheduler(["a", "b", "c"], (e) => weights[e]!, 6_000);
    expect(count(take(moved, 6), "a")).toBe(count(take(fresh, 6), "a"));
  });

  it("follows weights that change between picks", () => {
    let heavy = "a";
    const scheduler = new EdfScheduler(["a", "b"], (e) => (e === heavy ? 9 : 1), 0);
    take(scheduler, 20);
    heavy = "b";
    expect(count(take(scheduler, 100), "b")).toBeGreaterThan(75);
  });
});
