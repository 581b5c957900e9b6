import { describe, expect, it } from "vitest";
import { ATTACKS, type Attack, attack, p99 } from "./attacks.ts";

/** Each case takes a proxy of its own; `npm run attacks` runs the whole list, and tells how long other routes took. */
const isWhole = process.env["ATTACKS"] === "all";
/** Bars, for a machine that does nothing else: of other routes, of nobody serving, and of the next process's start. */
const BARS_MS = { p99: 250, away: 2500, start: 1000 } as const;
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
    const { answers, lost, tookMs, beforeMs, output, awayMs, startMs } = await attack(name);
    if (isWhole) {
      const times = outcome === "kills" ? { away: awayMs, start: startMs } : { p99: p99(tookMs) };
      const told = Object.entries(times).map(
        ([what, ms]) => `${what} ${ms.toFixed()} ms (bar ${BARS_MS[what as "p99"]})`,
      );
      const before = `p99 before ${p99(beforeMs).toFixed()} ms`;
      console.log(
        `${name}: lost ${lost.length} of ${tookMs.length}, ${told.join(", ")}; ${before}`,
      );
    }
    if (outcome === "kills") {
      expect(output).toMatch(/the proxy .* inside the filter http\/bad; starting it again at once/);
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
