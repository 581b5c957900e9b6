import type { Balancer, Host } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import leastRequest from "./filter.ts";

const host = (key: string, activeRequests = 0, weight = 1): Host => ({
  address: { ip: key, port: 1 },
  key,
  hostname: "",
  weight,
  healthy: true,
  activeRequests,
  onResponse: () => {},
  onTimeout: () => {},
  onReset: () => {},
});
const share = (balancer: Balancer, key: string, n: number): number => {
  let hits = 0;
  for (let k = 0; k < n; k++) if (balancer.choose({})?.key === key) hits++;
  return hits / n;
};
const make = (choice_count = 2) => new TestContext().setup(leastRequest, { choice_count });

describe("least request", () => {
  it("chooses the less busy of two drawn at random", () => {
    // The busy host is chosen only if both draws hit it: one time in four.
    const part = share(make()([host("busy", 5), host("idle")]), "busy", 4000);
    expect(part).toBeGreaterThan(0.2);
    expect(part).toBeLessThan(0.3);
  });

  it("draws as many as choice_count says", () => {
    const part = share(make(6)([host("busy", 5), host("idle")]), "busy", 4000);
    expect(part).toBeLessThan(0.05);
  });

  it("spreads evenly over hosts that are equally busy", () => {
    const part = share(make()([host("a", 2), host("b", 2)]), "a", 4000);
    expect(part).toBeGreaterThan(0.44);
    expect(part).toBeLessThan(0.56);
  });

  it("gives idle hosts turns by weight", () => {
    const part = share(make()([host("a", 0, 3), host("b", 0, 1)]), "a", 400);
    expect(part).toBeCloseTo(0.75, 1);
  });

  it("divides a host's weight by its requests in progress", () => {
    const part = share(make()([host("a", 2, 3), host("b", 0, 1)]), "a", 400);
    expect(part).toBeCloseTo(0.5, 1);
  });

  it("has no host among none", () => {
    expect(make()([]).choose({})).toBeUndefined();
  });
});
