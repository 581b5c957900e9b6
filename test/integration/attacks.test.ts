import { describe, expect, it } from "vitest";
import { ATTACKS, type Attack, attack } from "./attacks.ts";

/** Each case takes a proxy of its own; `npm run attacks` runs the whole list, on a machine that does nothing else. */
const isWhole = process.env["ATTACKS"] === "all";
const P99_MS = 250;
const SHORT: readonly Attack[] = [
  "endless_loop",
  "growing_map",
  "printed_bigint",
  "pollution",
  "injection_past_the_setter",
  "reach_node",
];
const names = isWhole ? (Object.keys(ATTACKS) as Attack[]) : SHORT;

describe.each(names)("%s", (name) => {
  const [outcome] = ATTACKS[name];

  it(`is ${outcome}, and other routes of the same worker go on`, async () => {
    const { answers, lost, tookMs, output, awayMs } = await attack(name);
    if (outcome === "kills") {
      expect(output).toMatch(/the proxy .* inside the filter http\/bad; starting it again at once/);
      // The next process answers for the filter.
      expect(answers.at(-1)).toBe(500);
      // A second and a half until it is called hung, and a start from the sources.
      if (isWhole) expect(awayMs).toBeLessThan(4000);
      return;
    }
    const expected = outcome === "harmless" ? 200 : outcome === "late" ? 504 : 500;
    if (outcome === "own") expect([200, 500]).toEqual(expect.arrayContaining([...answers]));
    else expect(answers).toEqual(answers.map(() => expected));
    expect(lost).toEqual([]);
    expect(tookMs.length).toBeGreaterThan(0);
    if (isWhole) expect(tookMs[Math.floor(tookMs.length * 0.99)]).toBeLessThan(P99_MS);
    expect(output).not.toMatch(/died|starting it again|was lost/);
  });
});
