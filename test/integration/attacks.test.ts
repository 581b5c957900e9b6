import { describe, expect, it } from "vitest";
import { ATTACKS, type Attack, attack, p99 } from "./attacks.ts";

/** Each case takes a proxy of its own; `npm run attacks` runs the whole list, and tells how long other routes took. */
const isWhole = process.env["ATTACKS"] === "all";
/** A machine where requests took no longer than this before the attack does nothing else: there, and in the whole list, times have bounds. */
const QUIET_P99_MS = 20;
const P99_MS = 250;
const AWAY_MS = 2500;
const START_MS = 1000;
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
    const isQuiet = isWhole && p99(beforeMs) < QUIET_P99_MS;
    if (isWhole) {
      const away = outcome === "kills" ? `, away ${awayMs.toFixed()} ms (start ${startMs} ms)` : "";
      console.log(
        `${name}: lost ${lost.length} of ${tookMs.length}, p99 ${p99(tookMs).toFixed()} ms (before ${p99(beforeMs).toFixed()} ms)${away}`,
      );
    }
    if (outcome === "kills") {
      expect(output).toMatch(/the proxy .* inside the filter http\/bad; starting it again at once/);
      // The next process answers for the filter.
      expect(answers.at(-1)).toBe(500);
      // A second and a half until it is called hung, and a start from the sources.
      if (isQuiet) expect(awayMs).toBeLessThan(AWAY_MS);
      if (isQuiet) expect(startMs).toBeLessThan(START_MS);
      return;
    }
    const expected = outcome === "harmless" ? 200 : outcome === "late" ? 504 : 500;
    if (outcome === "own") expect([200, 500]).toEqual(expect.arrayContaining([...answers]));
    else expect(answers).toEqual(answers.map(() => expected));
    expect(lost).toEqual([]);
    if (isQuiet) expect(p99(tookMs)).toBeLessThan(P99_MS);
    expect(output).not.toMatch(/died|starting it again|was lost/);
  }, 180_000);
});
