import { describe, expect, it } from "vitest";
import { CULPRITS, crash, type Kind } from "./crashes.ts";

/** Each case starts three processes, so only the whole list of attacks runs them: ATTACKS=all. */
const isWhole = process.env["ATTACKS"] === "all";
const kinds = Object.keys(CULPRITS) as Kind[];
const cases = kinds.flatMap((kind) => [1, 2].map((n) => [kind, n] as const));

describe.runIf(isWhole).each(cases)(
  "a crash of the process inside a package of kind %s, with %d workers",
  (kind, workers) => {
    it("is blamed on that package, which the next process does not enter", async () => {
      const { proxy, answers, awayMs } = await crash(kind, workers);
      try {
        const { name, answer } = CULPRITS[kind];
        if (isWhole)
          console.log(`${kind}, ${workers} workers: away ${awayMs.toFixed()} ms (bar 1000)`);
        expect(proxy.output).toContain(`inside the filter ${name}; another one takes its place`);
        expect(proxy.output).not.toContain("inside the filter http/good");
        expect(answers).toEqual([answer, 200]);
        const listed = await proxy.admin("/filters");
        expect(listed).toMatch(new RegExp(`^${name} .* failed `, "m"));
        expect(listed).toMatch(/^http\/good .* active /m);
      } finally {
        await proxy.stop();
      }
    });
  },
);
