import type { Balancer, Host } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
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
    const seen = take(make()([host("a"), host("b"), host("c")]), 9);
    expect(new Set(seen.slice(0, 3))).toEqual(new Set(["a", "b", "c"]));
    expect(seen.slice(3, 6)).toEqual(seen.slice(0, 3));
    expect(seen.slice(6, 9)).toEqual(seen.slice(0, 3));
  });

  it("shares the round with other workers", () => {
    const cx = new TestContext();
    const hosts = [host("a"), host("b"), host("c")];
    const [one, other] = [
      cx.setup(roundRobin, { cluster: "x" })(hosts),
      cx.setup(roundRobin, { cluster: "x" })(hosts),
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
    const before = factory([host("a"), host("b"), host("c")]);
    const last = take(before, 1)[0]!;
    const after = factory([host("a"), host("b"), host("c")], before);
    const next = { a: "b", b: "c", c: "a" }[last];
    expect(take(after, 1)).toEqual([next]);
  });

  it("gives hosts turns by weight", () => {
    const seen = take(make()([host("a", 3), host("b", 1)]), 400);
    expect(Math.abs(seen.filter((k) => k === "a").length - 300)).toBeLessThanOrEqual(1);
  });

  it("treats equal weights above one as no weights", () => {
    const seen = take(make()([host("a", 5), host("b", 5)]), 4);
    expect(seen[0]).not.toBe(seen[1]);
    expect(seen.slice(0, 2)).toEqual(seen.slice(2));
  });

  it("has no host among none", () => {
    expect(make()([]).choose({})).toBeUndefined();
  });
});
