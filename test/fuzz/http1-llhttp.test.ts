import { expect, it } from "vitest";
import { fuzz } from "./http1-llhttp.ts";

it("100,000 HTTP/1 conversations, good and bad, mean to us what they mean to llhttp but for listed differences", () => {
  const tally = fuzz(100_000, 20_241);
  expect(tally.unlisted).toBeUndefined();
  expect(tally.equal).toBeGreaterThan(80_000);
  for (const [name, count] of tally.listed) expect(count, `never seen: ${name}`).toBeGreaterThan(0);
});
