import {
  type AccessLogger,
  type BalancerContext,
  Chunk,
  type CloseEvent,
  type Cluster,
  ConfigError,
  type ConnectionHandler,
  compileFormat,
  defineAccessLogger,
  type Host,
  type LogEntry,
  latin1Encode,
  Type,
  xxHash64,
} from "@tsproxy/sdk";
import { TestConnection, TestContext } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import tcpProxy from "./filter.ts";

const host: Host = {
  address: { ip: "127.0.0.1", port: 7000 },
  key: "127.0.0.1:7000",
  hostname: "",
  weight: 1,
  healthy: true,
  activeRequests: 0,
  onResponse: () => {},
  onTimeout: () => {},
  onReset: () => {},
};

const remoteClose: CloseEvent = {
  by: "remote",
  phase: "connected",
  timeout: false,
  error: undefined,
};
const refused: CloseEvent = {
  by: "remote",
  phase: "connecting",
  timeout: false,
  error: "ECONNREFUSED",
  transportFailure: "delayed_connect_error: Connection refused",
};

const bytes = (text: string) => {
  const memory = latin1Encode(`[${text}]`);
  return new Chunk(memory, 1, memory.length - 1);
};

type Refusal = "no_host" | "overflow" | "pending_overflow";

/** `refusals`: how attempts at a connection end, the first ones first; later ones get a connection. */
function start(
  config: Record<string, unknown> = {},
  refusals: Refusal[] = [],
  state: Record<string, unknown> = {},
) {
  const cx = new TestContext();
  const upstreams: { handler: ConnectionHandler; connection: TestConnection }[] = [];
  const chosen: string[] = [];
  const contexts: BalancerContext[] = [];
  /** Connections that the chain was asked to relay. */
  const relayed: TestConnection[] = [];
  /** What core has to tell of the relay when it is asked. */
  const relaySettles: (() => void)[] = [];
  const cluster = (name: string) =>
    ({
      name,
      stats: cx.stats.scope(`cluster.${name}.`),
      connect(handler: ConnectionHandler, context: BalancerContext) {
        chosen.push(name);
        contexts.push(context);
        const refusal = refusals.shift();
        if (refusal === "pending_overflow") return { connection: undefined, host };
        if (refusal !== undefined) return refusal;
        const connection = new TestConnection(100 + upstreams.length);
        upstreams.push({ handler, connection });
        return { connection, host };
      },
    }) as unknown as Cluster;
  for (const name of ["e", "f"]) cx.clusterMap.set(name, cluster(name));
  const logged: LogEntry[] = [];
  const logger: AccessLogger = { log: (entry) => void logged.push(entry) };
  cx.define(
    "access_log/test",
    defineAccessLogger({ name: "test", config: Type.Object({}), setup: () => logger }),
  );
  const downstream = new TestConnection();
  for (const [key, value] of Object.entries(state)) downstream.setFilterState(key, value);
  const full = {
    stat_prefix: "t",
    cluster: "e",
    idle_timeout: 3_600_000,
    upstream_connect_mode: "IMMEDIATE",
    max_connect_attempts: 1,
    hash_policy: [],
    access_log: [{ name: "test", package: "access_log/test", config: {} }],
    ...config,
  };
  const factory = cx.setup(tcpProxy, full);
  const filter = factory.create(downstream, {
    ...downstream.chain,
    relay: (upstream) => {
      relayed.push(upstream as TestConnection);
      return { settle: () => relaySettles.shift()?.() };
    },
  });
  filter.onConnect!();
  return {
    cx,
    downstream,
    filter,
    upstreams,
    chosen,
    contexts,
    relayed,
    relaySettles,
    logged,
    client: (text: string, endStream = false) => void filter.onData!(bytes(text), endStream),
    server: (text: string) => upstreams.at(-1)!.handler.onData(bytes(text)),
    get handler() {
      return upstreams.at(-1)!.handler;
    },
    get upstream() {
      return upstreams.at(-1)!.connection;
    },
    stat: (name: string) => cx.stats.value(`tcp.t.${name}`),
  };
}

function connected(config: Record<string, unknown> = {}) {
  const t = start(config);
  t.handler.onConnected!();
  return t;
}

describe("connecting", () => {
  it("begins before the client says anything, and reads nothing until the upstream is there", () => {
    const t = start();
    expect(t.upstreams).toHaveLength(1);
    expect(t.downstream.pauses).toBe(1);
    t.handler.onConnected!();
    expect(t.downstream.pauses).toBe(0);
    t.server("hello");
    expect(t.downstream.written).toBe("hello");
  });

  it("keeps bytes that were read before, and their end", () => {
    const t = start();
    t.client("a");
    t.client("b", true);
    expect(t.upstream.written).toBe("");
    t.handler.onConnected!();
    expect(t.upstream.written).toBe("ab");
    expect(t.upstream.ended).toBe(true);
    expect(t.stat("downstream_cx_rx_bytes_total")).toBe(2);
    expect(t.stat("downstream_cx_rx_bytes_buffered")).toBe(2);
  });

  it("counts the last read as buffered for as long as the client is there, as in Envoy", () => {
    const t = connected();
    const buffered = () => t.stat("downstream_cx_rx_bytes_buffered");
    t.client("hello");
    expect(buffered()).toBe(5);
    t.client("you");
    expect(buffered()).toBe(3);
    t.filter.onClose!(remoteClose);
    expect(buffered()).toBe(0);
  });

  it("tries again as often as the config says, with the bytes it has kept", () => {
    const t = start({ max_connect_attempts: 2 });
    t.client("a");
    t.handler.onClosed(refused);
    expect(t.downstream.closed).toBeUndefined();
    expect(t.upstreams).toHaveLength(2);
    t.handler.onConnected!();
    expect(t.upstream.written).toBe("a");
    t.filter.onClose!({ ...remoteClose, by: "local" });
    expect(t.logged[0]!.info).toMatchObject({ flags: ["UF"], attempts: 2 });
  });

  it("tries again, and gives up with URX alone, while too many others wait for a connection", () => {
    const t = start({ max_connect_attempts: 2 }, ["pending_overflow"]);
    expect([t.upstreams.length, t.downstream.closed]).toEqual([1, undefined]);
    const given = start({ max_connect_attempts: 2 }, ["pending_overflow", "pending_overflow"]);
    expect([given.upstreams.length, given.downstream.closed]).toEqual([0, "abort"]);
    expect(given.cx.stats.value("cluster.e.upstream_cx_connect_attempts_exceeded")).toBe(1);
    given.filter.onClose!({ ...remoteClose, by: "local" });
    const { info } = given.logged[0]!;
    expect(info).toMatchObject({ flags: ["URX"], attempts: 2, upstreamHost: undefined });
    expect(info.attemptedBefore).toEqual([host, host]);
  });

  it("gives up with UF,URX when the attempts are used up", () => {
    const t = start();
    t.client("a");
    t.handler.onClosed(refused);
    expect(t.downstream.closed).toBe("abort");
    expect(t.stat("downstream_cx_rx_bytes_total")).toBe(0);
    expect(t.cx.stats.value("cluster.e.upstream_cx_connect_attempts_exceeded")).toBe(1);
    t.filter.onClose!({ ...remoteClose, by: "local" });
    expect(t.logged[0]!.info).toMatchObject({
      flags: ["UF", "URX"],
      bytesReceived: 0,
      upstreamHost: host.address,
      upstreamTransportFailure: "delayed_connect_error: Connection refused",
      attempts: 1,
    });
  });

  it.each([
    ["no_host", "UH", 1],
    ["overflow", "UO", 2],
  ] as const)("closes when the cluster answers %s", (refusal, flag, why) => {
    const t = start({}, [refusal]);
    expect(t.downstream.closed).toBe("abort");
    t.client("late");
    t.filter.onClose!({ ...remoteClose, by: "local" });
    expect(t.logged[0]!.info).toMatchObject({
      flags: [flag],
      clusterName: "e",
      downstreamLocalCloseReason: `tcp_initializion_failure:${why}`,
      upstreamLocalCloseReason: undefined,
    });
  });

  it("counts a cluster that does not exist as no route", () => {
    const t = start({ cluster: "gone" });
    expect(t.downstream.closed).toBe("abort");
    expect(t.stat("downstream_cx_no_route")).toBe(1);
    t.filter.onClose!({ ...remoteClose, by: "local" });
    expect(t.logged[0]!.info).toMatchObject({ flags: ["NC"], clusterName: "" });
  });

  it("stops connecting when the client leaves", () => {
    const t = start();
    t.filter.onClose!(remoteClose);
    expect(t.upstream.closed).toBe("abort");
    t.handler.onClosed(refused);
    expect(t.upstreams).toHaveLength(1);
  });

  it("holds no more than a megabyte for an upstream that is not there yet", () => {
    const t = start();
    const big = new Chunk(new Uint8Array(600_000), 0, 600_000);
    t.filter.onData!(big, false);
    t.filter.onData!(big, false);
    expect(t.downstream.closed).toBe("abort");
  });
});

describe("both ways", () => {
  it("forwards bytes and counts them", () => {
    const t = connected();
    t.client("ping");
    t.server("pong!");
    expect(t.upstream.written).toBe("ping");
    expect(t.downstream.written).toBe("pong!");
    expect(t.stat("downstream_cx_total")).toBe(1);
    expect(t.stat("downstream_cx_rx_bytes_total")).toBe(4);
    expect(t.stat("downstream_cx_tx_bytes_total")).toBe(5);
  });

  it("passes the client's end on and still delivers the answer", () => {
    const t = connected();
    t.client("last", true);
    expect(t.upstream.written).toBe("last");
    expect(t.upstream.ended).toBe(true);
    t.server("answer");
    expect(t.downstream.written).toBe("answer");
    t.handler.onEof();
    expect([t.upstream.closed, t.downstream.closed]).toEqual(["flush", "flush"]);
  });

  it("passes the upstream's end on and still takes what the client says", () => {
    const t = connected();
    t.handler.onEof();
    expect(t.downstream.ended).toBe(true);
    t.client("more");
    expect(t.upstream.written).toBe("more");
    t.client("", true);
    expect([t.upstream.closed, t.downstream.closed]).toEqual(["flush", "flush"]);
  });

  it("passes the upstream's reset on", () => {
    const t = connected();
    t.server("part");
    t.handler.onClosed({ ...remoteClose, error: "ECONNRESET" });
    expect(t.downstream.closed).toBe("reset");
    t.client("nobody wants this");
    t.filter.onClose!({ ...remoteClose, by: "local" });
    expect(t.logged.map((entry) => entry.info.flags)).toEqual([["UR"]]);
    const { downstreamCloseType, upstreamCloseType } = t.logged[0]!.info;
    expect([downstreamCloseType, upstreamCloseType]).toEqual(["LocalReset", "RemoteReset"]);
  });

  it("passes the client's reset on, whatever waits to be sent", () => {
    const t = connected();
    t.upstream.blocked = true;
    t.client("x");
    t.filter.onClose!({ ...remoteClose, error: "ECONNRESET" });
    expect([t.upstream.closed, t.stat("upstream_flush_total")]).toEqual(["reset", 0]);
    expect(t.logged.map((entry) => entry.info.downstreamCloseType)).toEqual(["RemoteReset"]);
  });

  it("lets what the client has sent go out after it has left", () => {
    const t = connected();
    t.upstream.blocked = true;
    t.client("x");
    t.filter.onClose!(remoteClose);
    expect(t.upstream.closed).toBe("flush");
    expect([t.stat("upstream_flush_total"), t.stat("upstream_flush_active")]).toEqual([1, 1]);
    t.handler.onDrained!();
    t.handler.onClosed(remoteClose);
    expect(t.stat("upstream_flush_active")).toBe(0);
  });
});

describe("back-pressure", () => {
  it("does not read from the client while the upstream takes nothing", () => {
    const t = connected();
    t.upstream.blocked = true;
    t.client("a");
    t.handler.onBlocked!();
    expect(t.downstream.pauses).toBe(1);
    t.handler.onDrained!();
    expect(t.downstream.pauses).toBe(0);
    expect(t.stat("downstream_flow_control_paused_reading_total")).toBe(1);
    expect(t.stat("downstream_flow_control_resumed_reading_total")).toBe(1);
  });

  it("does not read from the upstream while the client takes nothing", () => {
    const t = connected();
    t.downstream.blocked = true;
    t.server("a");
    t.filter.onBlocked!();
    expect(t.upstream.pauses).toBe(1);
    t.filter.onDrained!();
    expect(t.upstream.pauses).toBe(0);
    expect(t.cx.stats.value("cluster.e.upstream_flow_control_resumed_reading_total")).toBe(1);
  });
});

describe("a relay", () => {
  it("is asked for once the upstream is connected", () => {
    const t = start();
    expect(t.relayed).toEqual([]);
    t.handler.onConnected!();
    expect(t.relayed).toEqual([t.upstream]);
  });

  it("counts as bytes that pass here do", () => {
    const t = connected();
    t.filter.onRelayed!(120, 20, 1);
    t.handler.onRelayed!(7, 7, 1);
    t.client("more");
    t.filter.onRelayed!(0, 20, 1);
    expect(t.stat("downstream_cx_rx_bytes_total")).toBe(124);
    expect(t.stat("downstream_cx_rx_bytes_buffered")).toBe(4);
    expect(t.stat("downstream_cx_tx_bytes_total")).toBe(7);
    t.filter.onClose!(remoteClose);
    expect(t.stat("downstream_cx_rx_bytes_buffered")).toBe(0);
    const { bytesReceived, bytesSent, upstreamWire } = t.logged[0]!.info;
    expect([bytesReceived, bytesSent]).toEqual([124, 7]);
    expect(upstreamWire).toMatchObject({ wireReceived: 7, wireSent: 124 });
  });

  it("is asked what has passed before a log entry is written", () => {
    const t = connected({ access_log_options: { access_log_flush_interval: 1000 } });
    t.relaySettles.push(() => t.filter.onRelayed!(5, 5, 1));
    t.cx.clock.advance(1000);
    expect(t.logged.map(({ info }) => info.bytesReceived)).toEqual([5]);
  });

  it.each(["filter", "handler"] as const)(
    "is not idle when it has passed bytes of the %s",
    (side) => {
      const t = connected({ idle_timeout: 500 });
      t.relaySettles.push(() => t[side].onRelayed!(5, 5, t.cx.now() - 200));
      t.cx.clock.advance(500);
      expect(t.downstream.closed).toBeUndefined();
      t.cx.clock.advance(299);
      expect(t.downstream.closed).toBeUndefined();
      t.cx.clock.advance(1);
      expect(t.downstream.closed).toBe("abort");
    },
  );
});

describe("limits of time", () => {
  it("closes when nothing has come from either side for the idle timeout", () => {
    const t = connected({ idle_timeout: 500 });
    t.cx.clock.advance(300);
    t.server("still here");
    t.cx.clock.advance(499);
    expect(t.downstream.closed).toBeUndefined();
    t.cx.clock.advance(1);
    expect(t.downstream.closed).toBe("abort");
    expect(t.stat("idle_timeout")).toBe(1);
    t.filter.onClose!({ ...remoteClose, by: "local" });
    expect(t.upstream.closed).toBe("abort");
    expect(t.cx.clock.armed).toBe(0);
    expect(t.logged[0]?.info.downstreamLocalCloseReason).toBe("tcp_session_idle_timeout");
  });

  it("has no idle timeout when it is 0", () => {
    const t = connected({ idle_timeout: 0 });
    expect(t.cx.clock.armed).toBe(0);
  });

  it("closes a connection that has lived long enough, busy or not", () => {
    const t = connected({ max_downstream_connection_duration: 1000 });
    t.cx.clock.advance(999);
    t.client("busy");
    t.cx.clock.advance(1);
    expect(t.downstream.closed).toBe("abort");
    expect(t.stat("max_downstream_connection_duration")).toBe(1);
  });

  it("lets connections live longer by a random part of the percentage", () => {
    const all = Array.from({ length: 64 }, () =>
      connected({
        max_downstream_connection_duration: 1000,
        max_downstream_connection_duration_jitter_percentage: { value: 100 },
      }),
    );
    const closed = (ms: number) => {
      for (const { cx } of all) cx.clock.advance(ms);
      return all.filter(({ downstream }) => downstream.closed !== undefined).length;
    };
    expect(closed(999)).toBe(0);
    // All of them fall into one half once in 2^63 runs.
    const half = closed(501);
    expect(half > 0 && half < 64).toBe(true);
    expect(closed(500)).toBe(64);
  });
});

describe("backoff_options", () => {
  const config = {
    max_connect_attempts: 4,
    backoff_options: { base_interval: 1000, max_interval: 1500 },
  };

  it("wait between attempts, up to a time that doubles", () => {
    const waits = Array.from({ length: 64 }, () => {
      const t = start(config);
      return [1, 2, 3].map((failed) => {
        t.handler.onClosed(refused);
        const from = t.cx.now();
        while (t.upstreams.length === failed && t.cx.now() < from + 3000) t.cx.clock.advance(1);
        return t.cx.now() - from;
      });
    });
    const longest = [0, 1, 2].map((k) => Math.max(...waits.map((wait) => wait[k]!)));
    expect(longest[0]).toBeLessThanOrEqual(1000);
    expect(longest[1]).toBeGreaterThan(1000);
    expect(Math.max(...longest)).toBeLessThanOrEqual(1500);
  });

  it("keep what listener filters have read until there is an upstream", () => {
    const t = start(config, ["pending_overflow"]);
    t.client("hello");
    expect(t.upstreams).toHaveLength(0);
    t.cx.clock.advance(1000);
    t.handler.onConnected!();
    expect(t.upstream.written).toBe("hello");
  });

  it("make no further attempt for a client that has left", () => {
    const t = start(config);
    t.handler.onClosed(refused);
    t.filter.onClose!(remoteClose);
    expect(t.cx.clock.armed).toBe(0);
  });

  it("end with the last attempt", () => {
    const t = start(config, Array(4).fill("pending_overflow"));
    t.cx.clock.advance(5000);
    expect(t.downstream.closed).toBe("abort");
    expect(t.chosen).toHaveLength(4);
  });

  it("may not wait at most for less than at first", () => {
    expect(() => start({ backoff_options: { base_interval: 5, max_interval: 4 } })).toThrow(
      new ConfigError("backoff_options.max_interval", "is less than base_interval"),
    );
  });
});

describe("config", () => {
  it("spreads connections by the weights", () => {
    const clusters = [
      { name: "e", weight: 1 },
      { name: "f", weight: 3 },
    ];
    const counts: Record<string, number> = { e: 0, f: 0 };
    for (let k = 0; k < 400; k++) {
      const t = start({ cluster: undefined, weighted_clusters: { clusters } });
      counts[t.chosen[0]!]!++;
    }
    // 300 expected, with a standard deviation of 8.7.
    expect(counts.f).toBeGreaterThan(230);
    expect(counts.e).toBeGreaterThan(30);
  });

  it("asks for hosts by their metadata, and by a hash of the client's address", () => {
    const wants = (values: object) => ({ filter_metadata: { "envoy.lb": values } });
    const clusters = [{ name: "e", weight: 1, metadata_match: wants({ b: "2", c: "3" }) }];
    const { contexts, downstream } = start({
      cluster: undefined,
      weighted_clusters: { clusters },
      metadata_match: wants({ b: "1", a: true }),
      hash_policy: [{ source_ip: {} }],
    });
    expect(contexts[0]).toMatchObject({
      metadataMatch: [
        { key: "a", value: true },
        { key: "b", value: "2" },
        { key: "c", value: "3" },
      ],
      hash: xxHash64(downstream.remoteAddress.ip),
    });
    expect(start().contexts[0]).toMatchObject({ metadataMatch: undefined, hash: undefined });
  });

  it("asks for hosts by a hash of what a filter has left", () => {
    const config = { hash_policy: [{ filter_state: { key: "tenant" } }] };
    const hash = (state: Record<string, unknown>) => start(config, [], state).contexts[0]?.hash;
    expect(hash({ tenant: "a" })).toBe(xxHash64("a"));
    expect(hash({ other: "a" })).toBeUndefined();
  });

  it("refuses no cluster, and two ways to name one", () => {
    expect(() => start({ cluster: undefined })).toThrow(ConfigError);
    expect(() => start({ weighted_clusters: { clusters: [{ name: "e", weight: 1 }] } })).toThrow(
      /stands beside "cluster"/,
    );
  });
});

it("logs a connection once, with what passed", () => {
  const t = connected();
  t.client("ping", true);
  t.server("hello\nping");
  t.handler.onEof();
  t.cx.clock.advance(7);
  t.filter.onClose!(remoteClose);
  t.handler.onClosed(remoteClose);
  expect(t.logged).toHaveLength(1);
  expect(t.logged[0]).toMatchObject({
    request: undefined,
    info: {
      bytesReceived: 4,
      bytesSent: 10,
      clusterName: "e",
      duration: 7,
      flags: [],
      responseCode: 0,
    },
  });
});

it("names a connection for logs", () => {
  const ids = [start(), start()].map((t) => {
    t.filter.onClose!(remoteClose);
    return compileFormat("%STREAM_ID%").format(t.logged[0]!);
  });
  expect(ids[0]).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  expect(ids[0]).not.toBe(ids[1]);
});

it("logs when the client is there, when the upstream is, and again and again, when asked to", () => {
  const t = connected({
    access_log_options: {
      access_log_flush_interval: 1000,
      flush_access_log_on_start: true,
      flush_access_log_on_connected: true,
    },
  });
  t.cx.clock.advance(1000);
  t.filter.onClose!(remoteClose);
  t.cx.clock.advance(5000);
  const told = t.logged.map(({ logType, info }) => [logType, info.duration]);
  expect(told).toEqual([
    ["TcpConnectionStart", 0],
    ["TcpUpstreamConnected", 0],
    ["TcpPeriodic", 1000],
    ["TcpConnectionEnd", 1000],
  ]);
  expect(t.logged[3]!.downstream).toBe(t.downstream);
});

describe("filter state of the connection", () => {
  it("names the cluster, whatever the config says", () => {
    expect(start({}, undefined, { "envoy.tcp_proxy.cluster": "f" }).chosen).toEqual(["f"]);
    expect(
      start({}, undefined, { "envoy.tcp_proxy.cluster": "none" }).stat("downstream_cx_no_route"),
    ).toBe(1);
  });

  it("has the idle timeout", () => {
    const idle = { "envoy.tcp_proxy.per_connection_idle_timeout_ms": "50" };
    const t = start({}, undefined, idle);
    t.handler.onConnected!();
    t.cx.clock.advance(49);
    expect(t.downstream.closed).toBeUndefined();
    t.cx.clock.advance(1);
    expect([t.downstream.closed !== undefined, t.stat("idle_timeout")]).toEqual([true, 1]);
  });

  it("has no idle timeout if what stands there is no number of milliseconds", () => {
    const idle = { "envoy.tcp_proxy.per_connection_idle_timeout_ms": "soon" };
    const t = start({ idle_timeout: 70 }, undefined, idle);
    t.handler.onConnected!();
    t.cx.clock.advance(70);
    expect(t.stat("idle_timeout")).toBe(1);
  });

  it("switches tunnels off", () => {
    const tunneling_config = { hostname: "a.test:443", post_path: "", headers_to_add: [] };
    const off = { "envoy.tcp_proxy.disable_tunneling": true };
    expect(start({ tunneling_config }, undefined, off).upstreams).toHaveLength(1);
  });
});

describe("early data", () => {
  const onData = { upstream_connect_mode: "ON_DOWNSTREAM_DATA", max_early_data_bytes: 10 };

  it("is read up to the limit while the upstream is connected to, and counts when it comes", () => {
    const t = start({ max_early_data_bytes: 10 });
    expect([t.upstreams.length, t.downstream.pauses]).toEqual([1, 0]);
    t.client("12345");
    expect([t.downstream.pauses, t.stat("downstream_cx_rx_bytes_total")]).toEqual([0, 5]);
    t.client("67890");
    t.client("more");
    expect([t.downstream.pauses, t.stat("early_data_received_count_total")]).toEqual([1, 1]);
    t.handler.onConnected!();
    expect([t.upstream.written, t.downstream.pauses]).toEqual(["1234567890more", 0]);
    expect(t.stat("downstream_cx_rx_bytes_total")).toBe(14);
  });

  it("begins the connection in the mode ON_DOWNSTREAM_DATA, with what filters have left in filter state by then", () => {
    const t = start(onData);
    expect([t.upstreams.length, t.downstream.pauses, t.downstream.closed]).toEqual([
      0,
      0,
      undefined,
    ]);
    t.downstream.setFilterState("envoy.tcp_proxy.cluster", "f");
    t.client("hey");
    expect([t.chosen, t.downstream.pauses]).toEqual([["f"], 0]);
    t.handler.onConnected!();
    expect([t.upstream.written, t.downstream.pauses]).toEqual(["hey", 0]);
  });

  it("holds a client with a limit of 0 from its first bytes on", () => {
    const t = start({ ...onData, max_early_data_bytes: 0 });
    t.client("hey");
    expect([t.upstreams.length, t.downstream.pauses]).toEqual([1, 1]);
    t.handler.onConnected!();
    expect([t.upstream.written, t.downstream.pauses]).toEqual(["hey", 0]);
  });

  it("never comes from a client that says nothing, and its idle timeout ends that", () => {
    const t = start({ ...onData, idle_timeout: 2_000 });
    t.client("", true);
    t.cx.clock.advance(1_999);
    expect([t.upstreams.length, t.downstream.closed]).toEqual([0, undefined]);
    t.cx.clock.advance(1);
    expect([t.downstream.closed, t.stat("idle_timeout")]).toEqual(["abort", 1]);
  });

  it("needs a limit in every mode but IMMEDIATE", () => {
    for (const upstream_connect_mode of ["ON_DOWNSTREAM_DATA", "ON_DOWNSTREAM_TLS_HANDSHAKE"])
      expect(() => start({ upstream_connect_mode })).toThrow(
        /must be set when upstream_connect_mode/,
      );
  });
});

it("the idle timeout counts from the start of a connection, also while its upstream does not answer", () => {
  const t = start({ idle_timeout: 1_000 });
  t.cx.clock.advance(1_000);
  expect([t.downstream.closed, t.stat("idle_timeout")]).toEqual(["abort", 1]);
});

describe("a drain with check_drain_close", () => {
  const drain = { immediate: false, closes: () => true };

  it.each(["client", "server"] as const)("closes the connection after bytes of the %s", (side) => {
    const t = connected({ check_drain_close: true });
    // Core would tell of bytes only once in a while.
    expect(t.relayed).toEqual([]);
    t[side]("a");
    t.filter.onDrain!(drain);
    expect(t.downstream.closed).toBeUndefined();
    t[side]("b");
    expect([t.downstream.closed, t.stat("downstream_cx_drain_close")]).toEqual(["flush", 1]);
    t.filter.onClose!({ ...remoteClose, by: "local" });
    expect(t.logged[0]!.info.downstreamLocalCloseReason).toBe("tcp_proxy_drain_close");
  });

  it("comes of /healthcheck/fail too, but not to listeners that drain only when they change", () => {
    const [t, other] = [connected({ check_drain_close: true }), connected()];
    const spared = connected({ check_drain_close: true });
    Object.assign(spared.downstream, { listener: { drainType: "MODIFY_ONLY" } });
    for (const each of [t, other, spared]) {
      each.cx.publish("core/health_checks_fail", true);
      each.client("b");
    }
    expect([t, other, spared].map((each) => each.downstream.closed)).toEqual([
      "flush",
      undefined,
      undefined,
    ]);
  });
});
