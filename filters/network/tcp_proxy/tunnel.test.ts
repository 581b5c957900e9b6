import {
  type AccessLogger,
  Chunk,
  type CloseEvent,
  defineAccessLogger,
  HeaderMap,
  type LogEntry,
  latin1Encode,
  type PoolFailure,
  Type,
} from "@tsproxy/sdk";
import { TestCluster, TestConnection, TestContext, withDefaults } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import { Config } from "./config.ts";
import tcpProxy from "./filter.ts";

const left: CloseEvent = { by: "remote", phase: "connected", timeout: false, error: undefined };

function start(
  tunneling_config: Record<string, unknown>,
  more: { attempts?: number; answer?: TestCluster["answer"] } = {},
) {
  const cx = new TestContext();
  const cluster = new TestCluster("hop", cx.stats);
  cluster.answer = more.answer ?? "ready";
  cx.clusterMap.set("hop", cluster);
  const logged: LogEntry[] = [];
  const logger: AccessLogger = { log: (entry) => void logged.push(entry) };
  cx.define(
    "access_log/test",
    defineAccessLogger({ name: "test", config: Type.Object({}), setup: () => logger }),
  );
  const config = withDefaults(Config, {
    stat_prefix: "t",
    cluster: "hop",
    max_connect_attempts: more.attempts ?? 1,
    access_log: [{ name: "test", package: "access_log/test", config: {} }],
    tunneling_config,
  });
  const downstream = new TestConnection();
  const filter = cx.setup(tcpProxy, config).create(downstream, downstream.chain);
  filter.onConnect!();
  return {
    cx,
    cluster,
    downstream,
    filter,
    client(text: string, endStream = false) {
      const memory = latin1Encode(text);
      filter.onData!(new Chunk(memory, 0, memory.length), endStream);
    },
    /** What the access log says of it. */
    end(event: CloseEvent = { ...left, by: "local" }) {
      filter.onClose!(event);
      return logged[0]!.info;
    },
  };
}

describe("asking for a tunnel", () => {
  it("asks with CONNECT, and sends nothing before the answer", () => {
    const t = start({ hostname: "host.com:443" });
    const { last } = t.cluster;
    t.client("early");
    expect([last.method, last.headers, last.body]).toEqual([
      "CONNECT",
      [["host", "host.com:443"]],
      "",
    ]);
    last.respond(200);
    expect(last.body).toBe("early");
    t.client(" and late");
    last.send("answer", false);
    expect([last.body, t.downstream.written]).toEqual(["early and late", "answer"]);
  });

  it("asks for a host whose value is missing as -, as in Envoy", () => {
    const { last } = start({ hostname: "%REQUESTED_SERVER_NAME%:443" }).cluster;
    expect(last.headers).toEqual([["host", "-:443"]]);
  });

  it("asks with POST for the path of the config", () => {
    expect(start({ hostname: "h", use_post: true }).cluster.last).toMatchObject({
      method: "POST",
      path: "/",
    });
    const t = start({ hostname: "h", use_post: true, post_path: "/tunnel" });
    expect(t.cluster.last.path).toBe("/tunnel");
    const far = start({ hostname: "h", use_post: true, post_path: "/ж" });
    expect(far.cluster.last.path).toBe(`/${Buffer.from("ж").toString("latin1")}`);
  });

  it("fills in the host name and adds headers from what it knows of the client", () => {
    const t = start({
      hostname: "p%DOWNSTREAM_LOCAL_PORT%:1",
      headers_to_add: [
        { header: { key: "x-from", value: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%" } },
      ],
    });
    expect(t.cluster.last.headers).toEqual([
      ["host", "p10000:1"],
      ["x-from", "192.0.2.1"],
    ]);
  });

  it.each([
    [{ hostname: "h", post_path: "/p" }, /use_post/],
    [{ hostname: "%NOPE%" }, /NOPE/],
    [{ hostname: "h", headers_to_add: [{ header: { key: "a", value: "%NOPE%" } }] }, /NOPE/],
  ])("refuses %j", (config, message) => {
    expect(() => start(config)).toThrow(message);
  });
});

describe("a tunnel that does not come about", () => {
  it("tries again after another status, and tells which it was", () => {
    const t = start({ hostname: "h" }, { attempts: 2 });
    t.cluster.last.respond(503);
    expect(t.cluster.exchanges.map((exchange) => exchange.wasReset)).toEqual([true, false]);
    t.cluster.last.respond(407);
    expect(t.downstream.closed).toBe("abort");
    expect(t.cx.stats.value("cluster.hop.upstream_cx_connect_attempts_exceeded")).toBe(1);
    expect(t.end()).toMatchObject({
      flags: ["UF", "URX"],
      upstreamTransportFailure: "tunnel_response:407",
      attempts: 2,
      upstreamConnectionId: 500,
    });
  });

  it("keeps the flag of the attempt that failed when the next one comes through", () => {
    const t = start({ hostname: "h" }, { attempts: 2 });
    t.cluster.last.break("connection_closed");
    t.cluster.last.respond(200);
    expect(t.downstream.closed).toBeUndefined();
    expect(t.end().flags).toEqual(["UF"]);
  });

  it.each([
    ["no_host", ["UH"]],
    ["overflow", ["UO"]],
    ["connection_failed", ["UF", "URX"]],
  ] as const)("closes when the pool answers %s", (reason, flags) => {
    const failure: PoolFailure = { reason, host: undefined, transportFailure: "" };
    const t = start({ hostname: "h" }, { answer: failure });
    expect(t.downstream.closed).toBe("abort");
    expect(t.end().flags).toEqual(flags);
  });

  it("waits for no connection once the client has left", () => {
    const t = start({ hostname: "h" }, { answer: "pending" });
    t.end(left);
    expect(t.cluster.last.cancelled).toBe(true);
  });

  it("takes an answer that breaks the protocol for a failure, and counts it", () => {
    const t = start({ hostname: "h" });
    t.cluster.last.garbage();
    expect(t.downstream.closed).toBe("abort");
    expect(t.cx.stats.value("cluster.hop.upstream_cx_protocol_error")).toBe(1);
  });
});

describe("an open tunnel", () => {
  function open() {
    const t = start({ hostname: "h" });
    t.cluster.last.respond(200);
    return t;
  }

  it("ends half by half over HTTP/2, and gives the exchange back whole", () => {
    const t = open();
    Object.assign(t.cluster.last, { protocol: "HTTP/2" });
    t.client("last", true);
    expect([t.cluster.last.body, t.cluster.last.ended]).toEqual(["last", true]);
    expect(t.cluster.last.connection.closed).toBeUndefined();
    t.cluster.last.send("answer", true);
    expect([t.downstream.written, t.downstream.closed]).toEqual(["answer", "flush"]);
    t.end(left);
    expect(t.cluster.last.wasReset).toBe(false);
  });

  it.each(["CONNECT", "POST"])("ends with the client's half of a %s over HTTP/1.1", (method) => {
    const t = start({ hostname: "h", use_post: method === "POST" });
    t.cluster.last.respond(200);
    t.client("last", true);
    expect([t.cluster.last.body, t.cluster.last.ended]).toEqual(["last", true]);
    expect(t.cluster.last.connection.closed).toBe("flush");
    t.cluster.last.break("connection_closed");
    expect(t.downstream.closed).toBe("flush");
  });

  it("leaves the connection to the pool once the upstream has ended too", () => {
    const t = open();
    t.cluster.last.send("bye", true);
    t.client("last", true);
    expect(t.cluster.last.connection.closed).toBeUndefined();
    expect(t.downstream.closed).toBe("flush");
  });

  it("goes on towards the upstream after the upstream has ended", () => {
    const t = open();
    t.cluster.last.send("bye", true);
    expect(t.downstream.ended).toBe(true);
    t.client("more");
    expect(t.cluster.last.body).toBe("more");
  });

  it("is reset when the client leaves", () => {
    const t = open();
    t.end(left);
    expect(t.cluster.last.wasReset).toBe(true);
    expect(t.cx.stats.value("tcp.t.upstream_flush_total")).toBe(0);
  });

  it("lets the client go when it is reset", () => {
    const t = open();
    t.cluster.last.break("remote");
    expect(t.downstream.closed).toBe("flush");
  });

  it("passes back-pressure on both ways", () => {
    const t = open();
    t.cluster.last.block(true);
    expect(t.downstream.pauses).toBe(1);
    t.cluster.last.block(false);
    expect(t.downstream.pauses).toBe(0);
    t.filter.onBlocked!();
    expect(t.cluster.last.paused).toBe(true);
    t.filter.onDrained!();
    expect(t.cluster.last.paused).toBe(false);
  });
});

describe("the answer to a tunnel", () => {
  const state = (t: ReturnType<typeof start>, what: string) =>
    t.downstream.filterState?.get(`envoy.tcp_proxy.propagate_response_${what}`);

  it("leaves its headers and trailers in filter state, if they are asked for", () => {
    const all = { propagate_response_headers: true, propagate_response_trailers: true };
    const t = start({ hostname: "h:1", ...all });
    t.cluster.last.respond(200, { "x-one": "1", "x-two": "2" });
    const trailers = new HeaderMap();
    trailers.append("x-end", "3");
    t.cluster.last.endWithTrailers(trailers);
    expect(state(t, "headers")).toEqual({
      headers: [
        { key: ":status", value: "200" },
        { key: "x-one", value: "1" },
        { key: "x-two", value: "2" },
      ],
    });
    expect(state(t, "trailers")).toEqual({ headers: [{ key: "x-end", value: "3" }] });
  });

  it("does so when it refuses, and does not when nobody asks", () => {
    const t = start({ hostname: "h:1", propagate_response_headers: true });
    t.cluster.last.respond(503);
    expect(state(t, "headers")).toEqual({ headers: [{ key: ":status", value: "503" }] });
    const other = start({ hostname: "h:1" });
    other.cluster.last.respond(200);
    expect(state(other, "headers")).toBeUndefined();
  });
});
