import { Chunk, reply } from "@tsproxy/sdk";
import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import router from "../../http/router/filter.ts";
import { oneHost, routeTo, TestProxy } from "./test-proxy.ts";

const proxy = () => new TestProxy({ codec, router });

describe("an exchange", () => {
  it("passes a request up and its response down, with the headers that Envoy adds", () => {
    const p = proxy().start();
    const c = p.connect().get("/a?b=1", "x-own: 1");
    const { last } = p.up;
    expect(`${last.method} ${last.path} ended=${last.ended}`).toBe("GET /a?b=1 ended=true");
    expect(last.headers.map(([name]) => name)).toEqual([
      "host",
      "x-own",
      "x-forwarded-proto",
      "x-request-id",
      "x-envoy-expected-rq-timeout-ms",
    ]);
    expect(last.header("x-request-id")).toMatch(
      /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    );
    last.respond(200, { "x-up": "yes", "content-length": "5" }, "hello");
    expect(c.take()).toBe(
      "HTTP/1.1 200 OK\nx-up: yes\ncontent-length: 5\nx-envoy-upstream-service-time: 0\nserver: envoy\n\nhello",
    );
    expect(c.connection.open).toBe(true);
  });

  it("serves one request after the other on a connection, each with an id of its own", () => {
    const p = proxy().start();
    const c = p.connect();
    const ids = [1, 2, 3].map((n) => {
      c.get(`/${n}`);
      const id = p.up.last.header("x-request-id");
      p.up.last.respond(200, { "content-length": "0" }, "");
      expect(c.status()).toBe(200);
      return id;
    });
    expect(new Set(ids).size).toBe(3);
    expect(p.cx.stats.value("http.test.downstream_rq_total")).toBe(3);
    expect(p.cx.stats.value("http.test.downstream_rq_active")).toBe(0);
    expect(p.cx.stats.value("http.test.downstream_rq_2xx")).toBe(3);
    expect(p.cx.stats.value("listener.127.0.0.1_10000.http.test.downstream_rq_completed")).toBe(3);
  });

  it("counts a client that leaves without a word in no protocol", () => {
    const p = proxy().start();
    const { connection, filter } = p.connect();
    filter.onData?.(new Chunk(new Uint8Array(0), 0, 0), true);
    expect(connection.closed).toBe("flush");
    expect(p.cx.stats.value("http.test.downstream_cx_http1_total")).toBe(0);
  });

  it("counts health checks apart from the codes", () => {
    const p = new TestProxy({ codec, router })
      .filter("check", (stream) => ({
        onRequestHeaders() {
          stream.info.healthCheck = true;
          return reply(503);
        },
      }))
      .start();
    p.connect().get("/");
    expect(p.cx.stats.value("http.test.downstream_rq_completed")).toBe(0);
    expect(p.cx.stats.value("http.test.tracing.health_check")).toBe(1);
  });

  it("keeps a head whose bytes are gone when the pool is slow", () => {
    const p = proxy().start();
    p.up.answer = "pending";
    p.connect().get("/kept", "x-a: 1");
    p.up.last.connect();
    expect(p.up.last.path).toBe("/kept");
    expect(p.up.last.header("x-a")).toBe("1");
  });

  it("keeps a head that came in two pieces", () => {
    const p = proxy().start();
    p.up.answer = "pending";
    const c = p.connect().send("GET /two HTTP/1.1\r\nhost: h\r\nx-a: 1\r\nx-");
    c.send("b: 2\r\n\r\n");
    p.up.last.connect();
    expect(p.up.last.path).toBe("/two");
    expect(p.up.last.header("x-a")).toBe("1");
    expect(p.up.last.header("x-b")).toBe("2");
  });

  it("holds a body back while the pool is slow, and sends it after the head", () => {
    const p = proxy().start();
    p.up.answer = "pending";
    const c = p.connect().send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabc");
    expect(c.connection.pauses).toBe(1);
    p.up.last.connect();
    expect(c.connection.pauses).toBe(0);
    c.send("def");
    expect(p.up.last.body).toBe("abcdef");
    expect(p.up.last.ended).toBe(true);
  });

  it("passes back-pressure of the upstream on to the client and of the client to the upstream", () => {
    const p = proxy().start();
    const c = p.connect().send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabc");
    p.up.last.block(true);
    expect(c.connection.pauses).toBe(1);
    p.up.last.block(false);
    expect(c.connection.pauses).toBe(0);
    c.send("def");
    p.up.last.respond(200, {});
    c.connection.blocked = true;
    c.filter.onBlocked?.();
    expect(p.up.last.paused).toBe(true);
    c.connection.blocked = false;
    c.filter.onDrained?.();
    expect(p.up.last.paused).toBe(false);
    const stat = (name: string) =>
      p.cx.stats.value(`cluster.up.upstream_flow_control_${name}_reading_total`);
    expect([stat("paused"), stat("resumed")]).toEqual([1, 1]);
  });

  it("closes after an answer that did not wait for the request", () => {
    const p = proxy().start();
    const c = p.connect().send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabc");
    p.up.last.respond(200, { "content-length": "2" }, "no");
    expect(c.take()).toContain("connection: close");
    expect(c.connection.closed).toBe("delayed");
    expect(p.up.last.wasReset).toBe(true);
    expect(p.cx.stats.value("http.test.downstream_rq_response_before_rq_complete")).toBe(1);
  });

  it.each([
    ["delayed", "after a cut response", "GET / HTTP/1.1\r\nhost: h\r\n\r\n"],
    ["flush", "if it said so", "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"],
    ["flush", "over HTTP/1.0", "GET / HTTP/1.0\r\nhost: h\r\n\r\n"],
    [
      "delayed",
      "if the client still sends",
      "POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 3\r\n\r\na",
    ],
  ])("closes, %s, %s", (how, _when, request) => {
    const p = proxy().start({ http_protocol_options: { accept_http_10: true } });
    const c = p.connect().send(request);
    p.up.last.respond(200, { "content-length": "5" });
    p.up.last.send("abc", false);
    p.up.last.break("connection_closed");
    expect(c.take()).toMatch(/abc$/);
    expect(c.connection.closed).toBe(how);
  });

  it("gives a client that is answered at once the time to leave first", () => {
    const direct = { match: { prefix: "/direct" }, direct_response: { status: 200 } };
    const p = proxy().start({
      http_protocol_options: { accept_http_10: true },
      route_config: oneHost(direct, routeTo("up")),
    });
    const closed = (request: string) => {
      const c = p.connect().send(`${request}\r\n\r\n`);
      if (request.includes("/later")) p.up.last.respond(200, {}, "");
      return c.connection.closed;
    };
    expect(closed("GET /direct HTTP/1.1\r\nhost: h\r\nconnection: close")).toBe("delayed");
    expect(closed("GET /direct HTTP/1.0\r\nhost: h")).toBe("delayed");
    expect(closed("GET /later HTTP/1.1\r\nhost: h\r\nconnection: close")).toBe("flush");
  });

  it("gives the upstream up when the client leaves", () => {
    const p = proxy().start();
    p.connect().get("/").leave();
    expect(p.up.last.wasReset).toBe(true);
    expect(p.cx.stats.value("http.test.downstream_rq_rx_reset")).toBe(1);
    expect(p.cx.stats.value("http.test.downstream_cx_destroy_remote_active_rq")).toBe(1);
    expect(p.cx.stats.value("http.test.downstream_cx_active")).toBe(0);
  });

  it("leaves the pool's queue when the client leaves", () => {
    const p = proxy().start();
    p.up.answer = "pending";
    p.connect().get("/").leave();
    expect(p.up.last.cancelled).toBe(true);
  });

  it("answers 100 Continue itself and does not pass the question on", () => {
    const p = proxy().start();
    const c = p
      .connect()
      .send("POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    expect(c.take()).toBe("HTTP/1.1 100 Continue\n\n");
    expect(p.up.last.header("expect")).toBeUndefined();
    c.send("ok");
    p.up.last.respond(200, {}, "");
    expect(c.status()).toBe(200);
    for (const scope of ["http.test", "listener.127.0.0.1_10000.http.test"])
      expect(p.cx.stats.value(`${scope}.downstream_rq_1xx`)).toBe(1);
  });

  it("says 100 Continue before an answer of its own, and once", () => {
    const p = proxy().start({ route_config: { virtual_hosts: [] } });
    const c = p
      .connect()
      .send("POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    const [, first, second, ...more] = c.take().split("HTTP/1.1 ");
    expect([first, second?.slice(0, 3), more]).toEqual(["100 Continue\n\n", "404", []]);
  });

  it("owes nobody the 100 Continue of another stream", () => {
    const p = proxy()
      .filter("cut", (stream) => ({
        onRequestHeaders: () => void stream.responder.reset("cut", ""),
      }))
      .start();
    p.connect().get("/", "expect: 100-continue");
    expect(p.connect().send("no request\r\n\r\n").take()).toMatch(/^HTTP\/1.1 400 /);
  });

  it("passes on what else a client expects", () => {
    const p = proxy().start();
    p.connect().send("GET / HTTP/1.1\r\nhost: h\r\nexpect: the worst\r\n\r\n");
    expect(p.up.last.header("expect")).toBe("the worst");
  });

  it("leaves 100 Continue to the upstream if it is told to", () => {
    const p = proxy().start({ proxy_100_continue: true });
    const c = p
      .connect()
      .send("POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    expect(c.take()).toBe("");
    expect(p.up.last.header("expect")).toBe("100-continue");
    p.up.last.informational(100);
    expect(c.take()).toBe("HTTP/1.1 100 Continue\n\n");
    // As in Envoy, no other interim response follows the first.
    p.up.last.informational(103);
    expect(c.take()).toBe("");
    expect(p.cx.stats.value("http.test.downstream_rq_completed")).toBe(1);
    // Each request has a first one.
    c.send("ok");
    p.up.last.respond(200, { "content-length": "0" }, "");
    c.take();
    c.get("/");
    p.up.last.informational(103);
    expect(c.take()).toBe("HTTP/1.1 103 Unknown\n\n");
  });

  it("returns the request id with interim responses, where it does with the last", () => {
    const p = proxy().start({ proxy_100_continue: true, always_set_request_id_in_response: true });
    const c = p.connect().get("/");
    const id = p.up.last.header("x-request-id");
    p.up.last.informational(103);
    expect(c.take()).toBe(`HTTP/1.1 103 Unknown\nx-request-id: ${id}\n\n`);
  });

  it("answers requests that came in one read one after the other", () => {
    const p = proxy().start();
    const get = (path: string) => `GET ${path} HTTP/1.1\r\nhost: h\r\n\r\n`;
    const c = p.connect().send(get("/1") + get("/2") + get("/3"));
    for (const path of ["/1", "/2", "/3"]) {
      expect(p.up.last.path).toBe(path);
      expect(p.up.last.header("host")).toBe("h");
      p.up.last.respond(200, { "content-length": "2", "x-for": path }, "ok");
      c.filter.onAgain?.();
    }
    expect(c.take().match(/x-for: \/\d/g)).toEqual(["x-for: /1", "x-for: /2", "x-for: /3"]);
  });
});

describe("a change of the config", () => {
  it("reaches the next stream on connections that are open", () => {
    const p = proxy().start();
    const c = p.connect().get("/");
    p.up.last.respond(200, {}, "");
    c.take();
    const commit = p.factory.reconfigure!(p.config({ server_name: "other" }), p.cx);
    c.get("/");
    p.up.last.respond(200, {}, "");
    expect(c.take()).toContain("server: envoy");
    commit!();
    c.get("/");
    p.up.last.respond(200, {}, "");
    expect(c.take()).toContain("server: other");
  });
});

describe("connections", () => {
  it("close after as many requests as they may carry", () => {
    const p = proxy().start({ common_http_protocol_options: { max_requests_per_connection: 2 } });
    const c = p.connect().get("/");
    p.up.last.respond(200, {}, "");
    expect(c.take()).not.toContain("connection: close");
    c.get("/");
    p.up.last.respond(200, {}, "");
    expect(c.take()).toContain("connection: close");
    expect(c.connection.closed).toBe("flush");
    expect(p.cx.stats.value("http.test.downstream_cx_max_requests_reached")).toBe(1);
  });

  it("close after the next response when their listener drains", () => {
    const p = proxy().start();
    const c = p.connect().get("/");
    c.filter.onDrain?.({ immediate: true, closes: () => true });
    p.up.last.respond(200, {}, "");
    expect(c.take()).toContain("connection: close");
    expect(p.cx.stats.value("http.test.downstream_cx_drain_close")).toBe(1);
  });

  it("are asked to leave by the response that a gradual drain picks, and closed after the drain timeout", () => {
    const p = proxy().start({ drain_timeout: 500 });
    const c = p.connect().get("/");
    let closes = false;
    c.filter.onDrain?.({ immediate: false, closes: () => closes });
    p.up.last.respond(200, {}, "");
    expect(c.take()).not.toContain("connection: close");
    closes = true;
    for (let k = 0; k < 2; k++) {
      c.get("/");
      p.up.last.respond(200, {}, "");
      expect(c.take()).toContain("connection: close");
      expect(c.connection.open).toBe(true);
    }
    expect(p.cx.stats.value("http.test.downstream_cx_drain_close")).toBe(1);
    c.get("/");
    p.cx.clock.advance(501);
    expect(c.connection.open).toBe(true);
    p.up.last.respond(200, {}, "");
    expect(c.connection.closed).toBe("flush");
  });

  it("leave by themselves late in a drain, also without a response", () => {
    const p = proxy().start({ drain_timeout: 500 });
    const drain = { immediate: false, closes: () => false, leavesIn: () => 1_000 };
    const silent = p.connect();
    const idle = p.connect().get("/");
    p.up.last.respond(200, {}, "");
    for (const { filter } of [silent, idle]) filter.onDrain?.(drain);
    p.cx.clock.advance(999);
    expect([silent.connection.open, idle.connection.open]).toEqual([true, true]);
    p.cx.clock.advance(2);
    expect([silent.connection.open, idle.connection.open]).toEqual([false, true]);
    p.cx.clock.advance(501);
    expect(idle.connection.closed).toBe("delayed");
    expect(p.cx.clock.armed).toBe(0);
  });

  it("close at once when the client wanted that, later when its message was bad", () => {
    const p = proxy().start();
    const c = p.connect().get("/", "connection: close");
    p.up.last.respond(200, {}, "");
    expect(c.connection.closed).toBe("flush");
    const bad = p.connect().send("FOO\r\n\r\n");
    expect(bad.take()).toBe(
      "HTTP/1.1 400 Bad Request\ncontent-length: 11\ncontent-type: text/plain\nserver: envoy\nconnection: close\n\nBad Request",
    );
    expect(bad.connection.closed).toBe("delayed");
    expect(p.cx.stats.value("http.test.downstream_cx_protocol_error")).toBe(1);
  });
});

describe("upgrades", () => {
  const ws = ["connection: Upgrade", "upgrade: websocket"];

  it("are refused unless the config allows them", () => {
    const p = proxy().start();
    const c = p.connect().get("/", ...ws);
    expect(c.take()).toBe(
      "HTTP/1.1 403 Forbidden\nserver: envoy\nconnection: close\ncontent-length: 0\n\n",
    );
    expect(p.cx.stats.value("http.test.downstream_rq_ws_on_non_ws_route")).toBe(1);
    expect(p.cx.stats.value("http.test.downstream_cx_upgrades_active")).toBe(0);
  });

  it("become tunnels when the upstream agrees", () => {
    const p = proxy().start({ upgrade_configs: [{ upgrade_type: "WebSocket" }] });
    const c = p.connect().get("/", ...ws);
    expect(p.up.last.upgrade).toBe("websocket");
    expect(p.up.last.header("upgrade")).toBe("websocket");
    p.up.last.respond(101, { upgrade: "websocket" });
    expect(c.take()).toContain("HTTP/1.1 101 Switching Protocols\nupgrade: websocket");
    expect(p.cx.stats.value("http.test.downstream_cx_upgrades_active")).toBe(1);
    c.send("ping");
    expect(p.up.last.body).toBe("ping");
    p.up.last.send("pong", false);
    expect(c.take()).toBe("pong");
    p.cx.clock.advance(60_000); // no route timeout in a tunnel
    p.up.last.send("", true);
    expect(c.connection.open).toBe(false);
    expect(p.cx.stats.value("http.test.downstream_cx_upgrades_active")).toBe(0);
    // As in Envoy, a tunnel is a request that was not complete when it was answered, nor when the upstream left.
    expect(p.cx.stats.value("http.test.downstream_rq_response_before_rq_complete")).toBe(1);
    expect(p.cx.stats.value("http.test.downstream_rq_rx_reset")).toBe(1);
  });

  it("are over when the client closes its half, as in Envoy", () => {
    const p = proxy().start({ upgrade_configs: [{ upgrade_type: "websocket" }] });
    const c = p.connect().get("/", ...ws);
    p.up.last.respond(101, { upgrade: "websocket" });
    c.take();
    c.filter.onData?.(new Chunk(new Uint8Array(0), 0, 0), true);
    expect(p.up.last.wasReset).toBe(true);
    expect(c.connection.open).toBe(false);
    c.filter.onClose?.({ by: "local", phase: "connected", timeout: false, error: undefined });
    const { stats } = p.cx;
    expect(stats.value("http.test.downstream_cx_destroy_remote_active_rq")).toBe(1);
  });

  it("follow the route before the connection manager", () => {
    const p = proxy().start({
      upgrade_configs: [{ upgrade_type: "websocket" }],
      route_config: oneHost(
        routeTo("up", { upgrade_configs: [{ upgrade_type: "websocket", enabled: false }] }),
      ),
    });
    expect(
      p
        .connect()
        .get("/", ...ws)
        .status(),
    ).toBe(403);
  });

  it("that the upstream refuses end with its answer", () => {
    const p = proxy().start({ upgrade_configs: [{ upgrade_type: "websocket" }] });
    const c = p.connect().get("/", ...ws);
    p.up.last.respond(403, { "content-length": "2" }, "no");
    expect(c.take()).toBe(
      "HTTP/1.1 403 Forbidden\ncontent-length: 2\nserver: envoy\nconnection: close\n\nno",
    );
    expect(c.connection.closed).toBe("delayed");
  });
});
