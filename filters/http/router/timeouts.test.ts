import type { StreamInfo } from "@tsproxy/sdk";
import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import {
  oneHost,
  proxies,
  routeTo,
  TestProxy,
} from "../../network/http_connection_manager/test-proxy.ts";
import router from "./filter.ts";

const proxy = proxies({ codec, router });

describe("a route's limits on time", () => {
  it("max_stream_duration takes the place of the timeout", () => {
    const p = proxy({}, { timeout: 100, max_stream_duration: { max_stream_duration: 500 } });
    const c = p.connect().get("/");
    expect(p.up.last.header("x-envoy-expected-rq-timeout-ms")).toBeUndefined();
    p.cx.clock.advance(499);
    expect(c.take()).toBe("");
    p.cx.clock.advance(1);
    expect(c.take()).toMatch(/^HTTP\/1.1 504 [\s\S]*downstream duration timeout$/);
    expect(p.lines[0]).toMatch(/^504 - max_duration_timeout/);
  });

  it("heeds grpc-timeout up to a maximum, less an offset", () => {
    const p = proxy(
      {},
      { max_stream_duration: { grpc_timeout_header_max: 400, grpc_timeout_header_offset: 100 } },
    );
    const c = p.connect().get("/", "grpc-timeout: 1S");
    p.cx.clock.advance(300);
    expect(c.status()).toBe(504);
  });

  it("max_grpc_timeout of 0 heeds grpc-timeout without a maximum, and has no timeout without one", () => {
    const p = proxy({}, { max_grpc_timeout: 0, retry_policy: undefined });
    const grpc = "content-type: application/grpc";
    const asked = p.connect().get("/", grpc, "grpc-timeout: 300m");
    p.cx.clock.advance(300);
    expect(asked.take()).toContain("grpc-status: 14");
    const patient = p.connect().get("/", grpc);
    p.cx.clock.advance(60_000);
    expect(patient.take()).toBe("");
  });

  it("max_grpc_timeout does the same in the older way", () => {
    const p = proxy({}, { max_grpc_timeout: 400 });
    const c = p.connect().get("/", "content-type: application/grpc", "grpc-timeout: 1S");
    expect(p.up.last.header("x-envoy-expected-rq-timeout-ms")).toBe("400");
    expect(p.up.last.header("grpc-timeout")).toBe("400m");
    p.cx.clock.advance(400);
    expect(c.take()).toContain("grpc-status: 14");
  });
});

describe("a request that asks for an upgrade", () => {
  const UPGRADES = { upgrade_configs: [{ upgrade_type: "websocket" }] };
  const WS = ["connection: Upgrade", "upgrade: websocket"];

  it("has the route's timeout from its head on, until its answer begins", () => {
    const p = proxy({}, { timeout: 1000 }, {}, UPGRADES);
    const late = p.connect().get("/", ...WS);
    p.cx.clock.advance(999);
    expect(late.take()).toBe("");
    p.cx.clock.advance(1);
    expect(late.take()).toMatch(/^HTTP\/1.1 504 [\s\S]*upstream request timeout$/);
    const c = p.connect().get("/", ...WS);
    p.cx.clock.advance(999);
    p.up.last.respond(101, { upgrade: "websocket" });
    p.cx.clock.advance(10_000);
    p.up.last.send("hello", false);
    expect(c.take()).toMatch(/^HTTP\/1.1 101 [\s\S]*hello$/);
  });

  it("is tried again when a try has taken too long", () => {
    const retry_policy = { retry_on: "5xx", per_try_timeout: 100 };
    const p = proxy({}, { timeout: 1000, retry_policy }, {}, UPGRADES);
    const c = p.connect().get("/", ...WS);
    const first = p.up.last;
    // The back-off is 24 ms at most.
    p.cx.clock.advance(150);
    expect(first.wasReset).toBe(true);
    expect(p.up.last).not.toBe(first);
    p.up.last.respond(101, { upgrade: "websocket" });
    expect(c.status()).toBe(101);
  });

  it("is logged with the time of the upstream's answer that refuses the handshake", () => {
    const came: number[] = [];
    const p = new TestProxy({ codec, router });
    p.cx.define("access_log/came", {
      kind: "access_log",
      setup: () => ({
        log: ({ info }: { info: StreamInfo }) => void came.push(info.responseDuration),
      }),
    });
    p.start({
      access_log: [{ name: "l", package: "access_log/came", config: {} }],
      ...UPGRADES,
    });
    for (const status of [200, 302]) {
      p.connect().get("/", ...WS);
      p.cx.clock.advance(30);
      p.up.last.respond(status);
    }
    expect(came).toEqual([30, 30]);
  });
});

it("that passes while a connection is awaited is logged with the host that it is to", () => {
  const hosts: unknown[] = [];
  const p = new TestProxy({ codec, router });
  p.cx.define("access_log/hosts", {
    kind: "access_log",
    setup: () => ({
      log: ({ info }: { info: StreamInfo }) => void hosts.push(info.upstreamHost),
    }),
  });
  p.start({
    access_log: [{ name: "l", package: "access_log/hosts", config: {} }],
    route_config: oneHost(routeTo("up", { timeout: 100 })),
  });
  p.up.answer = "pending";
  const c = p.connect().get("/");
  p.cx.clock.advance(100);
  expect(c.status()).toBe(504);
  expect(hosts).toEqual([p.up.host.address]);
});

it("ends an exchange that takes longer than its cluster allows", () => {
  const p = proxy({});
  p.up.maxStreamDurationMs = 100;
  const c = p.connect().get("/");
  p.cx.clock.advance(100);
  expect(c.take()).toMatch(/^HTTP\/1.1 504 [\s\S]*upstream max stream duration reached$/);
  expect(p.lines).toEqual(["504 UMSDR upstream_max_stream_duration_reached 1"]);
});
