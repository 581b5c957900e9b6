import { HeaderMap, type PoolFailure, type Reply } from "@tsproxy/sdk";
import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import { oneHost, routeTo, TestProxy } from "../../network/http_connection_manager/test-proxy.ts";
import router from "./filter.ts";

type Exchange = TestProxy["up"]["last"];

const REASON = "upstream connect error or disconnect/reset before headers. reset reason: ";

/** A proxy whose access log keeps code, flags, details and attempts of each stream. */
function proxy(config: object = {}) {
  const lines: string[] = [];
  const p = new TestProxy({ codec, router });
  p.cx.define("access_log/lines", {
    kind: "access_log",
    setup: () => ({
      log: ({ info }: { info: import("@tsproxy/sdk").StreamInfo }) =>
        void lines.push(
          `${info.responseCode} ${info.flags.join(",") || "-"} ${info.responseCodeDetails} ${info.attempts} cl=${info.clusterName} bs=${info.bytesSent} br=${info.bytesReceived}`,
        ),
    }),
  });
  const access_log = [{ name: "l", package: "access_log/lines", config: {} }];
  return Object.assign(p.start({ access_log, ...config }), { lines });
}

describe("a request whose upstream connection takes no bytes when it gets it", () => {
  it("waits only if its codec says so: the socket of an HTTP/2 connection is not its own", () => {
    const p = proxy();
    p.up.answer = "pending";
    const c = p.connect().send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nabc");
    expect(c.connection.pauses).toBe(1);
    p.up.last.connection.blocked = true;
    p.up.last.connect();
    expect(c.connection.pauses).toBe(0);
    p.up.last.block(true);
    expect(c.connection.pauses).toBe(1);
    p.up.last.block(false);
    c.send("defghi");
    expect(p.up.last.body).toBe("abcdefghi");
  });
});

describe("an upstream that fails before it answers", () => {
  const pool = (failure: Partial<PoolFailure>, config: object = {}) => {
    const p = proxy(config);
    p.up.answer = {
      reason: "connection_failed",
      host: failure.reason === "no_host" ? undefined : p.up.host,
      transportFailure: "",
      ...failure,
    };
    const c = p.connect().get("/");
    return { p, text: c.take(), line: p.lines[0] };
  };

  it("refuses the connection: 503 UF", () => {
    const { p, text, line } = pool({
      transportFailure: "delayed_connect_error: Connection refused",
    });
    expect(text).toBe(
      `HTTP/1.1 503 Service Unavailable\ncontent-length: 98\ncontent-type: text/plain\nserver: envoy\n\n${REASON}remote connection failure`,
    );
    expect(line).toBe(
      "503 UF upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused} 1 cl=up bs=98 br=0",
    );
    expect(p.up.host.told).toEqual(["reset"]);
    expect(p.cx.stats.value("cluster.up.upstream_rq_503")).toBe(1);
    expect(p.cx.stats.value("cluster.up.upstream_rq_5xx")).toBe(1);
    expect(p.cx.stats.value("cluster.up.external.upstream_rq_503")).toBe(1);
    expect(p.cx.stats.value("cluster.up.upstream_rq_completed")).toBe(1);
  });

  it("fails in TLS: the log is told why, the client is not", () => {
    const { text } = pool({ transportFailure: "TLS_error: handshake failed" });
    expect(text).toMatch(/remote connection failure$/);
  });

  it("does not connect in time: 503 UF", () => {
    const { text, line } = pool({ reason: "connection_timeout" });
    expect(text).toMatch(/reset reason: connection timeout$/);
    expect(line).toMatch(/^503 UF upstream_reset_before_response_started{connection_timeout} 1/);
  });

  it("is nowhere to be found: 503 UH", () => {
    const { text, line } = pool({ reason: "no_host" });
    expect(text).toMatch(/^HTTP\/1.1 503[\s\S]*\n\nno healthy upstream$/);
    expect(line).toBe("503 UH no_healthy_upstream 1 cl=up bs=19 br=0");
  });

  it("has too much to do: 503 UO, and says so in a header", () => {
    const { text, line } = pool({ reason: "overflow" });
    expect(text).toContain("x-envoy-overloaded: true\n");
    expect(text).toMatch(/reset reason: overflow$/);
    expect(line).toMatch(/^503 UO upstream_reset_before_response_started{overflow} 1/);
  });

  it("closes: 503 UC; resets: 503 UR; speaks something else: 502 UPE", () => {
    const p = proxy();
    const c = p.connect();
    const after = (act: () => void) => {
      c.get("/");
      act();
      return c.take().replace(/^HTTP\/1.1 (\d+)[\s\S]*reset reason: /, "$1 ");
    };
    expect(after(() => p.up.last.break("connection_closed"))).toBe("503 connection termination");
    expect(after(() => p.up.last.break("remote"))).toBe("503 remote reset");
    expect(after(() => p.up.last.garbage())).toBe("502 protocol error");
    expect(after(() => p.up.last.break("protocol_error"))).toBe("502 protocol error");
    expect(p.lines.map((line) => line.split(" ").slice(0, 3).join(" "))).toEqual([
      "503 UC upstream_reset_before_response_started{connection_termination}",
      "503 UR upstream_reset_before_response_started{remote_reset}",
      "502 UPE upstream_reset_before_response_started{protocol_error}",
      "502 UPE upstream_reset_before_response_started{protocol_error}",
    ]);
    expect(p.cx.stats.value("cluster.up.upstream_cx_protocol_error")).toBe(2);
    expect(p.up.host.told).toEqual(["reset", "reset", "reset", "reset"]);
  });

  it("breaks off after an interim answer: that is the one which counts", () => {
    const p = proxy({ route_config: oneHost(routeTo("up", { timeout: 100 })) });
    const c = p.connect().get("/");
    p.up.last.informational(103);
    p.up.last.break("remote");
    c.get("/");
    p.up.last.informational(103);
    p.cx.clock.advance(1001);
    expect(p.lines.map((line) => line.split(" ").slice(0, 3).join(" "))).toEqual([
      "503 UR upstream_reset_after_response_started{remote_reset}",
      "504 UT response_timeout",
    ]);
    const count = (name: string) => p.cx.stats.value(`cluster.up.upstream_rq_${name}`) ?? 0;
    expect([count("completed"), count("103"), count("5xx"), count("timeout")]).toEqual([
      2, 2, 0, 1,
    ]);
  });

  it("gets the route's response rules on the answer", () => {
    const p = proxy({
      route_config: oneHost({
        ...routeTo("up"),
        response_headers_to_add: [{ header: { key: "x-flags", value: "%RESPONSE_CODE_DETAILS%" } }],
      }),
    });
    const c = p.connect().get("/");
    p.up.last.break("connection_closed");
    expect(c.take()).toContain(
      "x-flags: upstream_reset_before_response_started{connection_termination}\n",
    );
  });
});

describe("an upstream that fails in the middle of its answer", () => {
  it("leaves a response that the client sees cut", () => {
    const p = proxy();
    const c = p.connect().get("/");
    p.up.last.respond(200, { "content-length": "100" });
    p.up.last.send("abc", false);
    p.up.last.break("connection_closed");
    expect(c.take()).toMatch(/\n\nabc$/);
    expect(c.connection.closed).toBe("delayed");
    expect(p.lines).toEqual([
      "200 UPE upstream_reset_after_response_started{protocol_error} 1 cl=up bs=3 br=0",
    ]);
    expect(p.cx.stats.value("cluster.up.upstream_cx_protocol_error")).toBe(1);
    // Envoy counts calls of gRPC alone, whose outcome was still to come.
    expect(p.cx.stats.value("http.test.rq_reset_after_downstream_response_started")).toBe(0);
  });
});

describe("the route timeout", () => {
  it("counts from the end of the request", () => {
    const p = proxy({ route_config: oneHost(routeTo("up", { timeout: 500 })) });
    const c = p.connect().send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabc");
    expect(p.up.last.header("x-envoy-expected-rq-timeout-ms")).toBe("500");
    p.cx.clock.advance(10_000);
    c.send("def");
    p.cx.clock.advance(499);
    expect(c.take()).toBe("");
    p.cx.clock.advance(1);
    expect(c.take()).toMatch(
      /^HTTP\/1.1 504 Gateway Timeout\n[\s\S]*\n\nupstream request timeout$/,
    );
    expect(p.up.last.wasReset).toBe(true);
    expect(p.lines).toEqual(["504 UT response_timeout 1 cl=up bs=24 br=6"]);
    expect(p.cx.stats.value("cluster.up.upstream_rq_timeout")).toBe(1);
    expect(p.cx.stats.value("cluster.up.upstream_rq_504")).toBe(1);
    expect(p.up.host.told).toEqual(["timeout"]);
  });

  it("ends a wait for a connection", () => {
    const p = proxy({ route_config: oneHost(routeTo("up", { timeout: 500 })) });
    p.up.answer = "pending";
    const c = p.connect().get("/");
    p.cx.clock.advance(500);
    expect(c.status()).toBe(504);
    expect(p.up.last.cancelled).toBe(true);
  });

  it("cuts a response that takes too long", () => {
    const p = proxy({ route_config: oneHost(routeTo("up", { timeout: 500 })) });
    const c = p.connect().get("/");
    p.up.last.respond(200, {});
    p.cx.clock.advance(500);
    expect(c.connection.closed).toBe("delayed");
    expect(p.lines).toEqual(["200 UT response_timeout 1 cl=up bs=0 br=0"]);
  });

  it("of 0 is none, and nothing is said of it upstream", () => {
    const p = proxy({ route_config: oneHost(routeTo("up", { timeout: 0 })) });
    const c = p.connect().get("/");
    p.cx.clock.advance(60_000);
    expect(c.take()).toBe("");
    expect(p.up.last.header("x-envoy-expected-rq-timeout-ms")).toBeUndefined();
  });

  const internal = {
    use_remote_address: true,
    internal_address_config: { cidr_ranges: [{ address_prefix: "192.0.2.0", prefix_len: 24 }] },
  };

  it("is an internal client's to set, and nobody else's", () => {
    const p = proxy(internal);
    const c = p.connect().get("/", "x-envoy-upstream-rq-timeout-ms: 200", "x-envoy-retry-on: 5xx");
    expect(p.up.last.header("x-envoy-upstream-rq-timeout-ms")).toBeUndefined();
    expect(p.up.last.header("x-envoy-retry-on")).toBeUndefined();
    expect(p.up.last.header("x-envoy-expected-rq-timeout-ms")).toBe("200");
    p.cx.clock.advance(200);
    expect(c.status()).toBe(504);
    expect(p.cx.stats.value("cluster.up.internal.upstream_rq_504")).toBe(1);
    const other = proxy();
    other.connect().get("/", "x-envoy-upstream-rq-timeout-ms: 200");
    expect(other.up.last.header("x-envoy-expected-rq-timeout-ms")).toBe("15000");
  });

  it("is none if the client gives two", () => {
    const p = proxy(internal);
    const twice = ["x-envoy-upstream-rq-timeout-ms: 200", "x-envoy-upstream-rq-timeout-ms: 900"];
    p.connect().get("/", ...twice);
    expect(p.up.last.header("x-envoy-expected-rq-timeout-ms")).toBe("15000");
  });

  it("is answered 204 for a client that asks for that", () => {
    const p = proxy(internal);
    const c = p
      .connect()
      .get(
        "/",
        "x-envoy-upstream-rq-timeout-ms: 200",
        "x-envoy-upstream-rq-timeout-alt-response: 1",
      );
    p.cx.clock.advance(200);
    expect(c.status()).toBe(204);
  });
});

describe("a request that goes nowhere", () => {
  it("has no route: 404 NR", () => {
    const p = proxy({ route_config: oneHost({ ...routeTo("up"), match: { path: "/only" } }) });
    const c = p.connect().get("/x");
    expect(c.take()).toBe("HTTP/1.1 404 Not Found\nserver: envoy\ncontent-length: 0\n\n");
    expect(p.lines).toEqual(["404 NR route_not_found 0 cl= bs=0 br=0"]);
    expect(p.cx.stats.value("http.test.no_route")).toBe(1);
    expect(p.cx.stats.value("cluster.up.upstream_rq_completed")).toBe(0);
  });

  it("has no cluster: 503 NC", () => {
    const p = proxy({
      route_config: oneHost({ match: { prefix: "/" }, route: { cluster_header: "x-c" } }),
    });
    p.connect().get("/", "x-c: nope");
    expect(p.lines).toEqual(["503 NC cluster_not_found 0 cl= bs=0 br=0"]);
  });

  it("is answered or sent elsewhere by its route", () => {
    const p = proxy({
      route_config: oneHost(
        { match: { path: "/r" }, redirect: { host_redirect: "new.test" } },
        { match: { path: "/d" }, direct_response: { status: 418, body: { inline_string: "tea" } } },
      ),
    });
    const c = p.connect().get("/r");
    expect(c.take()).toBe(
      "HTTP/1.1 301 Moved Permanently\nlocation: http://new.test/r\nserver: envoy\ncontent-length: 0\n\n",
    );
    c.get("/d");
    expect(c.take()).toMatch(/^HTTP\/1.1 418 [\s\S]*\n\ntea$/);
    expect(p.lines).toEqual([
      "301 - direct_response 0 cl= bs=0 br=0",
      "418 - direct_response 0 cl= bs=3 br=0",
    ]);
    expect(p.cx.stats.value("http.test.rq_direct_response")).toBe(2);
  });

  it("has the rewritten path from then on, and keeps the original, if its route redirects with a rewrite", () => {
    const seen = "%REQ(:PATH)% %REQ(X-ENVOY-ORIGINAL-PATH)%";
    const p = proxy({
      local_reply_config: { body_format: { text_format_source: { inline_string: seen } } },
      route_config: oneHost(
        { match: { prefix: "/a/" }, redirect: { prefix_rewrite: "/b/", strip_query: true } },
        { match: { prefix: "/f/" }, redirect: { path_redirect: "/fixed" } },
      ),
    });
    const c = p.connect().get("/a/q?x=1");
    expect(c.take()).toMatch(/location: \S+\/b\/q\n[^]*\n\n\/b\/q\?x=1 \/a\/q\?x=1$/);
    c.get("/f/q");
    expect(c.take()).toMatch(/location: \S+\/fixed\n[^]*\n\n\/f\/q -$/);
  });
});

describe("a response", () => {
  it("is counted by code and class, with its time", () => {
    const p = proxy();
    const c = p.connect().get("/");
    p.cx.clock.advance(40);
    p.up.last.respond(404, {}, "no");
    expect(c.take()).toContain("x-envoy-upstream-service-time: 40\n");
    const value = (name: string) => p.cx.stats.value(`cluster.up.${name}`);
    expect([value("upstream_rq_404"), value("upstream_rq_4xx")]).toEqual([1, 1]);
    expect(value("external.upstream_rq_completed")).toBe(1);
    expect(p.cx.stats.recorded.get("cluster.up.upstream_rq_time")).toEqual([40]);
    expect(p.cx.stats.recorded.get("cluster.up.external.upstream_rq_time")).toEqual([40]);
    expect(p.up.host.told).toEqual([404]);
    expect(p.lines).toEqual(["404 - via_upstream 1 cl=up bs=2 br=0"]);
  });

  it("tells how its host did by the gRPC status: of the head for good, of trailers for the counts alone", () => {
    const call = "content-type: application/grpc";
    const told = (answer: (up: Exchange) => void) => {
      const p = proxy();
      p.connect().post("/", "call", call);
      answer(p.up.last);
      return p.up.host.told;
    };
    expect(told((up) => up.respond(200, { "grpc-status": "14" }, ""))).toEqual([503]);
    expect(told((up) => up.respond(200, { "grpc-status": "5" }, ""))).toEqual([404]);
    const withTrailers = (status: string) => (up: Exchange) => {
      up.respond(200);
      const trailers = new HeaderMap();
      trailers.append("grpc-status", status);
      up.endWithTrailers(trailers);
    };
    expect(told(withTrailers("0"))).toEqual(["200 deferred", "ok"]);
    expect(told(withTrailers("14"))).toEqual(["200 deferred", "error"]);
    expect(told((up) => up.respond(200, {}, "body"))).toEqual(["200 deferred", "error"]);
  });

  it("passes its trailers", () => {
    const p = proxy({ http_protocol_options: { enable_trailers: true } });
    const c = p.connect().get("/", "te: trailers");
    p.up.last.respond(200, {});
    p.up.last.send("ab", false);
    const trailers = new HeaderMap();
    trailers.append("x-sum", "42");
    p.up.last.endWithTrailers(trailers);
    expect(c.take()).toMatch(/2\nab\n0\nx-sum: 42\n\n$/);
  });

  it("that ends before its request costs the upstream connection", () => {
    const p = proxy();
    p.connect().send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabc");
    p.up.last.respond(200, {}, "no");
    expect(p.up.last.wasReset).toBe(true);
  });

  it("has none of Envoy's headers, and neither has the request, if they are suppressed", () => {
    const p = new TestProxy({ codec, router });
    const route_config = oneHost(routeTo("up", { prefix_rewrite: "/new" }));
    p.start({ route_config }, { suppress_envoy_headers: true });
    const c = p.connect().get("/x");
    expect(p.up.last.headers.map(([name]) => name)).toEqual([
      "host",
      "x-forwarded-proto",
      "x-request-id",
    ]);
    p.up.last.respond(200, {}, "");
    expect(c.take()).not.toContain("x-envoy");
  });
});

describe("a request with a body", () => {
  it("and trailers waits for its connection whole", () => {
    const p = proxy({ http_protocol_options: { enable_trailers: true } });
    p.up.answer = "pending";
    p.connect().send(
      "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-end: yes\r\n\r\n",
    );
    p.up.last.connect();
    expect(p.up.last.body).toBe("abc");
    expect(p.up.last.trailers).toEqual([["x-end", "yes"]]);
    expect(p.up.last.ended).toBe(true);
  });

  it("does not fill the proxy while it waits", () => {
    const p = proxy();
    p.up.answer = "pending";
    const c = p.connect().send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3000000\r\n\r\n");
    for (let k = 0; k < 40 && c.connection.closed === undefined; k++) c.send("x".repeat(64 * 1024));
    expect(c.take()).toContain("HTTP/1.1 413 Payload Too Large");
    expect(p.up.last.cancelled).toBe(true);
  });
});

it("is told nothing by replies of other filters but to stop", () => {
  let late: (verdict: Reply) => void = () => {};
  const p = new TestProxy({ codec, router })
    .filter("late", () => ({
      onResponseHeaders: () => new Promise<Reply>((resolve) => (late = resolve)),
    }))
    .start({ stream_idle_timeout: 1000 });
  const c = p.connect().get("/");
  p.up.last.respond(200, {});
  p.cx.clock.advance(1001);
  expect(c.status()).toBe(504);
  expect(p.up.last.wasReset).toBe(true);
  expect(late).toBeTypeOf("function");
});
