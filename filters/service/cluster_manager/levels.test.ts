import type { Balancer, BalancerFactory, Host, HostSpec } from "@tsproxy/sdk";
import { TestStats } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import { UpstreamHost } from "./host.ts";
import { Levels, sharesOf } from "./levels.ts";
import { HostCells } from "./stats.ts";

const OPTIONS = { panicThreshold: 50, overprovisioningFactor: 140 };

/** `healthy`, `degraded` and `unhealthy` hosts of a priority. */
function level(
  priority: number,
  healthy: number,
  degraded: number,
  unhealthy: number,
): UpstreamHost[] {
  const make = (healthStatus: string, k: number): UpstreamHost => {
    const spec: HostSpec = {
      ip: `10.${priority}.0.${k}`,
      port: 80,
      hostname: "",
      weight: 1,
      priority,
      healthStatus,
    };
    return new UpstreamHost(
      spec,
      new HostCells(new TestStats(), "c", ""),
      { active: 0 },
      () => undefined as never,
    );
  };
  return [
    ...Array.from({ length: healthy }, (_, k) => make("HEALTHY", k)),
    ...Array.from({ length: degraded }, (_, k) => make("DEGRADED", 100 + k)),
    ...Array.from({ length: unhealthy }, (_, k) => make("UNHEALTHY", 200 + k)),
  ];
}
const loads = (hosts: UpstreamHost[], options = OPTIONS): string[] =>
  sharesOf(hosts, options).map((s) => `${s.key} ${s.load}%${s.panic ? " panic" : ""}`);

describe("loads of priority levels", () => {
  it("give the first level everything while 72 % of it are healthy", () => {
    expect(loads([...level(0, 72, 0, 28), ...level(1, 10, 0, 0)])).toEqual(["0|healthy 100%"]);
    expect(loads([...level(0, 71, 0, 29), ...level(1, 10, 0, 0)])).toEqual([
      "0|healthy 99%",
      "1|healthy 1%",
    ]);
  });

  it("spill over as the first level loses hosts", () => {
    expect(loads([...level(0, 5, 0, 5), ...level(1, 10, 0, 0)])).toEqual([
      "0|healthy 70%",
      "1|healthy 30%",
    ]);
    expect(loads([...level(0, 0, 0, 10), ...level(1, 10, 0, 0)])).toEqual(["1|healthy 100%"]);
  });

  it("are scaled up when all levels together fall short", () => {
    // 28 % and 35 % of the load can be served; shares are 28/63 and 35/63, the rounding goes to the first.
    expect(
      loads([...level(0, 20, 0, 80), ...level(1, 25, 0, 75)], { ...OPTIONS, panicThreshold: 0 }),
    ).toEqual(["0|healthy 45%", "1|healthy 55%"]);
  });

  it("use degraded hosts for what the healthy cannot take", () => {
    expect(loads(level(0, 5, 5, 0))).toEqual(["0|healthy 70%", "0|degraded 30%"]);
    expect(loads(level(0, 0, 3, 0))).toEqual(["0|degraded 100%"]);
  });

  it("prefer healthy hosts of a later level to degraded ones of the first", () => {
    expect(loads([...level(0, 5, 5, 0), ...level(1, 5, 0, 0)])).toEqual([
      "0|healthy 70%",
      "1|healthy 30%",
    ]);
  });

  it("go to all hosts of a level in panic", () => {
    expect(loads(level(0, 1, 0, 3))).toEqual(["0|all 100% panic"]);
    expect(loads(level(0, 0, 0, 3))).toEqual(["0|all 100% panic"]);
  });

  it("follow the numbers of hosts when every level is in panic", () => {
    expect(loads([...level(0, 0, 0, 1), ...level(1, 0, 0, 2)])).toEqual([
      "0|all 34% panic",
      "1|all 66% panic",
    ]);
  });

  it("never panic while the levels together can serve everything", () => {
    expect(loads([...level(0, 1, 0, 9), ...level(1, 10, 0, 0)])).toEqual([
      "0|healthy 14%",
      "1|healthy 86%",
    ]);
  });

  it("are nobody's when panic is off and nobody is healthy", () => {
    expect(loads(level(0, 0, 0, 3), { ...OPTIONS, panicThreshold: 0 })).toEqual([]);
    expect(loads([])).toEqual([]);
  });

  it("pass over a priority that has no hosts", () => {
    expect(loads(level(2, 3, 0, 0))).toEqual(["2|healthy 100%"]);
  });

  it("follow the overprovisioning factor", () => {
    expect(
      loads([...level(0, 5, 0, 5), ...level(1, 10, 0, 0)], {
        ...OPTIONS,
        overprovisioningFactor: 100,
      }),
    ).toEqual(["0|healthy 50%", "1|healthy 50%"]);
  });
});

describe("choosing", () => {
  const first: BalancerFactory = (hosts) => ({ choose: () => hosts[0] });
  const slotOf = (value: BalancerFactory) => ({
    ref: { name: "b", package: "balancer/b", config: {} },
    current: { value, number: 1, acquire: () => {}, release: () => {} },
  });
  const chosen = (levels: Levels, n: number): Record<string, number> => {
    const seen: Record<string, number> = {};
    for (let k = 0; k < n; k++) {
      const ip = levels.choose({})?.address.ip ?? "none";
      seen[ip] = (seen[ip] ?? 0) + 1;
    }
    return seen;
  };

  it("follows the loads", () => {
    const levels = new Levels(slotOf(first), OPTIONS, new TestStats().counter("panics"));
    levels.update([...level(0, 5, 0, 5), ...level(1, 10, 0, 0)]);
    const seen = chosen(levels, 4_000);
    expect(seen["10.0.0.0"]! / 4_000).toBeCloseTo(0.7, 1);
    expect(seen["10.1.0.0"]! / 4_000).toBeCloseTo(0.3, 1);
  });

  it("takes the same level for the same hash", () => {
    const levels = new Levels(slotOf(first), OPTIONS, new TestStats().counter("panics"));
    levels.update([...level(0, 5, 0, 5), ...level(1, 10, 0, 0)]);
    const ips = Array.from(
      { length: 20 },
      () => levels.choose({ hash: 1_234_567_885n })!.address.ip,
    );
    expect(new Set(ips)).toEqual(new Set(["10.1.0.0"]));
  });

  it("counts choices made in panic", () => {
    const stats = new TestStats();
    const levels = new Levels(slotOf(first), OPTIONS, stats.counter("lb_healthy_panic"));
    levels.update(level(0, 0, 0, 2));
    chosen(levels, 3);
    expect(stats.value("lb_healthy_panic")).toBe(3);
  });

  it("hands a balancer the one it replaces, level by level", () => {
    const before: (Balancer | undefined)[] = [];
    const made: Balancer[] = [];
    const factory: BalancerFactory = (hosts, previous) => {
      before.push(previous);
      const balancer: Balancer = { choose: () => hosts[0] };
      made.push(balancer);
      return balancer;
    };
    const levels = new Levels(slotOf(factory), OPTIONS, new TestStats().counter("panics"));
    levels.update([...level(0, 5, 0, 5), ...level(1, 10, 0, 0)]);
    levels.update([...level(0, 5, 0, 5), ...level(1, 9, 0, 0)]);
    expect(before).toEqual([undefined, undefined, made[0], made[1]]);
  });

  it("does not believe a balancer that answers with a host of its own making", () => {
    const fake = { key: "fake" } as unknown as Host;
    const levels = new Levels(
      slotOf(() => ({ choose: () => fake })),
      OPTIONS,
      new TestStats().counter("panics"),
    );
    levels.update(level(0, 2, 0, 0));
    expect(levels.choose({})).toBeUndefined();
  });

  it("uses a balancer's new code from the next choice on, and gives the old one back", () => {
    const slot = slotOf(first);
    let released = 0;
    slot.current = { ...slot.current, release: () => void released++ };
    const levels = new Levels(slot, OPTIONS, new TestStats().counter("panics"));
    levels.update(level(0, 2, 0, 0));
    expect(levels.choose({})!.address.ip).toBe("10.0.0.0");
    slot.current = { ...slot.current, value: (hosts) => ({ choose: () => hosts.at(-1) }) };
    expect(levels.choose({})!.address.ip).toBe("10.0.0.1");
    expect(released).toBe(1);
  });
});
