import { type BalancedCluster, type Balancer, defineBalancer, Type } from "@tsproxy/sdk";
import { TestContext, TestHost } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import wrrLocality from "./filter.ts";

const picker = defineBalancer({
  name: "p",
  config: Type.Object({}),
  setup: () => ({ create: ({ hosts }) => ({ choose: () => hosts[0] }) }),
});

it("spreads all hosts by the weights of localities, whatever the policy within says of them", () => {
  const cx = new TestContext().define("balancer/p", picker);
  const typed_extension_config = { name: "p", package: "balancer/p", config: {} };
  const policy = cx.setup(wrrLocality, {
    endpoint_picking_policy: { policies: [{ typed_extension_config }] },
  });
  if (!("compose" in policy)) throw new Error("stands above levels");
  const hosts = [new TestHost()];
  const asked: unknown[] = [];
  const balancer: Balancer = { choose: () => hosts[0] };
  const cluster: BalancedCluster = {
    hosts,
    stats: cx.stats,
    find: () => undefined,
    spread: (_key, own, slot, options) => {
      asked.push(own, slot.ref.package, options);
      return balancer;
    },
  };
  expect(policy.compose(cluster, undefined)).toBe(balancer);
  expect(asked).toEqual([hosts, "balancer/p", { localities: { type: "weighted" } }]);
});
