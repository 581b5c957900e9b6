import { compileFormat, defineHttpFilter, Type } from "@tsproxy/sdk";
import { TestHost } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import { oneHost, routeTo, TestProxy } from "../../network/http_connection_manager/test-proxy.ts";
import upstreamCodec from "../upstream_codec/filter.ts";
import router from "./filter.ts";

/** A proxy whose router logs attempts in this format, and the lines. */
function logging(format: string, route: object, filters: readonly object[] = []) {
  const p = new TestProxy({ codec, router });
  const line = compileFormat(format);
  const lines: string[] = [];
  p.cx.define("access_log/tries", {
    kind: "access_log",
    setup: () => ({
      log: (entry: import("@tsproxy/sdk").LogEntry) => void lines.push(line.format(entry)),
    }),
  });
  p.cx.define("http/upstream_codec", upstreamCodec);
  const mark = () => ({
    onRequestHeaders: (headers: import("@tsproxy/sdk").RequestHeaders) =>
      headers.append("x-seen", "yes"),
  });
  p.cx.define(
    "http/mark",
    defineHttpFilter({ name: "mark", config: Type.Object({}), setup: () => mark }),
  );
  const config = {
    dynamic_stats: true,
    strict_check_headers: [],
    upstream_log: [{ name: "l", package: "access_log/tries", config: {} }],
    upstream_log_options: { flush_upstream_log_on_upstream_stream: true },
    upstream_http_filters: filters,
  };
  return {
    p,
    lines,
    start: (access_log: readonly object[] = []) => start(p, config, route, access_log),
  };
}

function start(
  p: TestProxy,
  config: object,
  route: object,
  access_log: readonly object[],
): TestProxy {
  return p.start({
    access_log,
    route_config: oneHost(routeTo("up", route)),
    http_filters: [{ name: "r", package: "http/router", config }],
  });
}

describe("upstream_log", () => {
  it("has a line for every attempt, with its own code, flags and sizes", () => {
    const { p, lines, start } = logging(
      "%ACCESS_LOG_TYPE% %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_SENT% %BYTES_RECEIVED% %RESP(x-t)% %PROTOCOL%",
      { retry_policy: { retry_on: "5xx", num_retries: 2, per_try_timeout: 500 } },
    );
    start();
    p.connect().send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n12345");
    p.up.last.respond(503, { "x-t": "one" }, "busy");
    p.cx.clock.advance(250);
    p.cx.clock.advance(500);
    p.cx.clock.advance(250);
    p.up.last.respond(200, { "x-t": "two" }, "done!!");
    expect(lines).toEqual([
      "UpstreamPoolReady 0 - 0 0 - HTTP/1.1",
      "UpstreamEnd 503 - 5 0 one HTTP/1.1",
      "UpstreamPoolReady 0 - 0 0 - HTTP/1.1",
      "UpstreamEnd 0 UT 5 0 - HTTP/1.1",
      "UpstreamPoolReady 0 - 0 0 - HTTP/1.1",
      "UpstreamEnd 200 - 5 6 two HTTP/1.1",
    ]);
  });

  it("tells which limit a try has met, hedged or not", () => {
    const ended = (retry: object, route: object) => {
      const { p, lines, start } = logging("%ACCESS_LOG_TYPE% %RESPONSE_CODE% %RESPONSE_FLAGS%", {
        retry_policy: { retry_on: "5xx", num_retries: 1, ...retry },
        timeout: 400,
        ...route,
      });
      start();
      p.connect().get("/");
      for (let k = 0; k < 8; k++) p.cx.clock.advance(50);
      return lines.filter((line) => line.startsWith("UpstreamEnd"));
    };
    const hedged = { hedge_policy: { hedge_on_per_try_timeout: true } };
    const idle = { per_try_timeout: 150, per_try_idle_timeout: 100 };
    for (const route of [{}, hedged]) {
      expect(ended(idle, route)).toEqual(["UpstreamEnd 0 SI", "UpstreamEnd 0 SI"]);
      expect(ended({ per_try_timeout: 100, per_try_idle_timeout: 150 }, route)).toEqual([
        "UpstreamEnd 0 UT",
        "UpstreamEnd 0 UT",
      ]);
    }
  });

  it("says of an attempt that got no connection how long it took", () => {
    const { p, lines, start } = logging(
      "%RESPONSE_FLAGS% %UPSTREAM_CONNECTION_POOL_READY_DURATION%",
      {},
    );
    start();
    p.up.answer = "pending";
    p.connect().get("/");
    p.cx.clock.advance(40);
    p.up.last.fail({});
    expect(lines).toEqual(["UF 40"]);
  });

  it("tells what the client got of a response, and when its last byte came", () => {
    const { p, lines, start } = logging(
      "%ACCESS_LOG_TYPE% %DOWNSTREAM_WIRE_BYTES_SENT% %COMMON_DURATION(US_RX_BEG:US_RX_END:ms)% %STREAM_ID%",
      {},
    );
    start();
    const c = p.connect().get("/");
    p.up.last.respond(200, { "content-length": "4" });
    p.cx.clock.advance(7);
    p.up.last.send("done", true);
    const sent = c.connection.take().length;
    expect(lines).toEqual(["UpstreamPoolReady 0 - -", `UpstreamEnd ${sent} 7 -`]);
  });

  it("knows the host of an attempt that is left while it waits, and nothing of the client's bytes", () => {
    const { p, lines, start } = logging("%UPSTREAM_HOST% %DOWNSTREAM_WIRE_BYTES_RECEIVED%", {});
    start();
    p.up.answer = "pending";
    p.connect().get("/").leave();
    expect(lines).toEqual(["198.51.100.1:8080 0"]);
  });

  it("has the lines of hedged tries in their order, and the request's own tells of the one that answered", () => {
    const said = "%UPSTREAM_HOST% %RESPONSE_CODE% %REQUEST_TX_DURATION%";
    const { p, lines, start } = logging(`%ACCESS_LOG_TYPE% ${said}`, {
      hedge_policy: { hedge_on_per_try_timeout: true },
      retry_policy: { retry_on: "5xx", num_retries: 2, per_try_timeout: 100 },
    });
    const request = compileFormat(said);
    let ended = "";
    p.cx.define("access_log/request", {
      kind: "access_log",
      setup: () => ({
        log: (entry: import("@tsproxy/sdk").LogEntry) => void (ended = request.format(entry)),
      }),
    });
    for (const n of [2, 3]) p.up.hosts.push(new TestHost({ ip: "10.0.0.1", port: n }));
    start([{ name: "r", package: "access_log/request", config: {} }]);
    p.connect().get("/");
    for (let k = 0; k < 8; k++) p.cx.clock.advance(50);
    const [slow, ...others] = p.up.exchanges;
    expect(others.length).toBe(2);
    slow!.respond(200, { "content-length": "0" }, "");
    const ends = lines.filter((line) => line.startsWith("UpstreamEnd"));
    expect(ends.map((line) => line.split(" ").slice(1, 3).join(" "))).toEqual([
      ...others.map(({ host }) => `${host.key} 0`),
      `${slow!.host.key} 200`,
    ]);
    expect(ended).toBe(`${slow!.host.key} 200 0`);
  });

  it("has lines for mirrors, which pass upstream filters and have no client and no route", () => {
    const chain = ["mark", "upstream_codec"].map((name) => ({
      ...{ name, package: `http/${name}`, config: {}, disabled: false },
    }));
    const { p, lines, start } = logging(
      "%ACCESS_LOG_TYPE% %UPSTREAM_CLUSTER% %REQ(:AUTHORITY)% %RESPONSE_CODE% %BYTES_SENT% %BYTES_RECEIVED% " +
        "[%DOWNSTREAM_REMOTE_ADDRESS%] %CONNECTION_ID% %ROUTE_NAME% %RESPONSE_TX_DURATION%",
      { request_mirror_policies: [{ cluster: "copy", cluster_header: "" }] },
      chain,
    );
    const copy = p.cluster("copy");
    start();
    p.connect().post("/", "12345");
    p.up.last.respond(200, {}, "yes");
    lines.length = 0;
    copy.last.respond(500, {}, "no");
    expect(lines).toEqual(["UpstreamEnd copy h.test-shadow 500 5 2 [-] 0 - -"]);
    expect([p.up.last.header("x-seen"), copy.last.header("x-seen")]).toEqual(["yes", "yes"]);
    p.connect().get("/");
    lines.length = 0;
    copy.last.garbage();
    expect(lines).toEqual(["UpstreamEnd copy h.test-shadow 0 0 0 [-] 0 - -"]);
  });

  it("counts the wire's bytes of all of the request's attempts", () => {
    const { p, lines, start } = logging("%UPSTREAM_WIRE_BYTES_SENT%", {
      retry_policy: { retry_on: "5xx" },
    });
    start();
    p.connect().get("/");
    Object.assign(p.up.last, { wireSent: 40 });
    p.up.last.respond(503, {}, "busy");
    p.cx.clock.advance(250);
    Object.assign(p.up.last, { wireSent: 50 });
    p.up.last.respond(200, {}, "");
    expect(lines).toEqual(["0", "40", "40", "90"]);
  });

  it("counts what the codec learns of only when an attempt is given up", () => {
    const { p, lines, start } = logging("%UPSTREAM_WIRE_BYTES_RECEIVED%", {
      retry_policy: { retry_on: "5xx" },
    });
    start();
    p.connect().get("/");
    const { last } = p.up;
    Object.assign(last, {
      wireReceived: 37,
      reset: () => Object.assign(last, { wireReceived: 40 }),
    });
    last.respond(503);
    expect(lines).toEqual(["0", "40"]);
  });
});
