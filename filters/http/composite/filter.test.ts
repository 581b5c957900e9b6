import { TestContext } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import composite from "./filter.ts";

it("does nothing by itself", () => {
  expect(new TestContext().setup(composite, {})(undefined as never)).toEqual({});
});
