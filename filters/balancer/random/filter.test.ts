import { balancerFor, TestContext, TestHost } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import random from "./filter.ts";

describe("random", () => {
  it("gives every host the same chance, whatever its weight", () => {
    const hosts = ["a", "b", "c"].map((ip, k) => {
      const host = new TestHost({ ip, port: 1 });
      host.weight = k + 1;
      return host;
    });
    const balancer = balancerFor(new TestContext().setup(random, {}), hosts);
    const seen = new Map<string, number>();
    for (let k = 0; k < 6000; k++) {
      const { key } = balancer.choose({})!;
      seen.set(key, (seen.get(key) ?? 0) + 1);
    }
    for (const count of seen.values()) expect(Math.abs(count - 2000)).toBeLessThan(300);
    expect(seen.size).toBe(3);
  });

  it("has no host among none", () => {
    expect(balancerFor(new TestContext().setup(random, {}), []).choose({})).toBeUndefined();
  });
});
