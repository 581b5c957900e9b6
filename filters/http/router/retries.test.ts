import { HeaderMap, hold } from "@tsproxy/sdk";
import { TestHost } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import {
  INTERNAL,
  oneHost,
  proxies,
  routeTo,
  TestProxy,
} from "../../network/http_connection_manager/test-proxy.ts";
import router from "./filter.ts";

const proxy = proxies({ codec, router });

describe("a retried request", () => {
  it("is sent again after a back-off, and the client sees the last answer alone", () => {
    const p = proxy({ retry_on: "5xx", num_retries: 2 });
    const c = p.connect().get("/");
    p.up.last.respond(503, {}, "no");
    expect([p.up.exchanges.length, c.take()]).toEqual([1, ""]);
    p.wait();
    p.up.last.respond(200, {}, "yes");
    expect(c.take()).toMatch(/^HTTP\/1.1 200 OK[\s\S]*\nyes\n0\n\n$/);
    expect(p.lines).toEqual(["200 - via_upstream 2"]);
    expect([p.stat("retry"), p.stat("retry_success"), p.stat("retry_backoff_exponential")]).toEqual(
      [1, 1, 1],
    );
    expect(p.cx.stats.value("cluster.up.retry.upstream_rq_503")).toBe(1);
    expect([p.stat("200"), p.stat("503"), p.up.retries]).toEqual([1, 0, 0]);
    expect([p.up.host.told, p.up.host.retried]).toEqual([[503, 200], 1]);
  });

  it("waits at most as long as the policy says, longer each time", () => {
    const p = proxy({
      retry_on: "5xx",
      num_retries: 3,
      retry_back_off: { base_interval: 100, max_interval: 150 },
    });
    p.connect().get("/");
    for (const longest of [100, 150, 150]) {
      p.up.last.respond(503, {}, "");
      const before = p.up.exchanges.length;
      p.cx.clock.advance(longest);
      expect(p.up.exchanges.length).toBe(before + 1);
    }
  });

  it("has its limit: the last answer goes on, with URX", () => {
    const p = proxy({ retry_on: "gateway-error", num_retries: 1 });
    const c = p.connect().get("/");
    p.up.last.respond(502, {}, "");
    p.wait();
    p.up.last.respond(504, {}, "");
    expect(c.status()).toBe(504);
    expect(p.lines).toEqual(["504 URX via_upstream 2"]);
    expect([p.stat("retry_limit_exceeded"), p.up.retries]).toEqual([1, 0]);
  });

  it("says so in the answer to what failed at last", () => {
    const p = proxy({ retry_on: "connect-failure" });
    p.up.answer = { reason: "connection_failed", host: p.up.host, transportFailure: "" };
    const c = p.connect().get("/");
    p.wait();
    expect(c.take()).toContain(
      "before headers. retried and the latest reset reason: remote connection failure",
    );
    expect(p.lines[0]).toMatch(/^503 URX,UF .* 2$/);
  });

  it("sends its body again, also what came during the back-off", () => {
    const p = proxy({ retry_on: "reset" });
    const c = p.connect().send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nabc");
    expect(p.up.last.body).toBe("abc");
    p.up.last.break("connection_closed");
    c.send("def");
    p.wait();
    expect([p.up.last.body, p.up.last.ended]).toEqual(["abcdef", false]);
    c.send("ghi");
    expect([p.up.last.body, p.up.last.ended]).toEqual(["abcdefghi", true]);
  });

  it("is given up for a body beyond the limit, which goes on to the attempt that runs", () => {
    const p = proxy({ retry_on: "5xx" }, {}, { per_request_buffer_limit_bytes: 4 });
    const c = p.connect().post("/", "abcdef");
    expect(p.up.last.body).toBe("abcdef");
    p.up.last.respond(503, {}, "no");
    expect(c.status()).toBe(503);
    expect(p.cx.stats.value("cluster.up.retry_or_shadow_abandoned")).toBe(1);
    expect([p.stat("retry"), p.lines[0]]).toEqual([0, "503 - via_upstream 1"]);
  });

  it("has the listener's limit if the route names none", () => {
    const retriesOf = (body: string, limits: object, listener: object) => {
      const p = proxy({ retry_on: "5xx" }, {}, limits);
      p.connect((connection) => Object.assign(connection.listener, listener)).post("/", body);
      p.up.last.respond(503, {}, "no");
      p.wait();
      return p.up.exchanges.length - 1;
    };
    const four = { perConnectionBufferLimitBytes: 4 };
    expect([retriesOf("abcd", {}, four), retriesOf("abcde", {}, four)]).toEqual([1, 0]);
    expect(retriesOf("abcde", {}, {})).toBe(1);
    expect(retriesOf("abcde", { per_request_buffer_limit_bytes: 5 }, four)).toBe(1);
  });

  it("has the route's limit also where the request alone asks for retries", () => {
    const retriesWith = (host: object): number => {
      const p = proxy({}, { retry_policy: undefined }, host, INTERNAL);
      p.connect().post("/", "abcde", "x-envoy-retry-on: 5xx");
      p.up.last.respond(503, {}, "no");
      p.wait();
      return p.up.exchanges.length - 1;
    };
    expect(retriesWith({})).toBe(1);
    expect(retriesWith({ per_request_buffer_limit_bytes: 4 })).toBe(0);
  });

  it("has the limit of a filter that has held the body, if that is more", () => {
    const retry_policy = { retry_on: "5xx" };
    const p = new TestProxy({ codec, router })
      .filter("holds", () => ({
        onRequestBody() {},
        onRequestHeaders: () => hold({ body: "buffer", max: 5 }),
      }))
      .start({ route_config: oneHost(routeTo("up", { retry_policy })) });
    const listener = { perConnectionBufferLimitBytes: 4 };
    p.connect((connection) => Object.assign(connection.listener, listener)).post("/", "abcde");
    p.up.last.respond(503, {}, "no");
    p.cx.clock.advance(1000);
    expect(p.up.exchanges.length).toBe(2);
  });

  it("is answered 507 if that happens while nothing runs", () => {
    const p = proxy({ retry_on: "reset" }, {}, { per_request_buffer_limit_bytes: 4 });
    const c = p.connect().send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabc");
    p.up.last.break("connection_closed");
    c.send("def");
    expect(c.take()).toMatch(/^HTTP\/1.1 507 [\s\S]*exceeded request buffer limit while retrying/);
    p.wait();
    expect([p.up.exchanges.length, p.up.retries]).toEqual([1, 0]);
  });

  it("stops when the client leaves", () => {
    const p = proxy({ retry_on: "5xx" });
    const c = p.connect().get("/");
    p.up.last.respond(503, {}, "");
    c.leave();
    p.wait();
    expect([p.up.exchanges.length, p.up.retries]).toEqual([1, 0]);
  });

  it("ends with the route's timeout, also during a back-off", () => {
    const p = proxy({ retry_on: "5xx", retry_back_off: { base_interval: 1000 } }, { timeout: 5 });
    const c = p.connect().get("/");
    p.up.last.respond(503, {}, "");
    const random = Math.random;
    p.cx.clock.advance(5);
    Math.random = random;
    expect(c.status()).toBe(504);
    expect(p.lines[0]).toMatch(/^504 UT response_timeout/);
  });

  it("needs room in the cluster's breaker: UO", () => {
    const p = proxy({ retry_on: "5xx" });
    p.up.maxRetries = 0;
    const c = p.connect().get("/");
    p.up.last.respond(503, {}, "");
    expect(c.status()).toBe(503);
    expect(p.lines).toEqual(["503 UO via_upstream 1"]);
    expect(p.stat("retry_overflow")).toBe(1);
  });

  it("counts its attempts in headers, and tells each what time is left", () => {
    const p = proxy(
      { retry_on: "5xx" },
      { timeout: 1000 },
      { include_request_attempt_count: true, include_attempt_count_in_response: true },
    );
    const c = p.connect().get("/");
    const told = () =>
      ["x-envoy-attempt-count", "x-envoy-expected-rq-timeout-ms"].map((n) => p.up.last.header(n));
    expect(told()).toEqual(["1", "1000"]);
    p.cx.clock.advance(400);
    p.up.last.respond(503, {}, "");
    p.wait(100);
    expect(told()[0]).toBe("2");
    expect(Number(told()[1])).toBeLessThanOrEqual(600);
    p.up.last.respond(200, {}, "");
    expect(c.take()).toContain("x-envoy-attempt-count: 2\n");
  });
});

describe("conditions", () => {
  const retries = (retry_on: string, act: (p: ReturnType<typeof proxy>) => void, more = {}) => {
    const p = proxy({ retry_on, ...more });
    p.connect().get("/");
    act(p);
    p.wait();
    return p.up.exchanges.length > 1;
  };
  const status =
    (code: number, headers: Record<string, string> = {}) =>
    (p: ReturnType<typeof proxy>) =>
      p.up.last.respond(code, headers, "");
  const reset = (p: ReturnType<typeof proxy>) => p.up.last.break("remote");
  const refused = (p: ReturnType<typeof proxy>) => p.up.last.break("refused");

  it.each([
    ["5xx", status(500), true],
    ["5xx", status(404), false],
    ["5xx", reset, true],
    ["gateway-error", status(500), false],
    ["gateway-error", status(503), true],
    ["retriable-4xx", status(409), true],
    ["retriable-4xx", status(404), false],
    ["reset", status(503), false],
    ["reset", reset, true],
    ["reset-before-request", reset, false],
    ["refused-stream", refused, true],
    ["refused-stream", reset, false],
    ["connect-failure", reset, false],
    ["5xx", status(503, { "x-envoy-ratelimited": "true" }), false],
    ["5xx,envoy-ratelimited", status(429, { "x-envoy-ratelimited": "true" }), true],
    ["unavailable", status(200, { "grpc-status": "14" }), true],
    ["cancelled,internal", status(200, { "grpc-status": "13" }), true],
    ["cancelled", status(200, { "grpc-status": "14" }), false],
    ["nonsense", status(503), false],
  ] as const)("%s", (on, act, expected) => {
    expect(retries(on, act)).toBe(expected);
  });

  it("retriable-status-codes and retriable-headers look at the policy's lists", () => {
    const codes = { retriable_status_codes: [418] };
    expect(retries("retriable-status-codes", status(418), codes)).toBe(true);
    expect(retries("retriable-status-codes", status(417), codes)).toBe(false);
    const headers = { retriable_headers: [{ name: "x-again", present_match: true }] };
    expect(retries("retriable-headers", status(200, { "x-again": "1" }), headers)).toBe(true);
    expect(retries("retriable-headers", status(200), headers)).toBe(false);
  });

  it("hold for requests alone that have the headers the policy asks for", () => {
    const only = { retriable_request_headers: [{ name: "x-safe", present_match: true }] };
    expect(retries("5xx", status(503), only)).toBe(false);
  });

  it("of an internal client are added to the route's, and of nobody else", () => {
    const asks = [
      "x-envoy-retry-on: retriable-status-codes",
      "x-envoy-retriable-status-codes: 404",
    ];
    const p = proxy({ retry_on: "5xx" }, {}, {}, INTERNAL);
    p.connect().get("/", ...asks, "x-envoy-max-retries: 2");
    expect(p.up.last.header("x-envoy-retry-on")).toBeUndefined();
    for (let k = 0; k < 3; k++) {
      p.up.last.respond(404, {}, "");
      p.wait(1000);
    }
    expect(p.up.exchanges.length).toBe(3);
    const other = proxy({ retry_on: "5xx" });
    other.connect().get("/", ...asks);
    other.up.last.respond(404, {}, "");
    other.wait();
    expect(other.up.exchanges.length).toBe(1);
  });

  it("wait as long as the response says", () => {
    const p = proxy({
      retry_on: "retriable-status-codes",
      retriable_status_codes: [429],
      rate_limited_retry_back_off: { reset_headers: [{ name: "retry-after", format: "SECONDS" }] },
    });
    p.connect().get("/");
    p.up.last.respond(429, { "retry-after": "2" }, "");
    p.wait(1999);
    expect(p.up.exchanges.length).toBe(1);
    p.wait(1001);
    expect([p.up.exchanges.length, p.stat("retry_backoff_ratelimited")]).toEqual([2, 1]);
  });
});

describe("a try that takes too long", () => {
  it("is given up, and another is made", () => {
    const p = proxy({ retry_on: "5xx", per_try_timeout: 100 }, { timeout: 10_000 });
    const c = p.connect().get("/");
    const first = p.up.last;
    expect(first.header("x-envoy-expected-rq-timeout-ms")).toBe("100");
    p.cx.clock.advance(100);
    // The back-off is a matter of chance, and may be none.
    expect([first.wasReset, p.stat("per_try_timeout")]).toEqual([true, 1]);
    p.wait(50);
    p.cx.clock.advance(100);
    expect(c.status()).toBe(504);
    expect(p.lines).toEqual(["504 URX,UT upstream_per_try_timeout 2"]);
    expect(p.up.host.told).toEqual(["timeout", "timeout"]);
  });

  it("may be idle for less than that", () => {
    const p = proxy({ retry_on: "", per_try_idle_timeout: 100 });
    const c = p.connect().get("/");
    p.up.last.respond(200, {});
    p.cx.clock.advance(99);
    p.up.last.send("x", false);
    p.cx.clock.advance(99);
    expect(c.connection.closed).toBeUndefined();
    p.cx.clock.advance(1);
    expect(c.connection.closed).toBe("delayed");
    expect(p.lines).toEqual(["200 UT upstream_per_try_idle_timeout 1"]);
  });

  it("is not idle before the request has ended", () => {
    const p = proxy({ retry_on: "", per_try_idle_timeout: 100 });
    const c = p.connect();
    c.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\na");
    p.cx.clock.advance(1000);
    expect(p.lines).toEqual([]);
    c.send("b");
    p.cx.clock.advance(99);
    expect(p.lines).toEqual([]);
    p.cx.clock.advance(1);
    expect(p.lines).toEqual(["504 UT upstream_per_try_idle_timeout 1"]);
  });

  it("goes on beside another if that is hedged: the first good head wins", () => {
    const p = proxy(
      { retry_on: "5xx", num_retries: 2, per_try_timeout: 100 },
      { hedge_policy: { hedge_on_per_try_timeout: true } },
    );
    const c = p.connect().get("/");
    p.cx.clock.advance(100);
    p.wait(50);
    const [first, second] = p.up.exchanges;
    expect(p.up.exchanges.length).toBe(2);
    expect(first!.wasReset).toBe(false);
    expect(p.up.host.told).toEqual(["slow"]);
    second!.respond(503, {}, "");
    p.wait(60);
    first!.respond(200, {}, "slow");
    expect(c.take()).toMatch(/\nslow\n0\n\n$/);
    p.wait();
    expect(p.up.exchanges.slice(1).every((e) => e.wasReset || e === second)).toBe(true);
    expect(p.up.retries).toBe(0);
  });

  it("causes one other, whichever of its limits it meets first", () => {
    // Each look is after both limits of the first try, and before those of the second.
    for (const [per_try_timeout, lookAt] of [
      [100, 190],
      [200, 250],
    ] as const) {
      const p = proxy(
        { retry_on: "5xx", num_retries: 5, per_try_timeout, per_try_idle_timeout: 150 },
        { hedge_policy: { hedge_on_per_try_timeout: true } },
      );
      p.connect().get("/");
      p.cx.clock.advance(lookAt);
      expect([p.up.exchanges.length, p.stat("retry")]).toEqual([2, 1]);
    }
  });

  it("is a success if it answers after its own timeout, though no more retries are left", () => {
    const p = proxy(
      { retry_on: "5xx", num_retries: 1, per_try_timeout: 100 },
      { hedge_policy: { hedge_on_per_try_timeout: true } },
    );
    const c = p.connect().get("/");
    p.cx.clock.advance(100);
    p.wait(50);
    p.up.exchanges[0]!.break("connection_closed");
    p.wait(100);
    expect(p.stat("retry_limit_exceeded")).toBe(1);
    p.up.exchanges[1]!.respond(200, {}, "late");
    expect(c.take()).toMatch(/\nlate\n0\n\n$/);
    expect(p.stat("retry_success")).toBe(1);
    p.wait();
    expect(p.up.retries).toBe(0);
  });
});

describe("where a retry goes", () => {
  it("is not where it has been", () => {
    const previous_hosts = {
      name: "p",
      typed_config: {
        "@type": "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
      },
    };
    const p = proxy({
      retry_on: "5xx",
      retry_host_predicate: [previous_hosts],
      host_selection_retry_max_attempts: 3,
    });
    p.connect().get("/");
    const other = new TestHost({ ip: "198.51.100.2", port: 1 });
    const context = p.up.contexts[0]!;
    expect(context.rejects!(p.up.host)).toBe(false);
    p.up.last.respond(503, {}, "");
    p.wait();
    expect([context.rejects!(p.up.host), context.rejects!(other)]).toEqual([true, false]);
    expect(context.hostSelectionRetries).toBe(3);
  });

  it("is another priority, until all have been tried", () => {
    const p = proxy({
      retry_on: "5xx",
      num_retries: 3,
      retry_priority: {
        name: "p",
        typed_config: {
          "@type":
            "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
          update_frequency: 1,
        },
      },
    });
    const second = new TestHost({ ip: "198.51.100.2", port: 1 });
    second.priority = 1;
    p.up.hosts.push(second);
    p.connect().get("/");
    const excluded = () => [...(p.up.contexts[0]!.excludedPriorities ?? [])];
    p.up.last.respond(503, {}, "");
    p.wait(1000);
    expect(excluded()).toEqual([0, 1]);
    p.up.last.respond(503, {}, "");
    p.wait(1000);
    expect(excluded()).toEqual([0]);
  });
});

it("passes trailers of a request again", () => {
  const p = proxy(
    { retry_on: "5xx" },
    {},
    {},
    { http_protocol_options: { enable_trailers: true } },
  );
  p.connect().send(
    "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-end: yes\r\n\r\n",
  );
  p.up.last.respond(503, {}, "");
  p.wait();
  expect([p.up.last.body, p.up.last.trailers]).toEqual(["abc", [["x-end", "yes"]]]);
  const trailers = new HeaderMap();
  trailers.append("x", "y");
  p.up.last.respond(200, {});
  p.up.last.endWithTrailers(trailers);
  expect(p.lines).toEqual(["200 - via_upstream 2"]);
});

it("counts for the virtual cluster of the request as well", () => {
  const virtual_clusters = [
    { name: "vc", headers: [{ name: ":path", string_match: { prefix: "/v" } }] },
  ];
  const p = proxy({ retry_on: "5xx" }, {}, { virtual_clusters });
  p.connect().get("/v");
  p.up.last.respond(503, {}, "");
  p.wait();
  p.up.last.respond(200, {}, "");
  const vc = (name: string) => p.cx.stats.value(`vhost.all.vcluster.vc.upstream_rq_${name}`);
  expect([vc("total"), vc("retry"), vc("retry_success"), vc("200"), vc("503")]).toEqual([
    2, 1, 1, 1, 0,
  ]);
});
