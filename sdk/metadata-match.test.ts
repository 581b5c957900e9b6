import { expect, it } from "vitest";
import { compileValueMatch } from "./metadata-match.ts";
import { TestContext } from "./testing/index.ts";

it("finds null present, and nothing with present_match: false", () => {
  const matches = (present_match: boolean) =>
    [undefined, null, "v"].map(compileValueMatch({ present_match }, "value", new TestContext()));
  expect(matches(true)).toEqual([false, true, true]);
  expect(matches(false)).toEqual([false, false, false]);
});
