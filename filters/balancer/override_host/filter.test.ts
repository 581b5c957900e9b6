import {
  type BalancedCluster,
  type BalancerContext,
  defineBalancer,
  RequestHeaders,
  Type,
} from "@tsproxy/sdk";
import { TestContext, TestHost } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import overrideHost from "./filter.ts";

const other = defineBalancer({
  name: "p",
  config: Type.Object({}),
  setup: () => ({ create: () => ({ choose: () => undefined }) }),
});

function balancerOf(sources: readonly object[]) {
  const cx = new TestContext().define("balancer/p", other);
  const typed_extension_config = { name: "p", package: "balancer/p", config: {} };
  const policy = cx.setup(overrideHost, {
    override_host_sources: sources,
    fallback_policy: { policies: [{ typed_extension_config }] },
  });
  if (!("compose" in policy)) throw new Error("stands above levels");
  const hosts = { a: new TestHost(), b: new TestHost() };
  const rest = new TestHost();
  const cluster: BalancedCluster = {
    hosts: [...Object.values(hosts), rest],
    stats: cx.stats,
    find: (address) => hosts[address as keyof typeof hosts],
    spread: () => ({ choose: () => rest }),
  };
  const balancer = policy.compose(cluster, undefined);
  return { hosts, rest, choose: (context: BalancerContext) => balancer.choose(context) };
}

function asking(header: string, attempts = 1, metadata: Record<string, unknown> = {}) {
  const request = new RequestHeaders();
  if (header !== "") request.append("x-to", header);
  const stream = { request, info: { attempts }, metadata: new Map(Object.entries(metadata)) };
  return { stream } as unknown as BalancerContext;
}

it("takes the host that the request names, and for each further attempt the next", () => {
  const { hosts, rest, choose } = balancerOf([{ header: "x-to" }]);
  expect(choose(asking("b"))).toBe(hosts.b);
  expect(choose(asking(" b , a"))).toBe(hosts.b);
  expect(choose(asking("b,a", 2))).toBe(hosts.a);
  expect(choose(asking("b,a", 3))).toBe(rest);
});

it("passes over what is no host of the cluster, and leaves the rest to the other policy", () => {
  const { hosts, rest, choose } = balancerOf([{ header: "x-to" }]);
  expect(choose(asking("nobody,a"))).toBe(hosts.a);
  expect(choose(asking("nobody,"))).toBe(rest);
  expect(choose(asking(""))).toBe(rest);
  expect(choose({})).toBe(rest);
});

it("reads metadata too; the first source that names somebody counts", () => {
  const path = [{ key: "x" }, { key: "y" }];
  const { hosts, rest, choose } = balancerOf([
    { metadata: { key: "m", path } },
    { header: "x-to" },
  ]);
  expect(choose(asking("a", 1, { m: { x: { y: "b" } } }))).toBe(hosts.b);
  expect(choose(asking("a", 1, { m: { x: "b" } }))).toBe(hosts.a);
  expect(choose(asking("a", 1, { m: { x: { y: "nobody" } } }))).toBe(rest);
});

it("refuses a source that says nothing, or two things", () => {
  expect(() => balancerOf([{}])).toThrow("give one of header and metadata");
});
