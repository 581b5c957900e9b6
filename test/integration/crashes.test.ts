import { describe, expect, it } from "vitest";
import { CULPRITS, crash, type Kind } from "./crashes.ts";

/** `npm run attacks` runs all kinds, with one worker and with two. */
const isWhole = process.env["ATTACKS"] === "all";
const kinds = isWhole ? (Object.keys(CULPRITS) as Kind[]) : (["http"] as const);
const cases = kinds.flatMap((kind) => (isWhole ? [1, 2] : [2]).map((n) => [kind, n] as const));

describe.each(cases)(
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
        const listed = JSON.parse(await proxy.admin("/filters")) as {
          package: string;
          state: string;
        }[];
        expect(listed.find((one) => one.package === name)?.state).toBe("failed");
        expect(listed.find((one) => one.package === "http/good")?.state).toBe("active");
      } finally {
        await proxy.stop();
      }
    });
  },
);
