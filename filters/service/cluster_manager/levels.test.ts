import type {
  Balancer,
  BalancerPolicy,
  Host,
  HostSet,
  HostSpec,
  LevelPolicy,
  LocalityPolicy,
} from "@tsproxy/sdk";
import { Runtime } from "@tsproxy/sdk";
import { TestStats } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import { type Balancing, type BalancingOptions, Spread } from "./balancing.ts";
import { FLAG } from "./health-flags.ts";
import { UpstreamHost } from "./host.ts";
import { localClusterOf } from "./levels.ts";
import { type LocalCluster, localityKey, NOWHERE } from "./localities.ts";
import { levelLoads, loadsWithout } from "./priority-loads.ts";
import { HostCells } from "./stats.ts";

const OPTIONS: BalancingOptions = {
  panicThreshold: 50,
  overprovisioningFactor: 140,
  weightedPriorityHealth: false,
};

function makeHost(spec: Partial<HostSpec>, flags = 0): UpstreamHost {
  return new UpstreamHost(
    { ip: "10.0.0.1", port: 80, hostname: "", weight: 1, priority: 0, healthStatus: "", ...spec },
    { active: 0 },
    {
      pools: { make: () => [], drop: () => {} },
      now: () => 0,
      cellsOf: () => new HostCells(new TestStats(), "c", ""),
    },
    flags,
  );
}

/** `healthy`, `degraded` and `unhealthy` hosts of a priority. */
function level(
  priority: number,
  healthy: number,
  degraded: number,
  unhealthy: number,
  more: Partial<HostSpec> = {},
): UpstreamHost[] {
  const make = (healthStatus: string, k: number): UpstreamHost =>
    makeHost({ ip: `10.${priority}.0.${k}`, priority, healthStatus, ...more });
  return [
    ...Array.from({ length: healthy }, (_, k) => make("HEALTHY", k)),
    ...Array.from({ length: degraded }, (_, k) => make("DEGRADED", 100 + k)),
    ...Array.from({ length: unhealthy }, (_, k) => make("UNHEALTHY", 200 + k)),
  ];
}

const slotOf = (value: BalancerPolicy) => ({
  ref: { name: "b", package: "balancer/b", config: {} },
  current: { value, number: 1, acquire: () => {}, release: () => {} },
});

interface World {
  readonly options?: Partial<BalancingOptions>;
  readonly runtime?: Readonly<Record<string, number>>;
  readonly ownLocality?: string;
  readonly local?: LocalCluster;
}
function spreadOf(policy: BalancerPolicy, hosts: readonly UpstreamHost[], world: World = {}) {
  const stats = new TestStats();
  const runtime = new Runtime();
  runtime.replace(Object.entries(world.runtime ?? {}));
  const balancing: Balancing = {
    stats,
    runtime,
    panics: stats.counter("lb_healthy_panic"),
    options: { ...OPTIONS, ...world.options },
    eager: false,
    ownLocality: world.ownLocality ?? NOWHERE,
    allHosts: () => hosts,
    local: () => world.local,
  };
  const slot = slotOf(policy);
  const spread = new Spread(balancing, "", slot);
  spread.update(hosts);
  return { spread, stats, slot };
}

/** Answers each set's first host, so that a choice tells the set. */
const first: LevelPolicy = { create: (set) => ({ choose: () => set.hosts[0] }) };

function chosen(spread: Spread, n: number, context = {}): Record<string, number> {
  const seen: Record<string, number> = {};
  for (let k = 0; k < n; k++) {
    const ip = spread.choose(context)?.address.ip ?? "none";
    seen[ip] = (seen[ip] ?? 0) + 1;
  }
  return seen;
}

/** `healthy 70/30 degraded 0/0 panic false,false` */
function loads(hosts: UpstreamHost[], options: Partial<BalancingOptions> = {}): string[] {
  const of = (priority: number) => hosts.filter((host) => host.spec.priority === priority);
  const count = Math.max(0, ...hosts.map((host) => host.spec.priority)) + 1;
  const levels = Array.from({ length: count }, (_, k) => ({
    total: of(k).length,
    hosts: of(k).length,
    healthy: of(k).filter((host) => host.health === "healthy").length,
    degraded: of(k).filter((host) => host.health === "degraded").length,
  }));
  const all = levelLoads(levels, { ...OPTIONS, ...options });
  const words: string[] = [];
  for (const which of ["healthy", "degraded"] as const) {
    for (const [k, load] of all[which].entries()) {
      if (load > 0 && !(levels[k]!.hosts === 0))
        words.push(all.panic[k] ? `${k}|all ${load}% panic` : `${k}|${which} ${load}%`);
    }
  }
  return words;
}

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
    expect(loads([...level(0, 20, 0, 80), ...level(1, 25, 0, 75)], { panicThreshold: 0 })).toEqual([
      "0|healthy 45%",
      "1|healthy 55%",
    ]);
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
    expect(loads(level(0, 0, 0, 3), { panicThreshold: 0 })).toEqual(["0|healthy 100%"]);
    expect(loads([])).toEqual([]);
  });

  it("pass over a priority that has no hosts", () => {
    expect(loads(level(2, 3, 0, 0))).toEqual(["2|healthy 100%"]);
  });

  it("follow the overprovisioning factor", () => {
    expect(
      loads([...level(0, 5, 0, 5), ...level(1, 10, 0, 0)], { overprovisioningFactor: 100 }),
    ).toEqual(["0|healthy 50%", "1|healthy 50%"]);
  });

  it("of a retry leave out the levels tried before, until all have been", () => {
    const half = { total: 2, hosts: 2, healthy: 1, degraded: 0 };
    const whole = levelLoads([half, half, half], OPTIONS);
    expect(loadsWithout(whole, new Set([0])).healthy).toEqual([0, 70, 30]);
    expect(loadsWithout(whole, new Set([0, 1])).healthy).toEqual([0, 0, 100]);
    expect(loadsWithout(whole, new Set([0, 1, 2])).healthy).toEqual(whole.healthy);
  });
});

describe("choosing", () => {
  it("follows the loads", () => {
    const { spread } = spreadOf(first, [...level(0, 5, 0, 5), ...level(1, 10, 0, 0)]);
    const seen = chosen(spread, 4_000);
    expect(seen["10.0.0.0"]! / 4_000).toBeCloseTo(0.7, 1);
    expect(seen["10.1.0.0"]! / 4_000).toBeCloseTo(0.3, 1);
  });

  it("takes the same level for the same hash where the policy hashes", () => {
    const hosts = [...level(0, 5, 0, 5), ...level(1, 10, 0, 0)];
    const { spread } = spreadOf({ ...first, hashing: true }, hosts);
    expect(chosen(spread, 20, { hash: 1_234_567_869n })).toEqual({ "10.0.0.0": 20 });
    expect(chosen(spread, 20, { hash: 1_234_567_870n })).toEqual({ "10.1.0.0": 20 });
  });

  it("gives a host that was foreseen to the next request, and foresees as many as are healthy", () => {
    const hosts = level(0, 2, 0, 1);
    let n = 0;
    const choose = () => hosts[n++ % 3];
    const { spread } = spreadOf({ create: () => ({ choose, peek: choose }) }, hosts);
    expect([spread.peek({}), spread.peek({}), spread.peek({})]).toEqual([
      hosts[0],
      hosts[1],
      undefined,
    ]);
    const retry = { excludedPriorities: new Set([1]) };
    expect([spread.choose({}), spread.choose(retry), spread.choose({})]).toEqual([
      hosts[0],
      hosts[2],
      hosts[1],
    ]);
    expect(spread.peek({})).toBe(hosts[0]);
    spread.update(hosts);
    expect(spread.choose({})).toBe(hosts[1]);
    expect(spreadOf(first, hosts).spread.peek({})).toBeUndefined();
    const hashing = spreadOf({ create: () => ({ choose, peek: choose }), hashing: true }, hosts);
    expect(hashing.spread.peek({})).toBeUndefined();
  });

  it("takes the hash that the policy itself makes, whatever the route's is", () => {
    const hosts = [...level(0, 5, 0, 5), ...level(1, 10, 0, 0)];
    const seen: unknown[] = [];
    const policy: LevelPolicy = {
      create: (set) => ({
        choose: (context, attempt) => {
          seen.push([context.hash, attempt]);
          return set.hosts[0];
        },
      }),
      hashing: true,
      hash: () => 1_234_567_870n,
    };
    const { spread } = spreadOf(policy, hosts);
    const context = { hash: 1_234_567_869n, hostSelectionRetries: 1, rejects: () => true };
    expect(chosen(spread, 1, context)).toEqual({ "10.1.0.0": 1 });
    expect(seen).toEqual([
      [1_234_567_870n, 0],
      [1_234_567_870n, 1],
    ]);
  });

  it("counts choices made in panic, and those among no hosts at all", () => {
    const { spread, stats } = spreadOf(first, level(0, 0, 0, 2));
    chosen(spread, 3);
    expect(stats.value("lb_healthy_panic")).toBe(3);
    const none = spreadOf(first, []);
    expect(chosen(none.spread, 2)).toEqual({ none: 2 });
    expect(none.stats.value("lb_healthy_panic")).toBe(2);
    const calm = spreadOf(first, [], { options: { panicThreshold: 0 } });
    expect(chosen(calm.spread, 2)).toEqual({ none: 2 });
    expect(calm.stats.value("lb_healthy_panic")).toBe(0);
  });

  it("panics where runtime says so, whatever the config", () => {
    const runtime = { "upstream.healthy_panic_threshold": 10 };
    const { spread, stats } = spreadOf(first, level(0, 1, 0, 4), { runtime });
    chosen(spread, 3);
    expect(stats.value("lb_healthy_panic")).toBe(0);
    const options = { panicThreshold: 0 };
    const sick = spreadOf(first, level(0, 0, 0, 4), { runtime, options });
    expect(chosen(sick.spread, 3).none).toBeUndefined();
    expect(sick.stats.value("lb_healthy_panic")).toBe(3);
  });

  it("gives degraded hosts what the healthy ones of all levels cannot take", () => {
    const seen = chosen(spreadOf(first, level(0, 5, 5, 0)).spread, 4_000);
    expect(seen["10.0.0.0"]! / 4_000).toBeCloseTo(0.7, 1);
    expect(seen["10.0.0.100"]! / 4_000).toBeCloseTo(0.3, 1);
  });

  it("leaves hosts that nobody has checked yet out of the numbers", () => {
    const pending = FLAG.FAILED_ACTIVE_HC | FLAG.PENDING_ACTIVE_HC;
    const fresh = Array.from({ length: 8 }, (_, k) => makeHost({ ip: `10.9.9.${k}` }, pending));
    const { spread, stats } = spreadOf(first, [...level(0, 2, 0, 0), ...fresh]);
    expect(chosen(spread, 10)).toEqual({ "10.0.0.0": 10 });
    expect(stats.value("lb_healthy_panic")).toBe(0);
  });

  it("weighs health by the weights of hosts where the config says so", () => {
    const hosts = [...level(0, 1, 0, 0, { weight: 9 }), ...level(0, 0, 0, 1), ...level(1, 1, 0, 0)];
    const weighted = { options: { weightedPriorityHealth: true } };
    expect(chosen(spreadOf(first, hosts, weighted).spread, 100)["10.1.0.0"]).toBeUndefined();
    expect(chosen(spreadOf(first, hosts).spread, 1000)["10.1.0.0"]).toBeGreaterThan(200);
  });

  it("asks again when a retry turns a host down, as often as it says", () => {
    const attempts: number[] = [];
    const byAttempt: LevelPolicy = {
      create: ({ hosts }) => ({
        choose: (_context, attempt = 0) => {
          attempts.push(attempt);
          return hosts[attempt % hosts.length];
        },
      }),
    };
    const { spread } = spreadOf(byAttempt, level(0, 3, 0, 0));
    const rejects = (host: Host): boolean => host.key === "10.0.0.0:80";
    expect(spread.choose({ rejects, hostSelectionRetries: 3 })!.key).toBe("10.0.0.1:80");
    expect(spread.choose({ rejects: () => true, hostSelectionRetries: 2 })!.key).toBe(
      "10.0.0.2:80",
    );
    expect(attempts).toEqual([0, 1, 0, 1, 2]);
  });

  it("does not believe a balancer that answers with a host of its own making", () => {
    const fake = { key: "fake" } as unknown as Host;
    const { spread } = spreadOf({ create: () => ({ choose: () => fake }) }, level(0, 2, 0, 0));
    expect(spread.choose({})).toBeUndefined();
  });

  it("uses a balancer's new code from the next choice on, and gives the old one back", () => {
    const { spread, slot } = spreadOf(first, level(0, 2, 0, 0));
    let released = 0;
    slot.current.release = () => void released++;
    expect(spread.choose({})!.address.ip).toBe("10.0.0.0");
    const last: LevelPolicy = { create: ({ hosts }) => ({ choose: () => hosts.at(-1) }) };
    slot.current = { ...slot.current, value: last };
    expect(spread.choose({})!.address.ip).toBe("10.0.0.1");
    expect(released).toBe(1);
  });
});

describe("localities", () => {
  const zone = (name: string) => ({ locality: { region: "r", zone: name } });
  const key = (name: string) => localityKey({ region: "r", zone: name });
  const share = (seen: Record<string, number>, prefix: string): number => {
    const of = (ip: string): boolean => ip.startsWith(prefix);
    const all = Object.entries(seen);
    const sum = (list: [string, number][]) => list.reduce((n, [, count]) => n + count, 0);
    return sum(all.filter(([ip]) => of(ip))) / sum(all);
  };
  const some = (name: string, healthy: number, unhealthy: number, more: Partial<HostSpec> = {}) =>
    level(0, healthy, 0, unhealthy, { ...zone(name), ...more }).map((host, k) =>
      makeHost({ ...host.spec, ip: `${name}.${k}` }),
    );
  const weighted: LevelPolicy = { ...first, localities: { type: "weighted" } };

  it("get requests by weight, cut by the hosts that they have lost beyond the spare", () => {
    const full = spreadOf(weighted, [
      ...some("a", 2, 0, { localityWeight: 3 }),
      ...some("b", 2, 0, { localityWeight: 1 }),
    ]);
    expect(share(chosen(full.spread, 400), "a")).toBeCloseTo(0.75, 1);
    // b keeps half of its hosts: 0.7 of its weight.
    const cut = spreadOf(weighted, [
      ...some("a", 4, 0, { localityWeight: 1 }),
      ...some("b", 2, 2, { localityWeight: 1 }),
    ]);
    expect(share(chosen(cut.spread, 1700), "b")).toBeCloseTo(0.7 / 1.7, 1);
  });

  it("without any weight do not count", () => {
    const { spread } = spreadOf(weighted, [...some("a", 1, 0), ...some("b", 1, 0)]);
    expect(chosen(spread, 10)).toEqual({ "a.0": 10 });
  });

  it("are in the shares of a policy that hashes", () => {
    const sets: HostSet[] = [];
    const policy: LevelPolicy = {
      hashing: true,
      localities: { type: "weighted" },
      create: (set) => {
        sets.push(set);
        return { choose: () => set.hosts[0] } satisfies Balancer;
      },
    };
    const hosts = [
      ...some("a", 2, 0, { localityWeight: 3 }),
      ...some("b", 1, 0, { localityWeight: 1 }),
      ...some("c", 1, 0),
    ];
    spreadOf(policy, hosts).spread.choose({});
    expect(sets[0]!.hosts.map((host) => host.key)).toEqual(["a.0:80", "a.1:80", "b.0:80"]);
    expect(sets[0]!.shares).toEqual([0.375, 0.375, 0.25]);
  });

  const zones: LevelPolicy = {
    ...first,
    localities: {
      type: "zone_aware",
      routingEnabled: 100,
      minClusterSize: 2,
      failTrafficOnPanic: false,
      byWeight: false,
    },
  };
  const zonesWith = (more: object): LevelPolicy => ({
    ...zones,
    localities: { ...zones.localities!, ...more } as LocalityPolicy,
  });
  const proxies = (a: number, b: number): LocalCluster =>
    localClusterOf([...some("a", a, 0), ...some("b", b, 0)], key("a"), false);

  it("do not count zones where runtime says so", () => {
    const hosts = [...some("a", 3, 0), ...some("b", 3, 0)];
    const world = { ownLocality: key("a"), local: proxies(1, 1) };
    const off = spreadOf(zones, hosts, {
      ...world,
      runtime: { "upstream.zone_routing.enabled": 0 },
    });
    off.spread.choose({});
    expect(off.stats.value("lb_zone_routing_all_directly")).toBe(0);
    const small = { "upstream.zone_routing.min_cluster_size": 7 };
    const least = spreadOf(zones, hosts, { ...world, runtime: small });
    least.spread.choose({});
    expect(least.stats.value("lb_zone_cluster_too_small")).toBe(1);
  });

  it("keep requests in their zone when it can serve its part", () => {
    const hosts = [...some("a", 3, 0), ...some("b", 3, 0)];
    const { spread, stats } = spreadOf(zones, hosts, {
      ownLocality: key("a"),
      local: proxies(1, 1),
    });
    expect(share(chosen(spread, 50), "a")).toBe(1);
    expect(stats.value("lb_zone_routing_all_directly")).toBe(50);
  });

  it("send to other zones what their own cannot serve", () => {
    // Half of the proxies are here, and a quarter of the hosts: half of the requests stay.
    const hosts = [...some("a", 1, 0), ...some("b", 3, 0)];
    const { spread, stats } = spreadOf(zones, hosts, {
      ownLocality: key("a"),
      local: proxies(2, 2),
    });
    expect(share(chosen(spread, 2000), "a")).toBeCloseTo(0.5, 1);
    expect(stats.value("lb_zone_routing_sampled") + stats.value("lb_zone_routing_cross_zone")).toBe(
      2000,
    );
  });

  it("keep all requests in a zone that has hosts enough, if the policy forces them to", () => {
    const hosts = [...some("a", 2, 0), ...some("b", 6, 0)];
    const world = { ownLocality: key("a"), local: proxies(3, 1) };
    const stays = (more: object, runtime?: Readonly<Record<string, number>>): boolean => {
      const policy = zonesWith(more);
      const { spread } = spreadOf(policy, hosts, { ...world, ...(runtime && { runtime }) });
      return share(chosen(spread, 40), "a") === 1;
    };
    expect(stays({ forceLocalZoneMinSize: 2 })).toBe(true);
    expect(stays({ forceLocalZoneMinSize: 3 })).toBe(false);
    expect(stays({})).toBe(false);
    const least = "upstream.zone_routing.force_local_zone.min_size";
    expect(stays({}, { [least]: 2 })).toBe(true);
    expect(stays({ forceLocalZoneMinSize: 2 }, { [least]: 3 })).toBe(false);
  });

  it("count zones by the weights of their hosts, if the policy says so", () => {
    const hosts = [...some("a", 1, 0, { weight: 3 }), ...some("b", 3, 0)];
    const world = { ownLocality: key("a"), local: proxies(2, 2) };
    const byWeight = spreadOf(zonesWith({ byWeight: true }), hosts, world);
    expect(share(chosen(byWeight.spread, 40), "a")).toBe(1);
    expect(byWeight.stats.value("lb_zone_routing_all_directly")).toBe(40);
  });

  it("do not count in small clusters, nor without a host of this zone in the local cluster", () => {
    const small = spreadOf(zones, [...some("a", 1, 0)], {
      ownLocality: key("a"),
      local: proxies(1, 1),
    });
    expect(chosen(small.spread, 2)).toEqual({ "a.0": 2 });
    const strange = spreadOf(zones, [...some("a", 2, 0), ...some("b", 2, 0)], {
      ownLocality: key("c"),
      local: { ...proxies(1, 1), hasOwn: false },
    });
    chosen(strange.spread, 2);
    expect(strange.stats.value("lb_local_cluster_not_ok")).toBe(1);
  });
});
