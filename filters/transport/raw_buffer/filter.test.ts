import { TestContext } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import rawBuffer from "./filter.ts";

test("adds nothing to a connection", () => {
  const factory = new TestContext().setup(rawBuffer, {});
  expect(factory.secure).toBe(false);
  expect(factory.accept?.({} as never, {} as never)).toBeUndefined();
  expect(factory.connect?.({} as never, {})).toBeUndefined();
});
