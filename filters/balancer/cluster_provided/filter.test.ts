import { TestContext, TestHost } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import clusterProvided from "./filter.ts";

it("chooses nobody itself", () => {
  const policy = new TestContext().setup(clusterProvided, {});
  if (!("create" in policy)) throw new Error("a policy of levels");
  const balancer = policy.create({ key: "0|healthy", hosts: [new TestHost()], shares: [1] });
  expect(balancer.choose({})).toBeUndefined();
});
