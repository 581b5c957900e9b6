import { TestContext } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import upstreamCodec from "./filter.ts";

it("ends a chain, and has no hook of its own", () => {
  expect(upstreamCodec.terminal).toBe(true);
  expect(new TestContext().setup(upstreamCodec, {})(undefined as never)).toEqual({});
});
