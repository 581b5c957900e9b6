import {
  Chunk,
  ConfigError,
  done,
  HeaderMap,
  type HttpFilter,
  type HttpFilterFactory,
  type HttpStream,
  hold,
  lastChunk,
  type RequestHeaders,
  RouteSetups,
  reply,
  type Verdict,
} from "@tsproxy/sdk";
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
  });

  it("answers requests that came in one read one after the other", () => {
    const p = proxy().start();
    const get = (path: string) => `GET ${path} HTTP/1.1\r\nhost: h\r\n\r\n`;
    const c = p.connect().send(get("/1") + get("/2") + get("/3"));
    for (const path of ["/1", "/2", "/3"]) {
      expect(p.up.last.path).toBe(path);
      expect(p.up.last.header("host")).toBe("h");
      p.up.last.respond(200, { "content-length": "2", "x-for": path }, "ok");
    }
    expect(c.take().match(/x-for: \/\d/g)).toEqual(["x-for: /1", "x-for: /2", "x-for: /3"]);
  });
});

describe("filters", () => {
  const calls = (log: string[], name: string): HttpFilter => ({
    onRequestHeaders: () => void log.push(`${name} request`),
    onResponseHeaders: () => void log.push(`${name} response`),
    onEnd: () => void log.push(`${name} end`),
  });

  it("see a request in order, its response in reverse, and the end once", () => {
    const log: string[] = [];
    const p = proxy()
      .filter("a", () => calls(log, "a"))
      .filter("b", () => calls(log, "b"))
      .start();
    p.connect().get("/");
    p.up.last.respond(200, {}, "");
    expect(log).toEqual(["a request", "b request", "b response", "a response", "a end", "b end"]);
  });

  it("that reply keep the request from those behind them", () => {
    const log: string[] = [];
    const p = proxy()
      .filter("no", () => ({
        onRequestHeaders: () =>
          reply(429, { body: "slow down", headers: [["x-why", "rate"]], flags: ["RL"] }),
      }))
      .filter("b", () => calls(log, "b"))
      .start();
    const c = p.connect().get("/");
    expect(c.take()).toBe(
      "HTTP/1.1 429 Too Many Requests\nx-why: rate\ncontent-length: 9\ncontent-type: text/plain\nserver: envoy\n\nslow down",
    );
    expect(p.up.exchanges.length).toBe(0);
    // A local reply takes the way of all responses.
    expect(log).toEqual(["b response", "b end"]);
  });

  it("may think, and the body waits for them", async () => {
    let decide: (verdict: Verdict) => void = () => {};
    const p = proxy()
      .filter("thinker", () => ({
        onRequestHeaders: () => new Promise<Verdict>((resolve) => (decide = resolve)),
      }))
      .start();
    const c = p.connect().send("POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabc");
    expect(p.up.exchanges.length).toBe(0);
    expect(c.connection.pauses).toBe(1);
    decide(undefined);
    await Promise.resolve();
    expect(c.connection.pauses).toBe(0);
    expect(p.up.last.path).toBe("/x");
    c.send("def");
    expect(p.up.last.body).toBe("abcdef");
    p.up.last.respond(200, {}, "");
    expect(c.status()).toBe(200);
  });

  it("may answer through a thenable that settles within its own then", () => {
    const at: string[] = [];
    // A class, since a literal with `then` looks like a mistake; sandboxed filters answer with such things.
    class Now<T> {
      readonly value: T;
      constructor(value: T) {
        this.value = value;
      }
      // biome-ignore lint/suspicious/noThenProperty: as said.
      then(settle: (value: T) => unknown): void {
        settle(this.value);
      }
    }
    const now = <T>(value: T) => new Now(value) as unknown as PromiseLike<T>;
    const p = proxy()
      .filter("sync", () => ({
        onRequestHeaders: () => now(undefined),
        onRequestBody: (chunk) => {
          at.push(chunk.text());
          return now(undefined);
        },
        onResponseHeaders: (headers) => {
          headers.set("x-sync", "1");
          return now(undefined);
        },
        onResponseBody: () => now(undefined),
      }))
      .start();
    const c = p.connect().post("/", "body");
    expect(at).toEqual(["body"]);
    expect(p.up.last.body).toBe("body");
    p.up.last.respond(200, { "content-length": "2" }, "ok");
    expect(c.take()).toMatch(/x-sync: 1[\s\S]*\n\nok$/);
    expect(c.connection.pauses).toBe(0);
  });

  it("that think about a response hold it and its body back", async () => {
    let decide: (verdict: Verdict) => void = () => {};
    const p = proxy()
      .filter("thinker", () => ({
        onResponseHeaders: () => new Promise<Verdict>((resolve) => (decide = resolve)),
      }))
      .start();
    const c = p.connect().get("/");
    p.up.last.respond(200, { "content-length": "4" });
    p.up.last.send("ab", false);
    expect(p.up.last.paused).toBe(true);
    expect(c.take()).toBe("");
    decide(undefined);
    await Promise.resolve();
    expect(p.up.last.paused).toBe(false);
    p.up.last.send("cd", true);
    expect(c.take()).toMatch(/^HTTP\/1.1 200 OK\n[\s\S]*\n\nabcd$/);
  });

  it("get no more than the stream's idle time to think", () => {
    const p = proxy()
      .filter("lost", () => ({ onRequestHeaders: () => new Promise<Verdict>(() => {}) }))
      .start({ stream_idle_timeout: 1000 });
    const c = p.connect().get("/");
    p.cx.clock.advance(1001);
    expect(c.take()).toContain("HTTP/1.1 504 Gateway Timeout");
  });

  it("whose verdict comes after the end are not heard", async () => {
    let decide: (verdict: Verdict) => void = () => {};
    const p = proxy()
      .filter("late", () => ({
        onRequestHeaders: () => new Promise<Verdict>((resolve) => (decide = resolve)),
      }))
      .start({ stream_idle_timeout: 1000 });
    const c = p.connect().get("/");
    const late = decide;
    p.cx.clock.advance(1001);
    expect(c.status()).toBe(504);
    c.get("/next");
    late(reply(403));
    await Promise.resolve();
    expect(c.take()).toBe("");
    decide(undefined);
    await Promise.resolve();
    expect(p.up.last.path).toBe("/next");
  });

  it("that throw cost their stream 500 and nothing else", () => {
    let fail = true;
    const p = proxy()
      .filter("broken", () => ({
        onRequestHeaders: () => {
          if (fail) throw new Error("oops");
        },
      }))
      .start();
    const c = p.connect().get("/");
    expect(c.take()).toContain("HTTP/1.1 500 Internal Server Error");
    fail = false;
    c.get("/");
    expect(p.up.exchanges.length).toBe(1);
    expect(p.cx.stats.value("http.test.filter_errors")).toBe(1);
    expect(p.cx.logged[0]).toMatchObject({ level: "error", fields: { filter: "broken" } });
  });

  it("that reject cost their stream 500", async () => {
    const p = proxy()
      .filter("broken", () => ({ onRequestHeaders: () => Promise.reject(new Error("oops")) }))
      .start();
    const c = p.connect().get("/");
    await Promise.resolve();
    expect(c.status()).toBe(500);
  });

  it("that throw at a response cost it, before it has begun and after", () => {
    const p = proxy()
      .filter("broken", () => ({
        onResponseHeaders: (headers) => {
          if (headers.has("x-bad")) throw new Error("oops");
        },
        onResponseBody: () => {
          throw new Error("oops");
        },
      }))
      .start();
    const c = p.connect().get("/");
    p.up.last.respond(200, { "x-bad": "1" }, "");
    expect(c.status()).toBe(500);
    c.get("/");
    p.up.last.respond(200, { "content-length": "4" });
    p.up.last.send("ab", false);
    expect(c.take()).toContain("HTTP/1.1 200");
    expect(c.connection.closed).toBe("delayed");
    expect(p.up.last.wasReset).toBe(true);
  });

  it("that hold a request see its whole body before anybody behind them sees the head", () => {
    const seen: string[] = [];
    const p = proxy()
      .filter("buffer", () => ({
        onRequestHeaders: (_headers, end) => (end ? undefined : hold({ max: 10 })),
        onRequestBody: (chunk, end) => void seen.push(`${chunk.text()} ${end}`),
      }))
      .start();
    const c = p.connect().send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabc");
    expect(p.up.exchanges.length).toBe(0);
    c.send("def");
    expect(seen).toEqual(["abcdef true"]);
    expect(p.up.last.body).toBe("abcdef");
    expect(p.up.last.ended).toBe(true);
  });

  it("that hold an answer until its trailers are there may still edit its head", () => {
    const p = proxy()
      .filter("behind", () => ({
        onResponseHeaders: (head) => void head.set("x-status-seen", String(head.status)),
      }))
      .filter("bridge", (stream) => ({
        onResponseHeaders: () => hold({ trailers: true }),
        onResponseBody: (chunk) => chunk.replace(chunk.copy().subarray(1)),
        onResponseTrailers: (trailers) => {
          stream.response!.status = Number(trailers.get("x-status"));
        },
      }))
      .start();
    const c = p.connect().get("/");
    const trailers = new HeaderMap();
    trailers.append("x-status", "503");
    p.up.last.respond(200, { "content-length": "2" });
    p.up.last.send("ab", false);
    p.up.last.send("c", false);
    expect(c.take()).toBe("");
    p.up.last.endWithTrailers(trailers);
    expect(c.take()).toMatch(/^HTTP\/1.1 503 [\s\S]*x-status-seen: 503[\s\S]*\n\nbc$/);
  });

  it("that hold an answer may end it with bytes in the place of its trailers", () => {
    const p = proxy()
      .filter("bridge", () => ({
        onResponseHeaders: () => hold({ trailers: true }),
        onResponseTrailers: () => lastChunk(new Uint8Array([33])),
      }))
      .start();
    const c = p.connect().get("/");
    p.up.last.respond(200, { "content-length": "3" });
    p.up.last.send("ab", false);
    p.up.last.endWithTrailers(new HeaderMap());
    expect(c.take()).toMatch(/\n\nab!$/);
  });

  it("may give a body to a message that came without one, which those behind them see", () => {
    const seen: string[] = [];
    const body = (text: string) => lastChunk(new TextEncoder().encode(text));
    const p = proxy()
      .filter("adds", () => ({
        onRequestHeaders: () => body("asked"),
        onResponseHeaders: () => body("answered"),
      }))
      .filter("sees", () => ({
        onRequestHeaders: (_headers, endStream) => void seen.push(String(endStream)),
        onRequestBody: (chunk, endStream) => void seen.push(`${chunk.text()} ${endStream}`),
      }))
      .start();
    const c = p.connect().get("/");
    p.up.last.respond(200, {}, "");
    expect(seen).toEqual(["false", "asked true"]);
    expect(c.take()).toMatch(/answered/);
  });

  it.each([
    ["HEAD", 200],
    ["GET", 204],
    ["GET", 304],
  ])("cannot give a body to the answer of a %s with %s", (method, status) => {
    const p = proxy()
      .filter("adds", () => ({
        onResponseHeaders: () => lastChunk(new TextEncoder().encode("HTTP/1.1 200 Mine\r\n\r\n")),
      }))
      .start();
    const c = p.connect().send(`${method} / HTTP/1.1\nhost: a\n\n`);
    p.up.last.respond(status, {}, "");
    expect(c.take()).not.toContain("Mine");
    c.send("GET / HTTP/1.1\nhost: a\n\n");
    p.up.last.respond(200, {}, "");
    expect(c.take()).toMatch(/^HTTP\/1.1 200 OK/);
  });

  it("that hold more than they may get 413 for the client", () => {
    const p = proxy()
      .filter("buffer", () => ({
        onRequestHeaders: () => hold({ max: 4 }),
        onRequestBody: () => {},
      }))
      .start();
    const c = p.connect().post("/", "abcdef");
    expect(c.take()).toMatch(/^HTTP\/1.1 413 Payload Too Large\n[\s\S]*Payload Too Large$/);
    expect(p.cx.stats.value("http.test.downstream_rq_too_large")).toBe(1);
  });

  it("that hold a response too large for them get 500 for the client", () => {
    const p = proxy()
      .filter("buffer", () => ({ onResponseHeaders: () => hold({ max: 4 }) }))
      .start();
    const c = p.connect().get("/");
    p.up.last.respond(200, {}, "abcdef");
    expect(c.take()).toMatch(/^HTTP\/1.1 500 Internal Server Error\n[\s\S]*Internal Server Error$/);
    expect(p.cx.stats.value("http.test.rs_too_large")).toBe(1);
  });

  it("that hold for the first chunk let the head go before it", () => {
    const seen: string[] = [];
    const p = proxy()
      .filter("peek", () => ({
        onRequestHeaders: () => hold({ body: "stream" }),
        onRequestBody: (chunk) => void seen.push(chunk.text()),
      }))
      .start();
    const c = p.connect().send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\n");
    expect(p.up.exchanges.length).toBe(0);
    c.send("abc");
    expect(p.up.last.body).toBe("abc");
    c.send("def");
    expect(seen).toEqual(["abc", "def"]);
    expect(p.up.last.ended).toBe(true);
  });

  it("that are done are not called again but for the end", () => {
    const log: string[] = [];
    const p = proxy()
      .filter("a", () => ({ ...calls(log, "a"), onRequestHeaders: () => done }))
      .start();
    p.connect().get("/");
    p.up.last.respond(200, {}, "");
    expect(log).toEqual(["a end"]);
  });

  it("may change a body on its way", () => {
    const p = proxy()
      .filter("upper", () => ({
        onResponseHeaders: (headers) => void headers.remove("content-length"),
        onResponseBody: (chunk) =>
          void chunk.replace(Uint8Array.from(chunk.text().toUpperCase(), (x) => x.charCodeAt(0))),
      }))
      .start();
    const c = p.connect().get("/");
    p.up.last.respond(200, { "content-length": "3" }, "abc");
    expect(c.take()).toContain("3\nABC\n0\n\n");
  });

  it("that hold a stream after its end can do nothing to the next one", () => {
    const held: import("@tsproxy/sdk").HttpStream[] = [];
    const p = proxy()
      .filter("keeper", (stream) => {
        held.push(stream);
        return {};
      })
      .start();
    const c = p.connect().get("/1");
    p.up.last.respond(200, {}, "");
    c.take();
    c.get("/2");
    held[0]?.responder.sendReply(reply(403));
    held[0]?.responder.reset("x", "X");
    expect(c.take()).toBe("");
    p.up.last.respond(200, {}, "");
    expect(c.status()).toBe(200);
  });

  it("sleep, and are not woken when their stream is gone", async () => {
    const woken: string[] = [];
    const p = proxy()
      .filter("sleeper", (stream) => ({
        onRequestHeaders: (headers) => {
          const { path } = headers;
          return stream.sleep(50).then(() => void woken.push(path));
        },
      }))
      .start();
    const c = p.connect().get("/a");
    p.cx.clock.advance(50);
    await new Promise((resolve) => setImmediate(resolve));
    expect(p.up.last.path).toBe("/a");
    p.up.last.respond(200, {}, "");
    c.get("/b").leave();
    p.cx.clock.advance(100);
    await new Promise((resolve) => setImmediate(resolve));
    expect(woken).toEqual(["/a"]);
  });

  it("of another generation serve the next stream on an open connection", () => {
    const p = proxy()
      .filter("v", () => ({ onRequestHeaders: (headers) => headers.set("x-v", "1") }))
      .start();
    const c = p.connect().get("/");
    expect(p.up.last.header("x-v")).toBe("1");
    const slot = p.cx.slots.find((s) => s.ref.name === "v")!;
    const first = slot.current;
    expect(first.uses).toBe(1);
    slot.replace(() => ({
      onRequestHeaders: (h: { set(n: string, v: string): void }) => h.set("x-v", "2"),
    }));
    p.up.last.respond(200, {}, "");
    expect(first.uses).toBe(0);
    c.get("/");
    expect(p.up.last.header("x-v")).toBe("2");
  });

  it("are left out where a route says so", () => {
    const p = proxy()
      .filter("a", (stream) => ({
        onRequestHeaders: (h) => h.set("x-a", String(stream.routeConfig ?? "none")),
      }))
      .start({
        route_config: oneHost(
          {
            ...routeTo("up"),
            match: { prefix: "/off" },
            typed_per_filter_config: {
              a: { name: "a", package: "http/a", config: {}, disabled: true },
            },
          },
          {
            ...routeTo("up"),
            typed_per_filter_config: { a: { name: "a", package: "http/a", config: "mine" } },
          },
        ),
      });
    const c = p.connect().get("/off");
    expect(p.up.last.header("x-a")).toBeUndefined();
    p.up.last.respond(200, {}, "");
    c.get("/on");
    expect(p.up.last.header("x-a")).toBe("mine");
  });

  it("are blamed by their names, also behind one that is left out", () => {
    const p = proxy()
      .filter("a", () => ({}))
      .filter("b", () => ({
        onRequestHeaders() {
          throw new Error("b fails");
        },
      }))
      .start({
        route_config: oneHost({
          ...routeTo("up"),
          typed_per_filter_config: {
            a: { name: "a", package: "http/a", config: {}, disabled: true },
          },
        }),
      });
    expect(p.connect().get("/").status()).toBe(500);
    expect(p.cx.logged.at(-1)?.fields.filter).toBe("b");
  });

  it("see nothing of a later stream through one that has ended", () => {
    const views: HttpStream[] = [];
    const p = proxy()
      .filter("a", (stream) => {
        views.push(stream);
        return {};
      })
      .start({
        route_config: oneHost({ ...routeTo("up"), metadata: { filter_metadata: { m: { k: 1 } } } }),
      });
    const c = p.connect().get("/1");
    p.up.last.respond(200, {}, "");
    c.get("/2");
    const known = (view: HttpStream) => (view as { routeMetadata?: object }).routeMetadata;
    expect(views[1]?.route?.action.type).toBe("route");
    expect(views.map(known)).toEqual([undefined, { m: { k: 1 } }]);
  });
});

describe("per-route configs", () => {
  const entry = (config: unknown) => ({ a: { name: "a", package: "http/a", config } });
  const levels = (...configs: unknown[]) => ({
    route_config: {
      ...oneHost({ ...routeTo("up"), typed_per_filter_config: entry(configs[2]) }),
      virtual_hosts: [
        {
          ...oneHost({ ...routeTo("up"), typed_per_filter_config: entry(configs[2]) })
            .virtual_hosts[0]!,
          typed_per_filter_config: entry(configs[1]),
        },
      ],
      typed_per_filter_config: entry(configs[0]),
    },
  });
  const setUp = (make: (config: unknown) => unknown) => {
    const setups: unknown[] = [];
    const factory: HttpFilterFactory = Object.assign(
      (stream: HttpStream) => ({
        onRequestHeaders: (h: RequestHeaders) =>
          h.set("x-a", `${stream.routeConfigs.join()}|${stream.routeConfig}`),
      }),
      {
        routes: new RouteSetups((config) => {
          setups.push(config);
          return make(config);
        }),
      },
    );
    return { setups, factory };
  };

  it("reach a filter from all levels, set up once each", () => {
    const { setups, factory } = setUp((config) => `<${(config as { n: number }).n}>`);
    const p = proxy()
      .filter("a", factory)
      .start(levels({ n: 1 }, { n: 2 }, { n: 3 }));
    const c = p.connect().get("/");
    expect(p.up.last.header("x-a")).toBe("<1>,<2>,<3>|<3>");
    p.up.last.respond(200, {}, "");
    c.get("/");
    expect(p.up.last.header("x-a")).toBe("<1>,<2>,<3>|<3>");
    expect(setups).toHaveLength(3);
  });

  it("that a filter refuses refuse the config, at their place", () => {
    const { factory } = setUp(() => {
      throw new ConfigError("x", "is wrong");
    });
    const p = proxy().filter("a", factory);
    expect(() => p.start(levels({}, {}, {}))).toThrow(
      expect.objectContaining({
        path: 'route_config.virtual_hosts[0].routes[0].typed_per_filter_config["a"].x',
      }),
    );
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
