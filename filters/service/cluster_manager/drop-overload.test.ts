import { beforeEach, describe, expect, it } from "vitest";
import { cluster, cx, listedCluster, spec, start, useContext } from "./test-clusters.ts";

const LIMIT = "load_balancing_policy.drop_overload_limit";
const drop_overloads = [
  { category: "shed", drop_percentage: { numerator: 80, denominator: "HUNDRED" } },
];
const shedding = listedCluster("c", [spec("10.0.0.1")], {
  load_assignment: { policy: { drop_overloads } },
});

beforeEach(() => useContext());

describe("drop_overloads", () => {
  it("has the limit that runtime says now, also if that came after the clusters were set up", () => {
    const c = cluster(start(shedding));
    expect(c.dropOverload).toBe(0.8);
    cx.runtime.replace([[LIMIT, 30]]);
    expect(c.dropOverload).toBe(0.3);
    cx.runtime.replace([[LIMIT, 90]]);
    expect(c.dropOverload).toBe(0.8);
  });

  it("is refused with a limit above 100 when the config is checked, and only then", () => {
    cx.runtime.replace([[LIMIT, 101]]);
    expect(cluster(start(shedding)).dropOverload).toBe(0.8);
    cx.role = "canary";
    expect(() => start(shedding)).toThrow(`${LIMIT}, which is 101; the valid range is 0 to 100`);
    expect(() => start(listedCluster("d", [spec("10.0.0.1")]))).not.toThrow();
  });
});
