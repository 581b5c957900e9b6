import { TestContext } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import aggregate from "./filter.ts";

it("has no hosts of its own, and names whose it takes, in order", () => {
  const type = new TestContext().setup(aggregate, { clusters: ["near", "far"] });
  expect(type).toEqual({ initialHosts: [], clusters: ["near", "far"] });
});
