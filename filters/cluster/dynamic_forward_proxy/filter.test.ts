import { DnsCacheConfig, type HostNames, type HostSpec } from "@tsproxy/sdk";
import {
  requestHeaders,
  TestContext,
  TestHost,
  TestMade,
  withDefaults,
} from "@tsproxy/sdk/testing";
import { beforeEach, describe, expect, it } from "vitest";
import forward from "./filter.ts";

let cx: TestContext;
/** What the resolver knows; a name that is absent never answers. */
let names: Map<string, readonly string[] | Error>;
let hosts: readonly HostSpec[];
/** How many lists of them there were. */
let lists: number;
/** Seconds that an answer may be kept. */
let ttl: number;

const settled = async () => {
  for (let k = 0; k < 12; k++) await Promise.resolve();
};
const stat = (name: string) => cx.stats.value(`dns_cache.n.${name}`);

beforeEach(() => {
  cx = new TestContext();
  names = new Map();
  hosts = [];
  lists = 0;
  ttl = 30;
  cx.operations.set("dns.resolve", (args) => {
    const answer = names.get((args as { name: string }).name);
    if (answer === undefined) return new Promise(() => {});
    if (answer instanceof Error) throw answer;
    return { addresses: answer.map((ip) => ({ ip, ttl })) };
  });
});

/** The thread that resolves, and a worker. */
function make(config: object = {}, defaultPort = 80) {
  const dns_cache_config = withDefaults(DnsCacheConfig, { name: "n", ...config });
  cx.role = "control";
  const type = cx.setup(forward, { dns_cache_config });
  type.discover!(
    (list) => {
      hosts = list;
      lists++;
    },
    cx,
    new TestMade(),
  );
  cx.role = "worker";
  const made = cx.setup(forward, { dns_cache_config }).provide!({
    stats: cx.stats.scope("cluster.c."),
    at: () => undefined,
    hosts: [],
    made: new TestMade(),
    find: (id) => {
      const spec = hosts.find((host) => host.id === id);
      return spec && new TestHost({ ip: spec.ip, port: spec.port });
    },
    defaultPort,
    sweep: () => {},
  });
  type State = ReadonlyMap<string, unknown>;
  const resolve = (authority: string, state?: State) =>
    (made.names as HostNames).resolve(authority, state, 0);
  const chosen = (authority: string, filterState: State = new Map()) =>
    made.choose({
      head: requestHeaders("GET", "/", "host", authority),
      downstream: { filterState } as never,
    })?.key;
  return { resolve, chosen };
}

describe("a name", () => {
  it("may stand in filter state, with a port or apart from it", async () => {
    for (const name of ["a.test", "b.test"]) names.set(name, ["10.0.0.1"]);
    const { resolve, chosen } = make();
    const state = (host?: unknown, port?: unknown) =>
      new Map([
        ["envoy.upstream.dynamic_host", host],
        ["envoy.upstream.dynamic_port", port],
      ]);
    const cases: [string, ReturnType<typeof state>, string][] = [
      ["a.test:1", state("b.test:2"), "b.test:2"],
      ["a.test:1", state("b.test", 3), "b.test:3"],
      ["a.test:1", state("b.test:2", 3), "b.test:2"],
      ["a.test", state(undefined, 4), "a.test:4"],
      ["a.test:1", state(undefined, 4), "a.test:1"],
      ["a.test", state(undefined, 0), "a.test:80"],
      ["a.test", state(undefined, 70_000), "a.test:80"],
    ];
    for (const [authority, said, id] of cases) {
      expect(await resolve(authority, said), id).toBe("known");
      expect(hosts.map((host) => host.id)).toContain(id);
      expect(chosen(authority, said)).toBe(`10.0.0.1:${id.split(":")[1]}`);
    }
    expect(await resolve("a.test:1", state("[::"))).toMatchObject({ failed: expect.anything() });
    expect(chosen("a.test:1", state("[::"))).toBeUndefined();
  });

  it("becomes a host once it has an address, and then needs no waiting", async () => {
    names.set("a.test", ["10.0.0.1", "10.0.0.2"]);
    const { resolve, chosen } = make();
    expect(chosen("a.test:8080")).toBeUndefined();
    expect(await resolve("a.test:8080")).toBe("known");
    expect(hosts).toMatchObject([{ id: "a.test:8080", hostname: "a.test:8080", ip: "10.0.0.1" }]);
    expect(chosen("a.test:8080")).toBe("10.0.0.1:8080");
    expect(resolve("a.test:8080")).toBe("known");
    expect([stat("host_added"), stat("dns_query_success"), stat("num_hosts")]).toEqual([1, 1, 1]);
  });

  it("waits for the next list where there are many hosts, and all that wait come in one", async () => {
    const { resolve, chosen } = make();
    const authorities = Array.from({ length: 100 }, (_, k) => `h${k}.test:1`);
    for (let k = 0; k < 100; k++) names.set(`h${k}.test`, [`10.0.0.${k}`]);
    const outcomes: unknown[] = [];
    for (const authority of authorities) {
      void Promise.resolve(resolve(authority)).then((outcome) => outcomes.push(outcome));
      await settled();
    }
    const first = hosts.length;
    expect(first).toBeLessThan(50);
    // Each is told of once it is there.
    expect(outcomes).toHaveLength(first);
    expect(chosen(authorities[first]!)).toBeUndefined();
    const before = lists;
    cx.clock.advance(1);
    await settled();
    expect([lists - before, hosts.length]).toEqual([1, 100]);
    expect(outcomes).toEqual(authorities.map(() => "known"));
    expect(chosen(authorities[99]!)).toBe("10.0.0.99:1");
  });

  it("without a port has that of the cluster, and an address is a name as well", async () => {
    names.set("a.test", ["10.0.0.1"]);
    names.set("::1", ["::1"]);
    const { resolve } = make({}, 443);
    expect(await resolve("a.test")).toBe("known");
    expect(await resolve("[::1]:99")).toBe("known");
    expect(hosts.map((host) => [host.id, host.port])).toEqual([
      ["a.test:443", 443],
      ["[::1]:99", 99],
    ]);
  });

  it("that has no address, or cannot be asked for, has failed", async () => {
    names.set("empty.test", []);
    names.set("broken.test", new Error("no server"));
    const { resolve } = make();
    const why = "cares_norecords:Domain_name_not_found";
    expect(await resolve("empty.test")).toEqual({ failed: why });
    expect(await resolve("empty.test")).toEqual({ failed: why });
    expect(await resolve("broken.test")).toMatchObject({ failed: /cares_failure/ as never });
    expect([stat("dns_query_attempt"), stat("dns_query_failure")]).toEqual([2, 1]);
  });

  it.each([
    "a b",
    "http://x",
    "a:65536",
    "a:",
    "a:b",
    "[1.2.3:80",
    "[zz]",
    "::1",
    "me@a.test",
    "a..test",
    `${"a".repeat(64)}.test`,
    `${"a.".repeat(127)}test`,
  ])("that is none (%s) is a host that has failed, as in Envoy", async (authority) => {
    const { resolve } = make();
    const failed = "cares_failure:Misformatted_domain_name";
    expect(await resolve(authority)).toEqual({ failed });
    expect([stat("dns_query_attempt"), stat("dns_query_failure")]).toEqual([1, 1]);
    expect([stat("host_added"), stat("num_hosts")]).toEqual([1, 1]);
  });

  it("that is longer than any name, or empty, has failed at once", () => {
    const { resolve } = make();
    for (const none of ["", "a".repeat(513)]) expect(resolve(none)).toHaveProperty("failed");
    expect(stat("num_hosts")).toBe(0);
  });

  it("is told apart by how it is written, and its port may be 0 or begin with zeros", async () => {
    names.set("a.test", ["10.0.0.1"]);
    const { resolve } = make();
    for (const authority of ["a.test:0", "a.test:0099", "a.test:+99", "a.test"])
      expect(await resolve(authority)).toBe("known");
    expect(hosts.map((host) => [host.id, host.port])).toEqual([
      ["a.test:0", 0],
      ["a.test:0099", 99],
      ["a.test:+99", 99],
      ["a.test:80", 80],
    ]);
  });

  it("whose answer may not be kept is asked for again as soon as the config allows", async () => {
    names.set("a.test", ["10.0.0.1"]);
    ttl = 0;
    const { resolve } = make({ dns_min_refresh_rate: 5_000 });
    await resolve("a.test");
    cx.clock.advance(5_000);
    expect(stat("dns_query_attempt")).toBe(2);
  });

  it("that is an IPv6 address has failed where only IPv4 is asked for", async () => {
    names.set("::1", ["::1"]);
    const { resolve } = make({ dns_lookup_family: "V4_ONLY" });
    const failed = "cares_failure:Misformatted_domain_name";
    expect(await resolve("[::1]:99")).toEqual({ failed });
    expect([stat("dns_query_attempt"), stat("dns_query_failure")]).toEqual([1, 1]);
  });

  it("that nobody answers for has failed when the time for a query is over", async () => {
    const { resolve } = make({ dns_query_timeout: 2_000 });
    const outcome = resolve("silent.test");
    cx.clock.advance(2_000);
    expect(await outcome).toHaveProperty("failed");
    expect(stat("dns_query_timeout")).toBe(1);
  });
});

describe("limits", () => {
  it("are of hosts", async () => {
    names.set("a.test", ["10.0.0.1"]);
    const { resolve } = make({ max_hosts: 1 });
    expect(await resolve("a.test")).toBe("known");
    expect(await resolve("b.test")).toBe("overflow");
    expect(stat("host_overflow")).toBe(1);
  });

  it("are of requests that wait", () => {
    const { resolve } = make({ dns_cache_circuit_breaker: { max_pending_requests: 1 } });
    void resolve("silent.test");
    expect(resolve("c.test")).toBe("pending_overflow");
    expect(stat("dns_rq_pending_overflow")).toBe(1);
  });
});

describe("a host", () => {
  it("moves when its name has other addresses, and keeps its last one when it has none", async () => {
    names.set("a.test", ["10.0.0.1"]);
    const { resolve } = make();
    await resolve("a.test");
    names.set("a.test", ["10.0.0.2"]);
    cx.clock.advance(30_000);
    await settled();
    expect(hosts.map((host) => host.ip)).toEqual(["10.0.0.2"]);
    names.set("a.test", []);
    cx.clock.advance(30_000);
    await settled();
    expect(hosts.map((host) => host.ip)).toEqual(["10.0.0.2"]);
    expect(stat("host_address_changed")).toBe(2);
  });

  it("goes when nobody has asked for it as long as it may live, and stays while somebody does", async () => {
    names.set("a.test", ["10.0.0.1"]);
    const { resolve } = make({ host_ttl: 60_000 });
    await resolve("a.test");
    for (let k = 0; k < 4; k++) {
      cx.clock.advance(30_000);
      await settled();
      expect(resolve("a.test")).toBe("known");
    }
    for (let k = 0; k < 5; k++) {
      cx.clock.advance(30_000);
      await settled();
    }
    expect(hosts).toEqual([]);
    expect([stat("host_removed"), stat("num_hosts")]).toEqual([1, 0]);
  });
});
