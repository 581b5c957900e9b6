import type { Cluster } from "@tsproxy/sdk";
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
  refused,
  remote,
  say,
  spec,
  start,
  stat,
  useContext,
} from "./test-clusters.ts";

beforeEach(() => useContext());

describe("circuit breakers", () => {
  const limited = (limits: object, more: object = {}): Cluster =>
    one({
      circuit_breakers: {
        thresholds: [{ ...THRESHOLDS, ...limits }],
        per_host_thresholds: [],
        ...more,
      },
    });
  const THRESHOLDS = { priority: "DEFAULT", track_remaining: false };
  const count = (what: string): number =>
    cx.sharedCount(`circuit_breakers|c|default|${what}`).value;

  it("let no more requests wait than they may", () => {
    const c = limited({ max_pending_requests: 1 });
    ask(c);
    expect(ask(c).failure?.reason).toBe("overflow");
    expect(stat("rq_pending_overflow")).toBe(1);
    connected(0);
    expect(count("pending_requests")).toBe(0);
    expect(
      limited({ max_pending_requests: 0 }) && ask(limited({ max_pending_requests: 0 })).failure,
    ).toMatchObject({ reason: "overflow" });
  });

  it("let no more requests run than they may, and keep the connection for the next", () => {
    const c = limited({ max_requests: 1 });
    const first = ask(c);
    const second = ask(c);
    connected(0);
    connected(1);
    expect(first.encoder).toBeDefined();
    expect(second.failure?.reason).toBe("overflow");
    expect(cell("rq_error")).toBe(1);
    say(0, "ok");
    const third = ask(c);
    expect(third.encoder).toBeDefined();
    expect([count("requests"), stat("rq_active_overflow")]).toEqual([1, 1]);
    say(0, "ok");
    say(1, "ok");
    expect(count("requests")).toBe(0);
  });

  it("let requests wait for a connection when no more may be opened", () => {
    const c = limited({ max_connections: 1 });
    const first = ask(c);
    const second = ask(c);
    expect([cx.opened.length, stat("cx_overflow")]).toEqual([1, 1]);
    connected(0);
    say(0, "ok");
    expect([first.responses, second.encoder !== undefined]).toEqual([1, true]);
    close(0, remote);
    expect([count("connections"), count("starving")]).toEqual([0, 0]);
    expect(gauges()).toEqual({});
  });

  it("let a host without any connection have one, as Envoy does", () => {
    const c = cluster(
      start(
        listedCluster("c", [spec("10.0.0.1"), spec("10.0.0.2")], {
          circuit_breakers: {
            thresholds: [{ ...THRESHOLDS, max_connections: 1 }],
            per_host_thresholds: [],
          },
        }),
      ),
    );
    ask(c);
    ask(c);
    expect(cx.opened).toHaveLength(2);
    expect([count("connections"), stat("cx_overflow")]).toEqual([2, 1]);
  });

  it("hold across workers: one waits until the other closes what it does not use", () => {
    const here = limited({ max_connections: 1 });
    ask(here);
    connected(0);
    say(0, "ok");
    const elsewhere = equip(new TestContext());
    elsewhere.sharedCount = (name) => cx.sharedCount(name);
    elsewhere.publish = (topic, value) => cx.publish(topic, value);
    const there = cluster(
      elsewhere.setup(clusterManager, [
        listedCluster("c", [spec("10.0.0.1")], {
          circuit_breakers: {
            thresholds: [{ ...THRESHOLDS, max_connections: 1 }],
            per_host_thresholds: [],
          },
        }),
      ]),
    );
    ask(there);
    expect(elsewhere.opened).toHaveLength(0);
    expect(cx.opened[0]!.connection.closed).toBe("flush");
    expect(count("connections")).toBe(1);
    endTurn();
    elsewhere.clock.advance(20);
    expect(elsewhere.opened).toHaveLength(1);
    expect([count("connections"), count("starving")]).toEqual([1, 0]);
  });

  it("give up the count of a host that is gone once its last connection has closed", () => {
    cx.role = "control";
    const shared = cx.sharedCount.bind(cx);
    const disposed: string[] = [];
    cx.sharedCount = (name) => ({
      ...shared(name),
      get value() {
        return shared(name).value;
      },
      dispose: () => void disposed.push(name),
    });
    const thresholds = [{ ...THRESHOLDS, max_connections: 1 }];
    const circuit_breakers = { thresholds, per_host_thresholds: [] };
    const c = cluster(start(discoveredCluster("c", { circuit_breakers })));
    discoverer.updates[0]!([spec("10.0.0.1")]);
    ask(c);
    connected(0);
    discoverer.updates[0]!([]);
    expect(disposed).toEqual([]);
    say(0, "ok");
    endTurn();
    expect(disposed).toEqual(["host_connections|c|default|10.0.0.1:80"]);
  });

  it("of one host hold for it alone", () => {
    const c = one({
      circuit_breakers: {
        thresholds: [],
        per_host_thresholds: [{ priority: "DEFAULT", max_connections: 2 }],
      },
    });
    for (let k = 0; k < 4; k++) ask(c);
    expect([cx.opened.length, stat("cx_overflow") > 0]).toEqual([2, true]);
  });

  it("are each priority's own, and so are its connections", () => {
    const c = limited({ max_pending_requests: 0 });
    const caller = new Caller();
    c.newStream(caller, { priority: "high" });
    connected(0);
    expect(caller.encoder).toBeDefined();
    expect(ask(c).failure?.reason).toBe("overflow");
  });

  it("bound retries, by number or by a share of what is in progress", () => {
    const c = limited({ max_retries: 1 });
    expect([c.beginRetry("default"), c.beginRetry("default")]).toEqual([true, false]);
    c.endRetry("default");
    expect(c.beginRetry("default")).toBe(true);
    c.endRetry("default");
    const budget = { budget_percent: { value: 50 }, min_retry_concurrency: 1 };
    const b = limited({ max_retries: 0, retry_budget: budget });
    for (let k = 0; k < 4; k++) ask(b);
    expect([1, 2, 3].map(() => b.beginRetry("default"))).toEqual([true, true, false]);
  });

  it("bound retries by a share of the attempts that have begun within an interval, on all workers, retries among them", () => {
    const retry_budget = {
      budget_percent: { value: 50 },
      min_retry_concurrency: 0,
      budget_interval: 10_000,
    };
    const c = limited({ retry_budget });
    const first = ask(c);
    connected(0);
    say(0, "ok");
    expect([first.responses, c.beginRetry("default")]).toEqual([1, false]);
    const ended = () => {
      ask(c);
      say(0, "ok");
    };
    ended();
    expect([c.beginRetry("default"), c.beginRetry("default")]).toEqual([true, false]);
    // The retry itself, and another request.
    ended();
    ended();
    expect([c.beginRetry("default"), c.beginRetry("default")]).toEqual([true, false]);
    c.endRetry("default");
    c.endRetry("default");
    cx.clock.advance(11_001);
    expect(c.beginRetry("default")).toBe(false);
  });

  it("are shown by the control thread, and counted for tcp_proxy as well", () => {
    cx.role = "control";
    const c = limited({ max_connections: 1, track_remaining: true });
    const shown = (name: string) => cx.stats.value(`cluster.c.circuit_breakers.default.${name}`);
    expect(shown("remaining_cx")).toBe(1);
    expect(typeof c.connect({ onData: () => {}, onEof: () => {}, onClosed: () => {} }, {})).toBe(
      "object",
    );
    expect(c.connect({ onData: () => {}, onEof: () => {}, onClosed: () => {} }, {})).toBe(
      "overflow",
    );
    cx.clock.advance(50);
    expect([shown("cx_open"), shown("remaining_cx"), shown("rq_open")]).toEqual([1, 0, 0]);
    expect(shown("remaining_cx_pools")).toBe(-1);
    close(0, remote);
    cx.clock.advance(50);
    expect([shown("cx_open"), shown("remaining_cx")]).toEqual([0, 1]);
  });

  it("show a limit of 0 as open from the first connection that was opened beyond it", () => {
    cx.role = "control";
    const c = limited({ max_connections: 0 });
    const open = () => {
      cx.clock.advance(50);
      return cx.stats.value("cluster.c.circuit_breakers.default.cx_open");
    };
    ask(c);
    expect(open()).toBe(1);
    connected(0);
    say(0, "ok");
    close(0, remote);
    expect(open()).toBe(1);
  });

  it("count a pool from its first request until it has neither connections nor waiting requests", () => {
    cx.role = "control";
    const c = limited({ max_connection_pools: 1, track_remaining: true });
    const left = () => {
      cx.clock.advance(50);
      return cx.stats.value("cluster.c.circuit_breakers.default.remaining_cx_pools");
    };
    expect(left()).toBe(1);
    ask(c);
    connected(0);
    say(0, "ok");
    expect(left()).toBe(0);
    close(0, remote);
    expect(left()).toBe(1);
    ask(c);
    expect(left()).toBe(0);
  });

  it("are shown for a retry budget as in Envoy: `max_retries` until a retry is asked for, then 0", () => {
    const thresholds = { track_remaining: true, retry_budget: {} };
    cx.role = "control";
    limited(thresholds);
    const shown = () => cx.stats.value("cluster.c.circuit_breakers.default.remaining_retries");
    expect(shown()).toBe(3);
    cx.role = "worker";
    limited(thresholds).beginRetry("default");
    cx.clock.advance(50);
    expect(shown()).toBe(0);
  });

  it("bound TCP connections that are not established yet", () => {
    const c = limited({ max_pending_requests: 1 });
    const open = () => {
      const begun = c.connect({ onData: () => {}, onEof: () => {}, onClosed: () => {} }, {});
      return typeof begun === "object" && begun.connection !== undefined;
    };
    expect([open(), open()]).toEqual([true, false]);
    expect([stat("rq_pending_overflow"), stat("rq_pending_active"), stat("cx_total")]).toEqual([
      1, 1, 1,
    ]);
    connected(0);
    expect([open(), open()]).toEqual([true, false]);
    close(1, refused);
    expect(open()).toBe(true);
    expect(c.inUse!.connections).toBe(2);
  });

  it("answer for runtime keys", () => {
    const c = limited({ max_pending_requests: 0 });
    cx.runtime.replace([["circuit_breakers.c.default.max_pending_requests", 5]]);
    ask(c);
    connected(0);
    expect(stat("rq_total")).toBe(1);
  });
});
