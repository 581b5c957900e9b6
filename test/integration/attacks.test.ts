import { describe, expect, it } from "vitest";
import { ATTACKS, type Attack, attack, p99 } from "./attacks.ts";

/**
 * Each case takes a proxy of its own; `npm run attacks` runs the whole list, and tells how long other routes took. A start of the
 * npm package takes a third of the checkout's: `ATTACKED=…/node_modules/.bin/tsproxy npm run attacks` asks that one.
 */
const isWhole = process.env["ATTACKS"] === "all";
const attacked = process.env["ATTACKED"];
/** Bars, for a machine that does nothing else: of other routes, and of nobody serving. */
const BARS_MS = { p99: 250, away: 1000 } as const;
const SHORT: readonly Attack[] = [
  "endless_loop",
  "growing_map",
  "squared_bigint",
  "pollution",
  "injection_past_the_setter",
  "reach_node",
];
const names = isWhole ? (Object.keys(ATTACKS) as Attack[]) : SHORT;

describe.each(names)("%s", (name) => {
  const [outcome] = ATTACKS[name];

  it(`is ${outcome}, and other routes of the same worker go on`, async () => {
    const { answers, lost, tookMs, beforeMs, output, awayMs } = await attack(name, attacked);
    if (isWhole) {
      const times = outcome === "kills" ? { away: awayMs } : { p99: p99(tookMs) };
      const told = Object.entries(times).map(
        ([what, ms]) => `${what} ${ms.toFixed()} ms (bar ${BARS_MS[what as "p99"]})`,
      );
      const before = `p99 before ${p99(beforeMs).toFixed()} ms`;
      console.log(
        `${name}: lost ${lost.length} of ${tookMs.length}, ${told.join(", ")}; ${before}`,
      );
    }
    if (outcome === "kills") {
      expect(output).toMatch(
        /the proxy .* inside the filter http\/bad; another one takes its place/,
      );
      // The next process answers for the filter.
      expect(answers.at(-1)).toBe(500);
      return;
    }
    const expected = outcome === "harmless" ? 200 : outcome === "late" ? 504 : 500;
    if (outcome === "own") expect([200, 500]).toEqual(expect.arrayContaining([...answers]));
    else expect(answers).toEqual(answers.map(() => expected));
    expect(lost).toEqual([]);
    expect(tookMs.length).toBeGreaterThan(0);
    expect(output).not.toMatch(/died|starting it again|was lost/);
  });
});
