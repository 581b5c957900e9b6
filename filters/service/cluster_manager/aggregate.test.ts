import type { BalancerContext, Host } from "@tsproxy/sdk";
import { TestHost } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import { Aggregate } from "./aggregate.ts";
import type { UpstreamCluster } from "./upstream-cluster.ts";

/** Clusters of one level each, of which each has one host. */
function aggregate(healths: Readonly<Record<string, number>>) {
  const hosts = new Map(Object.keys(healths).map((name) => [name, new TestHost()]));
  const clusterOf = (name: string): UpstreamCluster | undefined => {
    const host = hosts.get(name);
    if (host === undefined) return undefined;
    const cluster: Partial<UpstreamCluster> = {
      changes: 1,
      levels: () => [{ total: 1, healthy: healths[name]!, degraded: 0, hosts: 1 }],
      hosts: [host] as unknown as UpstreamCluster["hosts"],
      hostFor: (() => host) as unknown as UpstreamCluster["hostFor"],
    };
    return cluster as UpstreamCluster;
  };
  const made = new Aggregate([...Object.keys(healths), "unknown"], clusterOf, () => 50);
  const nameOf = (host: Host | undefined) => [...hosts].find(([, own]) => own === host)?.[0];
  return { made, nameOf, choose: (context: BalancerContext = {}) => nameOf(made.choose(context)) };
}

it("asks the first cluster that is healthy", () => {
  const { choose } = aggregate({ sick: 0, near: 1, far: 1 });
  expect(choose()).toBe("near");
});

it("leaves out, among the levels of all, those that a retry has tried", () => {
  const { made, choose } = aggregate({ near: 1, far: 1 });
  const first = made.choose({})!;
  expect(made.priorityOf(first)).toBe(0);
  expect(choose({ excludedPriorities: new Set([0]) })).toBe("far");
  expect(made.priorityOf(made.choose({ excludedPriorities: new Set([0]) })!)).toBe(1);
  // All have been tried: from the beginning.
  expect(choose({ excludedPriorities: new Set([0, 1]) })).toBe("near");
});
