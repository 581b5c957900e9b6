import type { ClientEvents, Connection, HostSet } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { beforeEach, describe, expect, it } from "vitest";
import clusterManager from "./filter.ts";
import {
  ask,
  Caller,
  cell,
  close,
  cluster,
  connected,
  cx,
  discoveredCluster,
  discoverer,
  endTurn,
  equip,
  gauges,
  listedCluster,
  one,
  remote,
  say,
  spec,
  start,
  stat,
  useContext,
  WordCodec,
} from "./test-clusters.ts";

beforeEach(() => useContext());

describe("a new generation", () => {
  /** The next generation beside the old one, as core prepares it. */
  const prepare = (old: TestContext): TestContext => {
    // The canary has set the config up, so workers set up plain clusters at their first use.
    const next = equip(Object.assign(new TestContext(), { rehearsed: true }));
    next.role = old.role;
    next.previous = old.handover!();
    return next;
  };
  /** Core ends the old one; what the tests see of sockets goes on under the new context. */
  const commit = (old: TestContext, next: TestContext): void => {
    old.dispose();
    useContext(next);
  };
  const config = listedCluster("c", [spec("10.0.0.1")]);
  const at = (context: TestContext, n: number) => context.opened[n]!;

  it("goes on with idle connections: it opens none by itself", () => {
    const before = cx;
    const c = cluster(start(config));
    ask(c);
    connected(0);
    say(0, "ok");
    const socket = at(before, 0).connection;
    const next = prepare(before);
    const service = next.setup(clusterManager, [config] as never);
    commit(before, next);
    expect(socket.closed).toBeUndefined();
    const caller = ask(cluster(service));
    expect(caller.connection).toBe(socket);
    say(0, "ok");
    expect(caller.responses).toBe(1);
    expect(ask(cluster(service)).connection).toBe(socket);
  });

  it("leaves requests that wait for room in the old one there, and they get it when it comes", () => {
    const before = cx;
    const thresholds = [{ priority: "DEFAULT", track_remaining: false, max_connections: 1 }];
    const limited = {
      ...config,
      connection_pool_per_downstream_connection: true,
      circuit_breakers: { thresholds, per_host_thresholds: [] },
    };
    const c = cluster(start(limited));
    const from = (connectionId: number) => {
      const caller = new Caller();
      c.newStream(caller, { stream: { info: { connectionId } } as never });
      return caller;
    };
    from(1);
    connected(0);
    const waiting = from(2);
    expect(before.opened).toHaveLength(1);
    const next = prepare(before);
    next.setup(clusterManager, [{ ...limited, connect_timeout: 2_000 }] as never);
    before.dispose();
    close(0, remote);
    before.clock.advance(1);
    expect(before.opened).toHaveLength(2);
    connected(1);
    expect(waiting.encoder).toBeDefined();
  });

  it("counts a connection that goes over once, in the same cells", () => {
    const before = cx;
    ask(cluster(start(config)));
    connected(0);
    say(0, "ok");
    const next = prepare(before);
    Object.assign(next, { stats: before.stats });
    next.setup(clusterManager, [config] as never);
    commit(before, next);
    expect([stat("cx_active"), stat("cx_total")]).toEqual([1, 1]);
    close(0, remote);
    expect([stat("cx_active"), stat("cx_destroy"), cell("cx_active")]).toEqual([0, 1, 0]);
  });

  it("lets exchanges in progress end on the old code, and then takes their connections", () => {
    const before = cx;
    const busy = ask(cluster(start(config)));
    connected(0);
    const socket = at(before, 0).connection;
    const next = prepare(before);
    Object.assign(next, { stats: before.stats });
    const service = next.setup(clusterManager, [config] as never);
    commit(before, next);
    expect(cluster(service).hosts[0]!.activeRequests).toBe(1);
    say(0, "ok");
    expect(busy.responses).toBe(1);
    expect(cluster(service).hosts[0]!.activeRequests).toBe(0);
    expect(ask(cluster(service)).connection).toBe(socket);
    say(0, "ok");
    close(0, remote);
    expect(gauges()).toEqual({});
  });

  it("takes a connection that was still connecting once it has served who waited for it", () => {
    const before = cx;
    const waiting = ask(cluster(start(config)));
    const next = prepare(before);
    const service = next.setup(clusterManager, [config] as never);
    commit(before, next);
    connected(0);
    expect(waiting.connection).toBe(at(next, 0).connection);
    say(0, "ok");
    expect(ask(cluster(service)).connection).toBe(at(next, 0).connection);
  });

  it("passes connections of two generations back on to the third", () => {
    const first = cx;
    ask(cluster(start(config)));
    connected(0);
    const socket = at(first, 0).connection;
    const second = prepare(first);
    second.setup(clusterManager, [config] as never);
    commit(first, second);
    const third = prepare(second);
    const service = third.setup(clusterManager, [config] as never);
    commit(second, third);
    expect(third.opened.map((o) => o.connection)).toEqual([socket]);
    say(0, "ok");
    expect(ask(cluster(service)).connection).toBe(socket);
  });

  it("closes the connections of a cluster whose config has changed", () => {
    const before = cx;
    ask(cluster(start(config)));
    connected(0);
    say(0, "ok");
    const socket = at(before, 0).connection;
    const next = prepare(before);
    const service = next.setup(clusterManager, [{ ...config, connect_timeout: 9 }] as never);
    commit(before, next);
    expect(socket.closed).toBe("flush");
    ask(cluster(service));
    expect(next.opened.map((o) => o.timeoutMs)).toEqual([0, 9]);
  });

  it("lets a removed cluster finish what it has begun", () => {
    const before = cx;
    const busy = ask(cluster(start(config)));
    connected(0);
    const next = prepare(before);
    next.setup(clusterManager, [] as never);
    commit(before, next);
    say(0, "ok");
    expect(busy.responses).toBe(1);
    expect(at(next, 0).connection.closed).toBe("flush");
  });

  it("answers for an old Cluster object that somebody still holds", () => {
    const before = cx;
    const stale = cluster(start(config));
    const next = prepare(before);
    next.setup(clusterManager, [config] as never);
    commit(before, next);
    ask(stale);
    expect(next.opened).toHaveLength(1);
    expect(ask(stale).failure).toBeUndefined();
  });

  it("gets the requests to a certain host that an old Cluster object is asked for", () => {
    const before = cx;
    const old = cluster(start(config));
    const next = prepare(before);
    next.setup(clusterManager, [{ ...config, connect_timeout: 2_000 }] as never);
    commit(before, next);
    const overrideHost = { address: "10.0.0.1:80", strict: true };
    old.newStream(new Caller(), { overrideHost });
    expect([before.opened.length, next.opened.length]).toEqual([0, 1]);
  });

  it("that is dropped before it was in service leaves everything as it was", () => {
    const before = cx;
    before.role = "control";
    const c = cluster(start(config, discoveredCluster("d")));
    discoverer.updates[0]!([spec("10.0.0.7")]);
    ask(c);
    connected(0);
    say(0, "ok");
    const next = prepare(before);
    next.setup(clusterManager, [config, discoveredCluster("d", { connect_timeout: 5 })] as never);
    before.published.clear();
    next.dispose();
    // Its hosts may have been published over those of the generation that goes on.
    expect(before.published.get("cluster/d/hosts")).toMatchObject({ hosts: [spec("10.0.0.7")] });
    expect(before.stats.value("cluster_manager.active_clusters")).toBe(2);
    expect(ask(c).connection).toBe(at(before, 0).connection);
    before.dispose();
    expect(before.stats.value("cluster_manager.active_clusters")).toBe(0);
  });

  it("that is dropped gives back the counts that it would have shown", () => {
    cx.role = "control";
    const thresholds = [{ priority: "DEFAULT", track_remaining: true }];
    const limited = { ...config, circuit_breakers: { thresholds, per_host_thresholds: [] } };
    start(limited);
    const next = prepare(cx);
    const callers = new Map<string, number>();
    const shared = next.sharedCount.bind(next);
    next.sharedCount = (name) => {
      callers.set(name, (callers.get(name) ?? 0) + 1);
      const dispose = () => void callers.set(name, callers.get(name)! - 1);
      return Object.assign(Object.create(shared(name)), { dispose });
    };
    next.setup(clusterManager, [{ ...limited, connect_timeout: 2_000 }] as never);
    expect(callers.get("circuit_breakers|c|default|connections")).toBe(1);
    next.dispose();
    expect([...callers].filter(([, left]) => left !== 0)).toEqual([]);
  });

  it("says nothing of hosts whose health the previous one still watches", () => {
    const before = cx;
    before.role = "control";
    const watched = listedCluster("w", [spec("10.0.0.1")], {
      outlier_detection: { interval: 10_000, base_ejection_time: 30_000, event_log_path: "" },
    });
    start(watched);
    const slots = { "10.0.0.1:80": 0 };
    expect(before.published.get("cluster/w/health")).toMatchObject({ warm: true, slots });
    const next = prepare(before);
    next.published.clear();
    next.setup(clusterManager, [watched] as never);
    expect(next.published.has("cluster/w/health")).toBe(false);
    commit(before, next);
    expect(next.published.get("cluster/w/health")).toMatchObject({ warm: true, slots });
  });

  it("counts clusters that were added, modified and removed, and no member twice", () => {
    const before = cx;
    before.role = "control";
    start(config, listedCluster("gone", []), listedCluster("edited", []));
    const next = prepare(before);
    Object.assign(next, { stats: before.stats });
    next.setup(clusterManager, [
      config,
      listedCluster("edited", [], { connect_timeout: 7 }),
      listedCluster("new", []),
    ] as never);
    const value = (name: string) => before.stats.value(`cluster_manager.${name}`);
    expect([value("cluster_added"), value("active_clusters")]).toEqual([3, 3]);
    commit(before, next);
    expect([value("cluster_added"), value("cluster_modified"), value("cluster_removed")]).toEqual([
      4, 1, 1,
    ]);
    expect(value("active_clusters")).toBe(3);
    expect(before.stats.value("cluster.c.membership_change")).toBe(1);
    expect(before.stats.value("cluster.c.membership_total")).toBe(1);
  });

  it("forgets the generations before once their last exchange has ended", () => {
    const before = cx;
    ask(cluster(start(config)));
    connected(0);
    const estate = before.handover!() as { open(): number; load(c: string, h: string): unknown };
    const next = prepare(before);
    next.setup(clusterManager, [config] as never);
    commit(before, next);
    next.clock.advance(1_000);
    expect(estate.open()).toBe(1);
    expect(estate.load("c", "10.0.0.1:80")).toMatchObject({ active: 1 });
    close(0, remote);
    next.clock.advance(1_000);
    expect(estate.open()).toBe(0);
    expect(estate.load("c", "10.0.0.1:80")).toBeUndefined();
  });

  it("does not trust what another version of this package left", () => {
    const before = cx;
    start(config);
    const next = equip(new TestContext());
    next.previous = { ...(before.handover!() as object), version: 0 };
    const service = next.setup(clusterManager, [config] as never);
    before.dispose();
    useContext(next);
    ask(cluster(service));
    expect(next.opened).toHaveLength(1);
  });
});

describe("new code of the packages inside", () => {
  const slot = (packageName: string) => cx.slots.find((s) => s.ref.package === packageName)!;
  const uses = () => cx.slots.map((s) => s.current.uses);

  it("of a balancer chooses the next host, over the connections that are open", () => {
    const c = cluster(start(listedCluster("c", [spec("10.0.0.1"), spec("10.0.0.2")])));
    ask(c);
    const before = slot("balancer/round_robin").current;
    slot("balancer/round_robin").replace({
      create: ({ hosts }: HostSet) => ({ choose: () => hosts[1] }),
    });
    ask(c);
    ask(c);
    expect(cx.opened.map((o) => o.address.ip)).toEqual(["10.0.0.1", "10.0.0.2", "10.0.0.2"]);
    expect(before.uses).toBe(0);
  });

  it("of the codec serves the next exchange on a connection that is open", () => {
    const c = one();
    ask(c);
    connected(0);
    say(0, "ok");
    const made: Connection[] = [];
    const before = slot("codec/http1").current;
    slot("codec/http1").replace({
      protocol: "HTTP/1.1",
      createClient: (connection: Connection, events: ClientEvents) => {
        made.push(connection);
        return new WordCodec(connection, events);
      },
    });
    expect(before.uses).toBe(1);
    expect(ask(c).connection).toBe(cx.opened[0]!.connection);
    expect(made).toEqual([cx.opened[0]!.connection]);
    expect([before.uses, slot("codec/http1").current.uses]).toEqual([0, 1]);
    say(0, "ok");
    expect(cx.opened).toHaveLength(1);
  });

  it("of a cluster package goes on discovering where the old one stopped", () => {
    cx.role = "control";
    const c = cluster(start(discoveredCluster("c")));
    discoverer.updates[0]!([spec("10.0.0.1")]);
    const host = c.hosts[0];
    slot("cluster/strict_dns").replace(discoverer.definition.setup({}, cx));
    cx.clock.advance(1_000);
    expect([discoverer.stopped, discoverer.updates.length]).toEqual([1, 2]);
    discoverer.updates[0]!([spec("10.0.0.9")]);
    expect(c.hosts[0]).toBe(host);
    discoverer.updates[1]!([spec("10.0.0.1"), spec("10.0.0.2")]);
    expect(c.hosts.map((h) => h.key)).toEqual(["10.0.0.1:80", "10.0.0.2:80"]);
    expect(c.hosts[0]).toBe(host);
  });

  it("is given back when the generation has ended and the last connection has closed", () => {
    const c = one();
    ask(c);
    connected(0);
    cx.dispose();
    expect(uses()).toEqual([1, 0, 0]);
    say(0, "ok");
    endTurn();
    expect(uses()).toEqual([0, 0, 0]);
  });
});
