import type { HostSpec } from "@tsproxy/sdk";
import { TestContext, TestMade } from "@tsproxy/sdk/testing";
import { beforeEach, describe, expect, it } from "vitest";
import strictDns from "./filter.ts";

type Answer = { ip: string; ttl: number }[] | Error;

let cx: TestContext;
/** What the resolver knows; a name that is absent never answers. */
let names: Map<string, Answer>;
let asked: { name: string; family: string }[];
let lists: (readonly HostSpec[])[];
/** How many changes each list stands for. */
let changes: (number | undefined)[];

const settled = async () => {
  for (let k = 0; k < 8; k++) await Promise.resolve();
};
const addresses = (...ips: string[]): Answer => ips.map((ip) => ({ ip, ttl: 0 }));
const endpoint = (address: string, port_value = 80, more: object = {}) => ({
  endpoint: { address: { socket_address: { address, port_value } }, ...more },
});
const latest = () => lists.at(-1)?.map((h) => `${h.ip}:${h.port}`);
const stat = (name: string) => cx.stats.value(`cluster.c.update_${name}`);

function discover(endpoints: object[], config: object = {}) {
  const cluster = cx.setup(strictDns, {
    name: "c",
    load_assignment: { cluster_name: "c", endpoints: [{ lb_endpoints: endpoints }] },
    ...config,
  });
  expect(cluster.initialHosts).toEqual([]);
  return cluster.discover!(
    (hosts, n) => {
      lists.push(hosts);
      changes.push(n);
    },
    cx,
    new TestMade(),
  );
}

beforeEach(() => {
  cx = new TestContext();
  cx.role = "control";
  names = new Map();
  asked = [];
  lists = [];
  changes = [];
  cx.operations.set("dns.resolve", (args) => {
    const query = args as { name: string; family: string };
    asked.push(query);
    const answer = names.get(query.name);
    if (answer === undefined) return new Promise(() => {});
    if (answer instanceof Error) throw answer;
    return { addresses: answer };
  });
});

describe("strict DNS", () => {
  it("counts what is asked of DNS as Envoy's resolver does", async () => {
    const dns = (name: string) => cx.stats.value(`dns.cares.${name}`);
    names.set("one.test", addresses("10.0.0.1"));
    names.set("bad.test", new Error("refused"));
    discover([endpoint("one.test"), endpoint("bad.test"), endpoint("slow.test")]);
    await settled();
    // AUTO asks for IPv6 first, and for IPv4 if that has no address.
    expect(["resolve_total", "not_found", "get_addr_failure"].map(dns)).toEqual([4, 1, 2]);
    expect(dns("pending_resolutions")).toBe(1);
  });

  it("counts an address in the place of a name as a name that is answered at once", () => {
    discover([endpoint("10.0.0.9")]);
    expect([latest(), asked.length]).toEqual([["10.0.0.9:80"], 0]);
    expect([stat("attempt"), stat("success"), stat("no_rebuild")]).toEqual([1, 1, 0]);
    cx.clock.advance(5_000);
    expect([stat("attempt"), stat("success"), stat("no_rebuild")]).toEqual([2, 2, 1]);
    expect(lists).toHaveLength(1);
  });

  it("makes a host of every address, named after what was asked for", async () => {
    names.set("api.test", addresses("10.0.0.1", "10.0.0.2"));
    discover([{ ...endpoint("api.test", 8080), load_balancing_weight: 3 }]);
    await settled();
    expect(lists).toHaveLength(1);
    expect(lists[0]).toMatchObject([
      { ip: "10.0.0.1", port: 8080, hostname: "api.test", weight: 3 },
      { ip: "10.0.0.2", port: 8080, hostname: "api.test", weight: 3 },
    ]);
  });

  it("gives hosts the endpoint's metadata, and empty metadata where it has none", async () => {
    names.set("api.test", addresses("10.0.0.1"));
    const metadata = { filter_metadata: { "envoy.lb": { v: "1" } } };
    discover([endpoint("api.test"), { ...endpoint("api.test", 81), metadata }]);
    await settled();
    expect(lists.at(-1)!.map((host) => host.metadata)).toEqual([{}, metadata]);
  });

  it("keeps the hostname that the endpoint gives", async () => {
    names.set("api.test", addresses("10.0.0.1"));
    discover([endpoint("api.test", 80, { hostname: "named.test" })]);
    await settled();
    expect(lists[0]![0]!.hostname).toBe("named.test");
  });

  it("takes IP addresses as they are, without asking", () => {
    discover([endpoint("127.0.0.1"), endpoint("::1")]);
    expect(latest()).toEqual(["127.0.0.1:80", "::1:80"]);
    expect(asked).toEqual([]);
  });

  it("has no host for an IPv6 address with V4_ONLY, but one for an IPv4 address with V6_ONLY", () => {
    discover([endpoint("::1")], { dns_lookup_family: "V4_ONLY" });
    expect([latest(), asked]).toEqual([[], []]);
    expect([stat("attempt"), stat("success"), stat("failure")]).toEqual([1, 0, 1]);
    cx.clock.advance(5_000);
    expect([stat("attempt"), stat("failure"), lists.length]).toEqual([2, 2, 1]);
    discover([endpoint("127.0.0.1")], { dns_lookup_family: "V6_ONLY" });
    expect(latest()).toEqual(["127.0.0.1:80"]);
  });

  it("counts addresses of each family as Envoy's resolver does", () => {
    const families = ["AUTO", "V4_ONLY", "V6_ONLY", "V4_PREFERRED", "ALL"];
    for (const dns_lookup_family of families)
      for (const ip of ["127.0.0.1", "::1"]) discover([endpoint(ip)], { dns_lookup_family });
    const dns = ["resolve_total", "not_found", "get_addr_failure", "pending_resolutions"];
    expect(dns.map((name) => cx.stats.value(`dns.cares.${name}`))).toEqual([11, 0, 2, 0]);
  });

  it("asks for the family that the config names, AUTO by default", () => {
    discover([endpoint("a.test")]);
    discover([endpoint("b.test")], { dns_lookup_family: "V4_ONLY" });
    expect(asked).toEqual([
      { name: "a.test", family: "AUTO" },
      { name: "b.test", family: "V4_ONLY" },
    ]);
  });

  it("asks again every five seconds and tells of changes only", async () => {
    names.set("api.test", addresses("10.0.0.1", "10.0.0.2"));
    discover([endpoint("api.test")]);
    await settled();
    names.set("api.test", addresses("10.0.0.2", "10.0.0.1"));
    cx.clock.advance(4_999);
    expect(asked).toHaveLength(1);
    cx.clock.advance(1);
    await settled();
    expect(asked).toHaveLength(2);
    expect(lists).toHaveLength(1);
    expect(stat("no_rebuild")).toBe(1);
    names.set("api.test", addresses("10.0.0.3", "10.0.0.2"));
    cx.clock.advance(5_000);
    await settled();
    expect(latest()).toEqual(["10.0.0.2:80", "10.0.0.3:80"]);
    expect([stat("attempt"), stat("success"), stat("failure")]).toEqual([3, 3, 0]);
  });

  it("keeps the hosts when a query fails, and goes on asking", async () => {
    names.set("api.test", addresses("10.0.0.1"));
    discover([endpoint("api.test")]);
    await settled();
    names.set("api.test", new Error("queryA ESERVFAIL api.test"));
    cx.clock.advance(5_000);
    await settled();
    expect(lists).toHaveLength(1);
    expect(stat("failure")).toBe(1);
    expect(cx.logged.map((l) => l.fields.why)).toEqual(["queryA ESERVFAIL api.test"]);
    names.set("api.test", addresses("10.0.0.2"));
    cx.clock.advance(5_000);
    await settled();
    expect(latest()).toEqual(["10.0.0.2:80"]);
  });

  it("is empty when the name has no address any more", async () => {
    names.set("api.test", addresses("10.0.0.1"));
    discover([endpoint("api.test")]);
    await settled();
    names.set("api.test", []);
    cx.clock.advance(5_000);
    await settled();
    expect(latest()).toEqual([]);
    cx.clock.advance(5_000);
    await settled();
    expect([stat("success"), stat("no_rebuild")]).toEqual([3, 1]);
  });

  it("starts with no hosts when the first query fails", async () => {
    names.set("nowhere.invalid", new Error("ESERVFAIL"));
    discover([endpoint("nowhere.invalid")]);
    await settled();
    expect(lists).toEqual([[]]);
  });

  it("makes a host for each name, also where two share an address", async () => {
    names.set("a.test", addresses("10.0.0.1"));
    names.set("b.test", addresses("10.0.0.1"));
    discover([endpoint("a.test"), endpoint("b.test"), endpoint("b.test", 81)]);
    await settled();
    expect(lists[0]!.map((h) => `${h.hostname}:${h.port}`)).toEqual([
      "a.test:80",
      "b.test:80",
      "b.test:81",
    ]);
  });

  it("counts a change for each name that has addresses, as Envoy does", async () => {
    names.set("a.test", addresses("10.0.0.1", "10.0.0.2"));
    names.set("b.test", addresses("10.0.0.3"));
    names.set("none.test", addresses());
    discover([endpoint("a.test"), endpoint("b.test"), endpoint("none.test")]);
    await settled();
    names.set("b.test", addresses("10.0.0.4"));
    cx.clock.advance(5_000);
    await settled();
    expect(changes).toEqual([2, 1]);
    expect(cx.stats.value("cluster.c.max_host_weight")).toBe(1);
  });

  it("shows the largest weight of the last name that was answered; one that cannot be asked changes nothing", async () => {
    cx.operations.set("dns.resolve", () => Promise.reject(new Error("SERVFAIL")));
    const heavy = { ...endpoint("a.test"), load_balancing_weight: 7 };
    const weight = () => cx.stats.value("cluster.c.max_host_weight");
    discover([heavy]);
    await settled();
    expect(weight()).toBe(0);
    let answer = addresses("10.0.0.1");
    cx.operations.set("dns.resolve", async () => ({ addresses: answer }));
    cx.clock.advance(5_000);
    await settled();
    expect(weight()).toBe(7);
    answer = addresses();
    cx.clock.advance(5_000);
    await settled();
    expect(weight()).toBe(1);
  });

  it("waits two seconds for a name that does not answer, then goes on with the others", async () => {
    names.set("a.test", addresses("10.0.0.1"));
    discover([endpoint("a.test"), endpoint("silent.test")]);
    await settled();
    expect(lists).toEqual([]);
    cx.clock.advance(2_000);
    expect(latest()).toEqual(["10.0.0.1:80"]);
  });

  it("adds the hosts of a name that answers after the others have gone ahead", async () => {
    let answer: (value: unknown) => void = () => {};
    cx.operations.set("dns.resolve", () => new Promise((resolve) => (answer = resolve)));
    discover([endpoint("127.0.0.1"), endpoint("slow.test")]);
    cx.clock.advance(2_000);
    expect(latest()).toEqual(["127.0.0.1:80"]);
    answer({ addresses: addresses("10.0.0.2") });
    await settled();
    expect(latest()).toEqual(["127.0.0.1:80", "10.0.0.2:80"]);
  });

  it("follows the shortest TTL when told to", async () => {
    names.set("api.test", [
      { ip: "10.0.0.1", ttl: 30 },
      { ip: "10.0.0.2", ttl: 7 },
    ]);
    discover([endpoint("api.test")], { respect_dns_ttl: true });
    await settled();
    cx.clock.advance(6_999);
    expect(asked).toHaveLength(1);
    cx.clock.advance(1);
    expect(asked).toHaveLength(2);
  });

  it("spreads retries between nothing and a doubling interval when a failure rate is given", async () => {
    names.set("api.test", new Error("EREFUSED"));
    discover([endpoint("api.test")], {
      dns_failure_refresh_rate: { base_interval: 1_000, max_interval: 4_000 },
    });
    await settled();
    for (const most of [1_000, 2_000, 4_000, 4_000]) {
      const before = asked.length;
      cx.clock.advance(most);
      await settled();
      expect(asked.length).toBeGreaterThan(before);
    }
  });

  it("asks and tells no more once it is stopped", async () => {
    names.set("api.test", addresses("10.0.0.1"));
    const stop = discover([endpoint("api.test")]) as () => void;
    stop();
    await settled();
    cx.clock.advance(60_000);
    expect(lists).toEqual([]);
    expect(asked).toHaveLength(1);
    expect(cx.clock.armed).toBe(0);
  });

  it("refuses a refresh rate of nothing and an endpoint without a name", () => {
    expect(() => discover([endpoint("a.test")], { dns_refresh_rate: 0 })).toThrow(
      "at least a millisecond",
    );
    expect(() => discover([{ endpoint: { address: { pipe: { path: "/run/a" } } } }])).toThrow(
      "needs a socket_address",
    );
  });
});
