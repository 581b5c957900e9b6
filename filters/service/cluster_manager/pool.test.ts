import { beforeEach, describe, expect, it } from "vitest";
import {
  ask,
  Caller,
  cell,
  close,
  cluster,
  connected,
  cx,
  endTurn,
  gauges,
  listedCluster,
  one,
  refused,
  remote,
  say,
  spec,
  start,
  stat,
  timedOut,
  useContext,
} from "./test-clusters.ts";

beforeEach(() => useContext());

describe("an HTTP/1 pool", () => {
  it("opens a connection for the first request and sends it when connected", () => {
    const caller = ask(one());
    expect(cx.opened.map((o) => [o.address.ip, o.timeoutMs])).toEqual([["10.0.0.1", 1_000]]);
    expect(caller.encoder).toBeUndefined();
    expect([stat("rq_pending_total"), stat("rq_pending_active"), stat("rq_total")]).toEqual([
      1, 1, 0,
    ]);
    connected(0);
    expect(caller.connection).toBe(cx.opened[0]!.connection);
    expect(cx.opened[0]!.connection.take()).toBe("request ");
    expect([stat("rq_pending_active"), stat("rq_total"), stat("rq_active")]).toEqual([0, 1, 1]);
    expect([cell("rq_total"), cell("rq_active"), cell("cx_total"), cell("cx_active")]).toEqual([
      1, 1, 1, 1,
    ]);
    say(0, "ok");
    expect(caller.responses).toBe(1);
    expect([stat("rq_active"), cell("rq_active"), stat("cx_active")]).toEqual([0, 0, 1]);
  });

  it("may be each client's own", () => {
    const c = one({ connection_pool_per_downstream_connection: true });
    const from = (connectionId: number) => {
      const caller = new Caller();
      const stream = { info: { connectionId } } as never;
      c.newStream(caller, { stream });
      return caller;
    };
    from(1);
    connected(0);
    say(0, "ok");
    from(2);
    expect(cx.opened).toHaveLength(2);
    expect(from(1).connection).toBe(cx.opened[0]!.connection);
    expect([stat("cx_total"), stat("rq_total")]).toEqual([2, 2]);
  });

  it("carries ten thousand exchanges over one connection, and every gauge returns to zero", () => {
    const c = one();
    ask(c);
    connected(0);
    say(0, "ok");
    const caller = new Caller();
    for (let k = 0; k < 9_999; k++) {
      expect(c.newStream(caller, {})).toBeUndefined();
      say(0, "ok");
    }
    expect(caller.responses).toBe(9_999);
    expect(cx.opened).toHaveLength(1);
    expect([stat("cx_total"), stat("rq_total"), stat("rq_pending_total")]).toEqual([1, 10_000, 1]);
    expect(stat("cx_rx_bytes_buffered")).toBe(2);
    close(0, remote);
    expect(gauges()).toEqual({});
    expect(c.hosts[0]!.activeRequests).toBe(0);
    expect(cx.stats.recorded.get("cluster.c.upstream_rq_per_cx")).toEqual([10_000]);
    expect([
      stat("cx_destroy"),
      stat("cx_destroy_remote"),
      stat("cx_destroy_with_active_rq"),
    ]).toEqual([1, 1, 0]);
    expect(stat("cx_tx_bytes_total")).toBe(80_000);
    expect(stat("cx_rx_bytes_total")).toBe(20_000);
  });

  it("takes the connection that was used last", () => {
    const c = one();
    for (let k = 0; k < 3; k++) ask(c);
    for (let k = 0; k < 3; k++) connected(k);
    say(0, "ok");
    say(2, "ok");
    say(1, "ok");
    expect(ask(c).connection).toBe(cx.opened[1]!.connection);
    expect(ask(c).connection).toBe(cx.opened[2]!.connection);
    expect(cx.opened).toHaveLength(3);
  });

  it("gives a connection that becomes free to whoever waits longest", () => {
    const c = one();
    const first = ask(c);
    connected(0);
    const second = ask(c);
    const third = ask(c);
    expect(cx.opened).toHaveLength(3);
    say(0, "ok");
    expect(first.responses).toBe(1);
    expect(second.connection).toBe(cx.opened[0]!.connection);
    connected(1);
    expect(third.connection).toBe(cx.opened[1]!.connection);
    // The third connection finds nobody waiting and rests for the next.
    connected(2);
    expect(ask(c).connection).toBe(cx.opened[2]!.connection);
  });

  it("fails all three who wait when the attempt fails, naming the host and the reason", () => {
    const callers = [one()].flatMap((c) => [ask(c), ask(c), ask(c)]);
    close(0, refused);
    for (const caller of callers) {
      expect(caller.failure).toMatchObject({
        reason: "connection_failed",
        transportFailure: "delayed_connect_error: Connection refused",
      });
      expect(caller.failure!.host!.key).toBe("10.0.0.1:80");
    }
    expect([
      stat("rq_pending_failure_eject"),
      stat("cx_connect_fail"),
      cell("cx_connect_fail"),
    ]).toEqual([3, 1, 1]);
    close(1, refused);
    close(2, refused);
    expect(gauges()).toEqual({});
    expect(stat("rq_total")).toBe(0);
  });

  it("does not fail a retry together with the attempt that caused it", () => {
    const c = one();
    const caller = ask(c);
    const retry = new Caller();
    caller.onFailed = () => void c.newStream(retry, {});
    close(0, refused);
    expect(caller.failure).toBeDefined();
    expect(retry.failure).toBeUndefined();
    expect(cx.opened).toHaveLength(2);
    connected(1);
    expect(retry.connection).toBe(cx.opened[1]!.connection);
  });

  it("spares a waiting request that another cancels while all are failed", () => {
    const c = one();
    const first = ask(c);
    const second = new Caller();
    const handle = c.newStream(second, {})!;
    first.onFailed = () => handle.cancel();
    close(0, refused);
    expect(second.failure).toBeUndefined();
    expect(stat("rq_cancelled")).toBe(1);
    close(1, refused);
    expect(gauges()).toEqual({});
  });

  it("counts a source address that cannot be bound as a close of its own", () => {
    const source_address = { address: "192.0.2.7", port_value: 0 };
    const caller = ask(one({ upstream_bind_config: { source_address } }));
    close(0, { ...refused, error: "EADDRNOTAVAIL" });
    expect(caller.failure).toMatchObject({ reason: "local_connection_failed" });
    expect([stat("cx_destroy_local"), stat("cx_destroy_remote")]).toEqual([1, 0]);
  });

  it("says that an attempt took too long", () => {
    const caller = ask(one());
    close(0, timedOut);
    expect(caller.failure).toMatchObject({ reason: "connection_timeout", transportFailure: "" });
    expect([stat("cx_connect_timeout"), stat("cx_connect_fail"), stat("cx_destroy_local")]).toEqual(
      [1, 1, 1],
    );
  });

  it("keeps the connection that a cancelled request was waiting for, for the next", () => {
    const c = one();
    const caller = new Caller();
    c.newStream(caller, {})!.cancel();
    expect([stat("rq_cancelled"), stat("rq_pending_active"), stat("cx_active")]).toEqual([1, 0, 1]);
    const next = ask(c);
    expect(cx.opened).toHaveLength(1);
    connected(0);
    expect(caller.connection).toBeUndefined();
    expect(next.connection).toBe(cx.opened[0]!.connection);
  });

  it("takes no notice of a handle that is cancelled late or twice", () => {
    const c = one();
    const caller = new Caller();
    const handle = c.newStream(caller, {})!;
    connected(0);
    handle.cancel();
    handle.cancel();
    expect([stat("rq_cancelled"), stat("rq_active")]).toEqual([0, 1]);
  });

  it("resets the exchange that took an idle connection in the very turn in which the peer closes it", () => {
    const c = one();
    ask(c);
    connected(0);
    say(0, "ok");
    const unlucky = ask(c);
    close(0, remote);
    expect([unlucky.resets, unlucky.responses]).toEqual([1, 0]);
    expect([
      stat("cx_destroy_remote_with_active_rq"),
      stat("rq_active"),
      c.hosts[0]!.activeRequests,
    ]).toEqual([1, 0, 0]);
    ask(c);
    expect(cx.opened).toHaveLength(2);
  });

  it("does not choose an idle connection that has closed, or whose peer has ended it", () => {
    const c = one();
    for (let k = 0; k < 3; k++) ask(c);
    for (let k = 0; k < 3; k++) connected(k);
    for (let k = 0; k < 3; k++) say(k, "ok");
    close(2, remote);
    cx.opened[1]!.handler.onEof();
    expect(cx.opened[1]!.connection.closed).toBe("flush");
    expect(ask(c).connection).toBe(cx.opened[0]!.connection);
    endTurn();
    expect([stat("cx_destroy_remote"), stat("cx_destroy_local")]).toEqual([2, 0]);
  });

  it("drops an idle connection whose peer speaks unasked", () => {
    const c = one();
    ask(c);
    connected(0);
    say(0, "ok");
    say(0, "ok");
    expect(cx.opened[0]!.connection.closed).toBe("flush");
    expect(stat("cx_protocol_error")).toBe(1);
    ask(c);
    expect(cx.opened).toHaveLength(2);
  });

  it("takes a 408 on an idle connection for a goodbye", () => {
    ask(one());
    connected(0);
    say(0, "ok");
    say(0, "HTTP/1.1 408 Request Timeout");
    expect(cx.opened[0]!.connection.closed).toBe("flush");
    expect(stat("cx_protocol_error")).toBe(0);
  });

  it("gives nobody the bytes that follow a response", () => {
    const c = one();
    ask(c);
    const waiting = ask(c);
    connected(0);
    say(0, "ok ok");
    expect(waiting.responses).toBe(0);
    endTurn();
    expect(stat("cx_active")).toBe(1);
    connected(1);
    expect(waiting.connection).toBe(cx.opened[1]!.connection);
  });

  it("closes the connection of an exchange that is given up half-way", () => {
    const c = one();
    const caller = ask(c);
    connected(0);
    caller.encoder!.reset();
    expect(cx.opened[0]!.connection.closed).toBe("abort");
    endTurn();
    expect([stat("cx_destroy_local_with_active_rq"), stat("rq_active"), stat("cx_active")]).toEqual(
      [1, 0, 0],
    );
    expect(caller.resets).toBe(0);
    ask(c);
    expect(cx.opened).toHaveLength(2);
  });

  it("lets a connection go whose peer announces that it closes", () => {
    const c = one();
    const caller = ask(c);
    connected(0);
    say(0, "bye");
    endTurn();
    expect(caller.responses).toBe(1);
    expect([
      stat("cx_close_notify"),
      stat("cx_destroy_local"),
      stat("cx_destroy_with_active_rq"),
    ]).toEqual([1, 1, 0]);
    expect(gauges()).toEqual({});
    ask(c);
    expect(cx.opened).toHaveLength(2);
  });

  it("counts an exchange that is given up after such an announcement as one in progress", () => {
    const c = one();
    const caller = ask(c);
    caller.givesUp = true;
    connected(0);
    say(0, "bye");
    endTurn();
    expect([stat("cx_close_notify"), stat("cx_destroy_local_with_active_rq")]).toEqual([1, 1]);
    expect(gauges()).toEqual({});
  });

  it("counts a malformed answer as an exchange that did not end", () => {
    const caller = ask(one());
    connected(0);
    say(0, "bad");
    endTurn();
    expect(caller.errors).toBe(1);
    expect([
      stat("cx_destroy_local_with_active_rq"),
      stat("cx_close_notify"),
      stat("rq_active"),
    ]).toEqual([1, 0, 0]);
  });

  it("makes connections for requests to come: per_upstream_preconnect_ratio", () => {
    const c = one({ preconnect_policy: { per_upstream_preconnect_ratio: 2 } });
    ask(c);
    expect(cx.opened).toHaveLength(2);
    connected(0);
    connected(1);
    expect(ask(c).connection).toBe(cx.opened[1]!.connection);
    // Two run: there is to be room for four in all.
    expect(cx.opened).toHaveLength(4);
    say(0, "ok");
    say(1, "ok");
    ask(c);
    expect(cx.opened).toHaveLength(4);
  });

  it("makes connections to the hosts of requests to come: predictive_preconnect_ratio", () => {
    const preconnect_policy = { predictive_preconnect_ratio: 1.5 };
    const hosts = [spec("10.0.0.1"), spec("10.0.0.2"), spec("10.0.0.3")];
    const c = cluster(start(listedCluster("c", hosts, { preconnect_policy })));
    const to = () => cx.opened.map(({ address }) => address.ip.at(-1)).join("");
    const first = ask(c);
    // One comes and room for one and a half is wanted: at the two hosts that are next. The request's own connection is the third.
    expect(to()).toBe("231");
    connected(2);
    expect(first.connection).toBe(cx.opened[2]!.connection);
    connected(0);
    connected(1);
    expect(ask(c).connection).toBe(cx.opened[0]!.connection);
    // (1 + 1) × 1.5 are no more than the one in progress and the two of room; (2 + 1) × 1.5 are.
    expect(to()).toBe("231");
    expect(ask(c).connection).toBe(cx.opened[1]!.connection);
    expect(to()).toBe("23112");
    for (const k of [2, 0, 1]) say(k, "ok");
    for (const k of [3, 4]) connected(k);
    ask(c);
    expect(to()).toBe("23112");
  });

  it("looks ahead by what all clusters have room for, and to healthy hosts alone", () => {
    const preconnect_policy = { predictive_preconnect_ratio: 3 };
    const [ahead, other] = [
      listedCluster("c", [spec("10.0.0.1")], { preconnect_policy }),
      listedCluster("o", [spec("10.0.0.9")]),
    ];
    const service = start(ahead, other);
    const idle = [1, 2, 3].map(() => ask(cluster(service, "o")));
    for (const [k] of idle.entries()) connected(k);
    for (const [k] of idle.entries()) say(k, "ok");
    ask(cluster(service, "c"));
    expect(cx.opened).toHaveLength(4);
    const ill = { ...spec("10.0.0.1"), healthStatus: "UNHEALTHY" };
    const c = cluster(start(listedCluster("c", [ill], { preconnect_policy })));
    ask(c);
    expect(cx.opened).toHaveLength(5);
  });

  it("preconnects no further than the breaker allows", () => {
    const thresholds = [{ priority: "DEFAULT", max_connections: 2 }];
    const circuit_breakers = { thresholds, per_host_thresholds: [] };
    const preconnect_policy = { per_upstream_preconnect_ratio: 3 };
    const c = one({ preconnect_policy, circuit_breakers });
    ask(c);
    expect([cx.opened.length, stat("cx_overflow")]).toEqual([2, 1]);
  });

  it("closes a connection after max_requests_per_connection exchanges", () => {
    const c = one({ common_http_protocol_options: { max_requests_per_connection: 2 } });
    for (let k = 0; k < 4; k++) {
      ask(c);
      if (k % 2 === 0) connected(k / 2);
      say(Math.floor(k / 2), "ok");
      endTurn();
    }
    expect(cx.opened).toHaveLength(2);
    expect([stat("cx_max_requests"), stat("cx_destroy_local"), stat("cx_active")]).toEqual([
      2, 2, 0,
    ]);
  });

  it("counts the exchanges that the cluster itself allows, where its options say nothing", () => {
    const c = one({ max_requests_per_connection: 1 });
    ask(c);
    connected(0);
    say(0, "ok");
    expect(cx.opened[0]!.connection.closed).toBe("flush");
  });

  it("closes an idle connection after max_connection_duration, and a busy one after its exchange", () => {
    const c = one({ common_http_protocol_options: { max_connection_duration: 5_000 } });
    ask(c);
    ask(c);
    connected(0);
    connected(1);
    say(0, "ok");
    cx.clock.advance(5_100);
    expect(cx.opened.map(({ connection }) => connection.closed)).toEqual(["flush", undefined]);
    expect(stat("cx_max_duration_reached")).toBe(2);
    say(1, "ok");
    expect(cx.opened[1]!.connection.closed).toBe("flush");
    ask(c);
    expect(cx.opened).toHaveLength(3);
  });

  it("reads the same options from typed_extension_protocol_options", () => {
    const c = one({
      typed_extension_protocol_options: {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
          common_http_protocol_options: { max_requests_per_connection: 1 },
          explicit_http_config: { http_protocol_options: {} },
        },
      },
    });
    ask(c);
    connected(0);
    say(0, "ok");
    expect(cx.opened[0]!.connection.closed).toBe("flush");
  });

  it("closes what has been idle for the idle timeout, longest first", () => {
    const c = one({ common_http_protocol_options: { idle_timeout: 10_000 } });
    ask(c);
    ask(c);
    connected(0);
    connected(1);
    say(0, "ok");
    cx.clock.advance(6_000);
    say(1, "ok");
    cx.clock.advance(4_000);
    expect([cx.opened[0]!.connection.closed, cx.opened[1]!.connection.closed]).toEqual([
      "flush",
      undefined,
    ]);
    cx.clock.advance(6_000);
    expect(cx.opened[1]!.connection.closed).toBe("flush");
    expect(stat("cx_idle_timeout")).toBe(2);
    endTurn();
    expect(stat("cx_active")).toBe(0);
  });

  it("keeps idle connections for an hour when the config does not say", () => {
    ask(one());
    connected(0);
    say(0, "ok");
    cx.clock.advance(3_599_000);
    expect(cx.opened[0]!.connection.closed).toBeUndefined();
    cx.clock.advance(1_000);
    expect(cx.opened[0]!.connection.closed).toBe("flush");
  });

  it("lets 1,024 requests wait and turns the next away", () => {
    const c = one();
    for (let k = 0; k < 1_024; k++) ask(c);
    const late = ask(c);
    expect(late.failure).toEqual({ reason: "overflow", host: undefined, transportFailure: "" });
    expect([stat("rq_pending_overflow"), stat("rq_pending_active")]).toEqual([1, 1_024]);
    connected(0);
    expect(ask(c).failure).toBeUndefined();
  });

  it("counts what a host answered", () => {
    const host = one().hosts[0]!;
    host.onResponse(200);
    host.onResponse(404);
    host.onResponse(503);
    host.onReset();
    host.onTimeout();
    host.onResponse(409, true);
    expect([cell("rq_success"), cell("rq_error"), cell("rq_timeout")]).toEqual([2, 4, 1]);
  });

  it("tells the exchange when the upstream does not take what is sent", () => {
    const blocked: boolean[] = [];
    const caller = new Caller();
    caller.onUpstreamBlocked = (b?: boolean) => void blocked.push(b!);
    one().newStream(caller, {});
    connected(0);
    cx.opened[0]!.handler.onBlocked!();
    cx.opened[0]!.handler.onDrained!();
    expect(blocked).toEqual([true, false]);
    expect([stat("flow_control_backed_up_total"), stat("flow_control_drained_total")]).toEqual([
      1, 1,
    ]);
  });
});
