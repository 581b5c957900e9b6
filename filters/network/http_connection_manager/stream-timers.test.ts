import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import router from "../../http/router/filter.ts";
import { oneHost, routeTo, TestProxy } from "./test-proxy.ts";

const proxy = () => new TestProxy({ codec, router });

describe("timeouts", () => {
  it("408 while the request is incomplete, 504 after that, when nothing moves", () => {
    const p = proxy().start({ stream_idle_timeout: 1000 });
    const slow = p.connect().send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabc");
    p.cx.clock.advance(600);
    slow.send("d");
    p.cx.clock.advance(600);
    expect(slow.take()).toBe("");
    p.cx.clock.advance(500);
    expect(slow.take()).toMatch(/^HTTP\/1.1 408 Request Timeout\n[\s\S]*stream timeout$/);
    const c = p.connect().get("/");
    p.cx.clock.advance(1001);
    expect(c.take()).toMatch(/^HTTP\/1.1 504 Gateway Timeout\n[\s\S]*stream timeout$/);
    expect(p.cx.stats.value("http.test.downstream_rq_idle_timeout")).toBe(2);
  });

  it("cut a response that stops in the middle", () => {
    const p = proxy().start({ stream_idle_timeout: 1000 });
    const c = p.connect().get("/");
    p.up.last.respond(200, { "content-length": "9" });
    p.cx.clock.advance(1001);
    expect(c.connection.closed).toBe("delayed");
    expect(p.up.last.wasReset).toBe(true);
  });

  it("of a route take the place of the stream's", () => {
    const p = proxy().start({
      stream_idle_timeout: 1000,
      route_config: oneHost(routeTo("up", { idle_timeout: 0, timeout: 0 })),
    });
    const c = p.connect().get("/");
    p.cx.clock.advance(10_000);
    expect(c.take()).toBe("");
  });

  it("answer 408 for a head and for a request that take too long", () => {
    const p = proxy().start({ request_headers_timeout: 500, request_timeout: 2000 });
    const head = p.connect().send("GET / HTTP/1.1\r\nhost: h\r\n");
    p.cx.clock.advance(501);
    expect(head.take()).toMatch(/^HTTP\/1.1 408 Request Timeout\n[\s\S]*request header timeout$/);
    const body = p.connect().send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabc");
    p.cx.clock.advance(2001);
    expect(body.take()).toMatch(/^HTTP\/1.1 408 Request Timeout\n[\s\S]*request timeout$/);
  });

  it("stop to limit a request once it is answered", () => {
    const p = proxy().start({ request_timeout: 1000 });
    const c = p.connect().send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabc");
    p.up.last.respond(200, {});
    p.cx.clock.advance(1001);
    p.up.last.send("early", false);
    expect(c.take()).toContain("early");
    c.send("def");
    p.up.last.send("late", true);
    expect(c.take()).toContain("late");
    expect(p.cx.stats.value("http.test.downstream_rq_timeout")).toBe(0);
  });

  it("close an idle connection after a time to leave", () => {
    const p = proxy().start({
      common_http_protocol_options: { idle_timeout: 1000 },
      drain_timeout: 500,
    });
    const c = p.connect().get("/");
    p.up.last.respond(200, {}, "");
    p.cx.clock.advance(1400);
    expect(c.connection.open).toBe(true);
    p.cx.clock.advance(200);
    expect(c.connection.closed).toBe("delayed");
    expect(p.cx.stats.value("http.test.downstream_cx_idle_timeout")).toBe(1);
  });

  it("close a connection that has never said anything at once", () => {
    const p = proxy().start({ common_http_protocol_options: { idle_timeout: 1000 } });
    const c = p.connect();
    p.cx.clock.advance(1001);
    expect(c.connection.closed).toBe("flush");
  });

  it("answer requests that cross the end of an idle connection until the drain timeout is over", () => {
    const p = proxy().start({
      common_http_protocol_options: { idle_timeout: 1000 },
      drain_timeout: 500,
    });
    const c = p.connect().get("/");
    p.up.last.respond(200, {}, "");
    expect(c.take()).not.toContain("connection: close");
    p.cx.clock.advance(1001);
    c.get("/");
    p.up.last.respond(200, {}, "");
    expect(c.take()).toContain("connection: close");
    expect(c.connection.open).toBe(true);
    p.cx.clock.advance(501);
    expect(c.connection.closed).toBe("delayed");
  });

  it("leave no timer behind", () => {
    const p = proxy().start({ request_timeout: 1000, request_headers_timeout: 1000 });
    const c = p.connect().get("/");
    p.up.last.respond(200, {}, "");
    c.leave();
    expect(p.cx.clock.armed).toBe(0);
  });
});
