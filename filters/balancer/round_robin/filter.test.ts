import type { Balancer, Host } from "@tsproxy/sdk";
import { balancerFor, TestContext } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import roundRobin from "./filter.ts";

const host = (key: string, weight = 1): Host => ({
  address: { ip: key, port: 1 },
  key,
  hostname: "",
  weight,
  healthy: true,
  activeRequests: 0,
  onResponse: () => {},
  onTimeout: () => {},
  onReset: () => {},
});
const take = (balancer: Balancer, n: number): string[] =>
  Array.from({ length: n }, () => balancer.choose({})?.key ?? "none");
const make = () => new TestContext().setup(roundRobin, {});

describe("round robin", () => {
  it("takes hosts of equal weight in turn", () => {
    const seen = take(balancerFor(make(), [host("a"), host("b"), host("c")]), 9);
    expect(new Set(seen.slice(0, 3))).toEqual(new Set(["a", "b", "c"]));
    expect(seen.slice(3, 6)).toEqual(seen.slice(0, 3));
    expect(seen.slice(6, 9)).toEqual(seen.slice(0, 3));
  });

  it("shares the round with other workers", () => {
    const cx = new TestContext();
    const hosts = [host("a"), host("b"), host("c")];
    const [one, other] = [
      balancerFor(cx.setup(roundRobin, { cluster: "x" }), hosts),
      balancerFor(cx.setup(roundRobin, { cluster: "x" }), hosts),
    ];
    expect([...take(one, 1), ...take(other, 1), ...take(one, 1), ...take(other, 1)]).toEqual([
      "a",
      "b",
      "c",
      "a",
    ]);
  });

  it("goes on with the round when the hosts change", () => {
    const factory = make();
    const before = balancerFor(factory, [host("a"), host("b"), host("c")]);
    const last = take(before, 1)[0]!;
    const after = balancerFor(factory, [host("a"), host("b"), host("c")]);
    const next = { a: "b", b: "c", c: "a" }[last];
    expect(take(after, 1)).toEqual([next]);
  });

  it("gives a turn ahead, weighted or not", () => {
    const equal = balancerFor(make(), [host("a"), host("b"), host("c")]);
    const seen = [equal.peek!({})!.key, ...take(equal, 2)];
    expect(new Set(seen)).toEqual(new Set(["a", "b", "c"]));
    const weighted = balancerFor(make(), [host("a", 3), host("b", 1)]);
    const all = [weighted.peek!({})!.key, ...take(weighted, 399)];
    expect(Math.abs(all.filter((k) => k === "a").length - 300)).toBeLessThanOrEqual(1);
  });

  it("gives hosts turns by weight", () => {
    const seen = take(balancerFor(make(), [host("a", 3), host("b", 1)]), 400);
    expect(Math.abs(seen.filter((k) => k === "a").length - 300)).toBeLessThanOrEqual(1);
  });

  it("treats equal weights above one as no weights", () => {
    const seen = take(balancerFor(make(), [host("a", 5), host("b", 5)]), 4);
    expect(seen[0]).not.toBe(seen[1]);
    expect(seen.slice(0, 2)).toEqual(seen.slice(2));
  });

  it("has no host among none", () => {
    expect(balancerFor(make(), []).choose({})).toBeUndefined();
  });
});

describe("slow start", () => {
  const slow = (config: object = {}) => {
    const cx = new TestContext();
    const policy = cx.setup(roundRobin, {
      slow_start_config: { slow_start_window: 10_000, ...config },
    });
    return { cx, policy };
  };
  const part = (balancer: Balancer, key: string, n: number): number =>
    take(balancer, n).filter((k) => k === key).length / n;

  it("gives a host that has just become healthy a tenth at first, then more by the time that has passed", () => {
    const { cx, policy } = slow();
    cx.clock.advance(100_000);
    const fresh: Host = { ...host("fresh"), healthySince: 100_000 };
    const balancer = balancerFor(policy, [{ ...host("old"), healthySince: 0 }, fresh]);
    expect(part(balancer, "fresh", 1100)).toBeCloseTo(0.1 / 1.1, 2);
    cx.clock.advance(5_000);
    expect(part(balancer, "fresh", 1500)).toBeCloseTo(0.5 / 1.5, 1);
    cx.clock.advance(5_000);
    expect(part(balancer, "fresh", 1000)).toBeCloseTo(0.5, 1);
  });

  it("is bent by aggression, and bounded by the least percent", () => {
    const { cx, policy } = slow({
      aggression: { default_value: 2, runtime_key: "" },
      min_weight_percent: { value: 40 },
    });
    cx.clock.advance(100_000);
    const hosts = [host("old"), { ...host("fresh"), healthySince: 100_000 }];
    const balancer = balancerFor(policy, hosts);
    expect(part(balancer, "fresh", 1400)).toBeCloseTo(0.4 / 1.4, 2);
    cx.clock.advance(2_500);
    // √(1/4)
    expect(part(balancer, "fresh", 1500)).toBeCloseTo(0.5 / 1.5, 1);
  });

  it("costs nothing once every host is past it", () => {
    const { cx, policy } = slow();
    cx.clock.advance(100_000);
    expect(take(balancerFor(policy, [host("a"), host("b")]), 4)).toEqual(["a", "b", "a", "b"]);
  });
});
