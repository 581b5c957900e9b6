import { expect, test } from "vitest";
import { soak } from "./soaking.ts";

// The long one is test/bench/soak.ts, which looks at memory as well.
test("mixed load, dying upstreams and reloads leave no failure and nothing open behind", async () => {
  const soaked = await soak({ seconds: 12, reloadEveryMs: 2_000 });
  expect(soaked.failures).toEqual([]);
  expect(soaked.reloads).toBeGreaterThan(1);
  expect(soaked.kills).toBeGreaterThan(1);
  expect(soaked.answered).toBeGreaterThan(100);
  expect(Object.entries(soaked.active).filter(([, n]) => n !== 0)).toEqual([]);
  expect(soaked.handles[1]).toBeLessThanOrEqual(soaked.handles[0] + 3);
});
