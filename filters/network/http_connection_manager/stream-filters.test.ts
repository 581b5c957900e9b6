import {
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

  it("see replies to what no request came of, and nothing of a request that was not read", () => {
    const seen: string[] = [];
    const p = proxy()
      .filter("a", (stream) => ({
        onRequestHeaders: () => void seen.push("request"),
        onResponseHeaders(headers) {
          const { method, path, authority } = stream.request;
          seen.push(`${headers.status} [${method} ${path} ${authority}] ${stream.route?.name}`);
          headers.set("x-seen", "yes");
        },
        onEnd: () => void seen.push("end"),
      }))
      .start({ request_headers_timeout: 100, route_config: oneHost(routeTo("up", {})) });
    const replyTo = (text: string) => p.connect().send(text).take();
    expect(replyTo("BAD\r\n\r\n")).toMatch(/^HTTP\/1.1 400 [^]*x-seen: yes\n/);
    expect(replyTo("GET /a HTTP/1.1\r\n\r\n")).toMatch(/^HTTP\/1.1 400 [^]*x-seen: yes\n/);
    const upgrade = "GET /b HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n";
    expect(replyTo(upgrade)).toMatch(/^HTTP\/1.1 403 [^]*x-seen: yes\n/);
    const c = p.connect().send("GET /slow HT");
    p.cx.clock.advance(100);
    expect(c.take()).toMatch(/^HTTP\/1.1 408 [^]*x-seen: yes\n/);
    expect(seen.filter((each) => each !== "end")).toEqual([
      "400 [  undefined] undefined",
      "400 [GET /a undefined] undefined",
      "403 [GET /b h] ",
      "408 [  undefined] undefined",
    ]);
    expect(seen.filter((each) => each === "end").length).toBe(4);
  });

  it("may think about such a reply, and what the client sends meanwhile is not read", async () => {
    let decide: (verdict: Verdict) => void = () => {};
    const answered = new Promise<Verdict>((resolve) => (decide = resolve));
    const p = proxy()
      .filter("slow", () => ({ onResponseHeaders: () => answered }))
      .start();
    const c = p.connect().send("BAD\r\n\r\n");
    c.send("GET / HTTP/1.1\r\nhost: h.test\r\n\r\n");
    expect(c.take()).toBe("");
    decide(undefined);
    await answered;
    await Promise.resolve();
    expect(c.take()).toMatch(/^HTTP\/1.1 400 Bad Request\n/);
    expect(c.connection.closed).toBeDefined();
    expect(p.up.exchanges.length).toBe(0);
  });

  it("that cannot be made for such a reply cost it 500", () => {
    const p = proxy()
      .filter("broken", () => {
        throw new Error("no");
      })
      .start();
    const c = p.connect().send("BAD\r\n\r\n");
    expect(c.take()).toMatch(/^HTTP\/1.1 500 /);
    expect(c.connection.closed).toBeDefined();
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

  it("that hold more than they may, of a body that a filter before has held, leave the connection open", () => {
    const p = proxy()
      .filter("all", () => ({ onRequestHeaders: () => hold() }))
      .filter("few", () => ({
        onRequestHeaders: (_headers, endStream) => (endStream ? undefined : hold({ max: 4 })),
      }))
      .start();
    const c = p.connect().post("/", "abcdef");
    const answer = c.take();
    expect(answer).toMatch(/^HTTP\/1.1 413 Payload Too Large\n/);
    expect(answer).not.toMatch(/^connection: close/m);
    c.get("/");
    p.up.last.respond(200, {}, "ok");
    expect(c.take()).toMatch(/^HTTP\/1.1 200 OK\n/);
    expect(p.cx.stats.value("http.test.downstream_rq_rx_reset")).toBe(0);
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

  it("are switched on by a route's own config, though the level around it leaves them out", () => {
    const table = oneHost({
      ...routeTo("up"),
      typed_per_filter_config: { a: { name: "a", package: "http/a", config: "mine" } },
    });
    const off = { a: { name: "a", package: "http/a", config: undefined, disabled: true } };
    const virtual_hosts = table.virtual_hosts.map((host) => ({
      ...host,
      typed_per_filter_config: off,
    }));
    const p = proxy()
      .filter("a", (stream) => ({
        onRequestHeaders: (h) => h.set("x-a", String(stream.routeConfig)),
      }))
      .start({ route_config: { ...table, virtual_hosts } });
    p.connect().get("/");
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
