import { beforeEach, describe, expect, it } from "vitest";
import { FLAG } from "./health-flags.ts";
import { type HostSurroundings, type Load, UpstreamHost } from "./host.ts";
import { spec } from "./test-clusters.ts";

describe("a host counts as begun, for slow start,", () => {
  let now: number;
  beforeEach(() => {
    now = 1_000;
  });
  const make = (flags: number, healthStatus = "UNKNOWN", load: Load = { active: 0 }) => {
    const around: Partial<HostSurroundings> = { now: () => now };
    const told = spec("10.0.0.1", { healthStatus });
    return new UpstreamHost(told, load, around as HostSurroundings, flags);
  };
  const at = (ms: number, host: UpstreamHost, flags: number): number | undefined => {
    now = ms;
    host.setFlags(flags);
    return host.healthySince;
  };

  it("when it comes, and not again when outlier detection lets it back", () => {
    const host = make(0);
    expect(host.healthySince).toBe(1_000);
    expect(at(2_000, host, FLAG.FAILED_OUTLIER_CHECK)).toBe(1_000);
    expect(at(3_000, host, 0)).toBe(1_000);
  });

  it("when active checks find it healthy, and each time that they do again", () => {
    const host = make(FLAG.FAILED_ACTIVE_HC);
    expect(host.healthySince).toBeUndefined();
    expect(at(2_000, host, 0)).toBe(2_000);
    expect(at(3_000, host, FLAG.FAILED_ACTIVE_HC | FLAG.FAILED_OUTLIER_CHECK)).toBe(2_000);
    expect(at(4_000, host, FLAG.FAILED_OUTLIER_CHECK)).toBe(4_000);
    expect(at(5_000, host, 0)).toBe(4_000);
  });

  it("when discovery first calls it healthy, and no later", () => {
    const host = make(0, "UNHEALTHY");
    for (const [ms, healthStatus] of [
      [2_000, "HEALTHY"],
      [3_000, "UNHEALTHY"],
      [4_000, "HEALTHY"],
    ] as const) {
      now = ms;
      host.update(spec("10.0.0.1", { healthStatus }));
    }
    expect(host.healthySince).toBe(2_000);
  });

  it("when it did in the generation before", () => {
    const { load } = make(0);
    now = 2_000;
    expect(make(0, "UNKNOWN", load).healthySince).toBe(1_000);
  });
});
