import type { Balancer, Host } from "@tsproxy/sdk";
import { balancerFor, TestContext } from "@tsproxy/sdk/testing";
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
    const part = share(balancerFor(make(), [host("busy", 5), host("idle")]), "busy", 4000);
    expect(part).toBeGreaterThan(0.2);
    expect(part).toBeLessThan(0.3);
  });

  it("draws as many as choice_count says", () => {
    const part = share(balancerFor(make(6), [host("busy", 5), host("idle")]), "busy", 4000);
    expect(part).toBeLessThan(0.05);
  });

  it("spreads evenly over hosts that are equally busy", () => {
    const part = share(balancerFor(make(), [host("a", 2), host("b", 2)]), "a", 4000);
    expect(part).toBeGreaterThan(0.44);
    expect(part).toBeLessThan(0.56);
  });

  it("gives idle hosts turns by weight", () => {
    const part = share(balancerFor(make(), [host("a", 0, 3), host("b", 0, 1)]), "a", 400);
    expect(part).toBeCloseTo(0.75, 1);
  });

  it("divides a host's weight by its requests in progress", () => {
    const part = share(balancerFor(make(), [host("a", 2, 3), host("b", 0, 1)]), "a", 400);
    expect(part).toBeCloseTo(0.5, 1);
  });

  it("can tell who is next by weights alone", () => {
    const peek = (...hosts: Host[]) => balancerFor(make(), hosts).peek?.({})?.key;
    expect(["a", "b"]).toContain(peek(host("a", 0, 2), host("b")));
    expect(peek(host("a"), host("b"))).toBeUndefined();
  });

  it("has no host among none", () => {
    expect(balancerFor(make(), []).choose({})).toBeUndefined();
  });
});

describe("least request, by a full scan", () => {
  const scan = () => new TestContext().setup(leastRequest, { selection_method: "FULL_SCAN" });

  it("finds the least busy host of all", () => {
    const hosts = [host("a", 3), host("b", 1), host("c", 2)];
    expect(share(balancerFor(scan(), hosts), "b", 100)).toBe(1);
  });

  it("gives those that tie equal chances", () => {
    const balancer = balancerFor(scan(), [host("a", 1), host("b", 1), host("c", 1), host("d", 2)]);
    for (const key of ["a", "b", "c"]) {
      const part = share(balancer, key, 3000);
      expect(part).toBeGreaterThan(0.28);
      expect(part).toBeLessThan(0.39);
    }
    expect(share(balancer, "d", 100)).toBe(0);
  });
});

describe("active_request_bias", () => {
  it("of 0 looks at weights alone", () => {
    const active_request_bias = { default_value: 0, runtime_key: "" };
    const policy = new TestContext().setup(leastRequest, { choice_count: 2, active_request_bias });
    const part = share(balancerFor(policy, [host("a", 9, 3), host("b", 0, 1)]), "a", 400);
    expect(part).toBeCloseTo(0.75, 1);
  });
});
