import { HeaderMap, headerName } from "@tsproxy/sdk";
import { TestHost } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import { oneHost, routeTo, TestProxy } from "../../network/http_connection_manager/test-proxy.ts";
import router from "./filter.ts";

const INTERNAL = {
  use_remote_address: true,
  internal_address_config: { cidr_ranges: [{ address_prefix: "192.0.2.0", prefix_len: 24 }] },
};

/** A proxy whose only route has this retry policy; its access log keeps code, flags, details and attempts. */
function proxy(retry_policy: object, route: object = {}, host: object = {}, config: object = {}) {
  const lines: string[] = [];
  const p = new TestProxy({ codec, router });
  p.cx.define("access_log/lines", {
    kind: "access_log",
    setup: () => ({
      log: ({ info }: { info: import("@tsproxy/sdk").StreamInfo }) =>
        void lines.push(
          `${info.responseCode} ${info.flags.join(",") || "-"} ${info.responseCodeDetails} ${info.attempts}`,
        ),
    }),
  });
  const access_log = [{ name: "l", package: "access_log/lines", config: {} }];
  const table = oneHost(routeTo("up", { retry_policy, ...route }));
  Object.assign(table.virtual_hosts[0]!, host);
  // The clusters of mirrors are made by the tests.
  p.start({ access_log, route_config: { ...table, validate_clusters: false }, ...config });
  const stat = (name: string) => p.cx.stats.value(`cluster.up.upstream_rq_${name}`);
  /** Long enough for every back-off. */
  const wait = (ms = 250) => p.cx.clock.advance(ms);
  return Object.assign(p, { lines, stat, wait });
}

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

describe("hash policies", () => {
  const hash = (policies: object[], ...lines: string[]) => {
    const p = proxy(
      {},
      { hash_policy: policies.map((policy) => ({ terminal: false, ...policy })) },
    );
    const c = p.connect().get("/path?k=a%20b&x=1", ...lines);
    const value = p.up.contexts[0]!.hash;
    p.up.last.respond(200, {}, "");
    return { value, cookie: /set-cookie: (.*)/.exec(c.take())?.[1] };
  };

  it("hash a header, a parameter, the client's address, or nothing", () => {
    expect(hash([{ header: { header_name: "x-k" } }], "x-k: abc").value).toBe(0x44bc2cf5ad770999n);
    expect(hash([{ header: { header_name: "x-k" } }]).value).toBeUndefined();
    const query = hash([{ query_parameter: { name: "k" } }]).value;
    // As it is written, not what it stands for.
    expect(query).toBe(hash([{ header: { header_name: "x-k" } }], "x-k: a%20b").value);
    const ip = hash([{ connection_properties: { source_ip: true } }]).value;
    expect(ip).toBe(hash([{ header: { header_name: "x-k" } }], "x-k: 192.0.2.1").value);
  });

  it("mix, each turning what came before by a bit, up to the first terminal one", () => {
    const a = { header: { header_name: "a" } };
    const b = { header: { header_name: "b" } };
    const lines = ["a: abc", "b: abc"];
    const one = 0x44bc2cf5ad770999n;
    const turned = BigInt.asUintN(64, (one << 1n) | (one >> 63n));
    expect(hash([a, b], ...lines).value).toBe(turned ^ one);
    expect(hash([{ ...a, terminal: true }, b], ...lines).value).toBe(one);
  });

  it("give a client without the cookie one", () => {
    const policy = { cookie: { name: "k", ttl: 60_000, path: "/p", attributes: [] } };
    const { value, cookie } = hash([policy]);
    expect(cookie).toMatch(/^k="[0-9a-f]{16}"; Max-Age=60; Path=\/p; HttpOnly$/);
    const sent = /"(.*)"/.exec(cookie!)![1];
    const again = hash([policy], `cookie: a=b; k=${sent}`);
    expect([again.value, again.cookie]).toEqual([value, undefined]);
  });

  it("of a balancer give a client one cookie, the latest", () => {
    const p = proxy({});
    Object.assign(p.up, { choosesByStream: true });
    const c = p.connect().get("/");
    const context = p.up.contexts[0]!;
    context.giveCookie?.("k=1");
    context.giveCookie?.("k=2");
    p.up.last.respond(200, {}, "");
    expect(c.take().match(/set-cookie: .*/g)).toEqual(["set-cookie: k=2"]);
  });
});

describe("a mirror", () => {
  it("gets a copy of the whole request, and its answer is nobody's", () => {
    const p = proxy({}, { request_mirror_policies: [{ cluster: "copy", cluster_header: "" }] });
    const copy = p.cluster("copy");
    const c = p
      .connect()
      .send("POST /x HTTP/1.1\r\nhost: h.test:81\r\ncontent-length: 6\r\n\r\nabc");
    expect(copy.exchanges.length).toBe(0);
    c.send("def");
    expect([copy.last.path, copy.last.body, copy.last.ended]).toEqual(["/x", "abcdef", true]);
    expect(copy.last.header("host")).toBe("h.test-shadow:81");
    expect(copy.last.header("x-envoy-internal")).toBe("true");
    expect(p.up.last.header("host")).toBe("h.test:81");
    copy.last.respond(500, {}, "no");
    p.up.last.respond(200, {}, "yes");
    expect(c.take()).toMatch(/yes\n0\n\n$/);
    expect(p.cx.stats.value("cluster.copy.internal.upstream_rq_500")).toBe(1);
    expect(copy.host.told).toEqual([500]);
  });

  it("has a host of its own, and a head that is edited", () => {
    const own = {
      host_rewrite_literal: "copy.test",
      request_headers_mutations: [
        { append: { header: { key: "x-by", value: "%REQ(x-who)% %REQ(:path)%" } } },
        { remove: "x-who" },
      ],
    };
    const p = proxy(
      {},
      { request_mirror_policies: [{ cluster: "copy", cluster_header: "", ...own }] },
    );
    const copy = p.cluster("copy");
    p.connect().get("/x", "x-who: me");
    expect(["host", "x-by", "x-who"].map((name) => copy.last.header(name))).toEqual([
      "copy.test",
      "me /x",
      undefined,
    ]);
    expect(["host", "x-by", "x-who"].map((name) => p.up.last.header(name))).toEqual([
      "h.test",
      undefined,
      "me",
    ]);
  });

  it("is counted once where its answer breaks off in the middle", () => {
    const p = proxy({}, { request_mirror_policies: [{ cluster: "copy", cluster_header: "" }] });
    const copy = p.cluster("copy");
    p.connect().get("/");
    copy.last.respond(200);
    copy.last.garbage();
    expect(copy.host.told).toEqual([200]);
    expect(p.cx.stats.value("cluster.copy.internal.upstream_rq_completed")).toBe(1);
  });

  it("is whole where the upstream has begun to answer before the request ends", () => {
    const p = proxy({}, { request_mirror_policies: [{ cluster: "copy", cluster_header: "" }] });
    const copy = p.cluster("copy");
    const c = p.connect().send("POST / HTTP/1.1\r\nhost: h.test\r\ncontent-length: 6\r\n\r\nabc");
    p.up.last.informational(103);
    c.send("def");
    expect([copy.last.body, copy.last.ended]).toEqual(["abcdef", true]);
  });

  it("is sent after the request that it is a copy of, with or without a body", () => {
    const p = proxy({}, { request_mirror_policies: [{ cluster: "copy", cluster_header: "" }] });
    const copy = p.cluster("copy");
    const order: string[] = [];
    for (const cluster of [p.up, copy]) {
      const begin = cluster.newStream.bind(cluster);
      cluster.newStream = (...args) => {
        order.push(cluster.name);
        return begin(...args);
      };
    }
    p.connect().get("/");
    p.connect().post("/", "abc");
    expect(order).toEqual(["up", "copy", "up", "copy"]);
  });

  it("is left out by its fraction, for want of a cluster, and after its timeout", () => {
    const none = { default_value: { numerator: 0, denominator: "HUNDRED" }, runtime_key: "" };
    const policies = [
      { cluster: "copy", cluster_header: "", runtime_fraction: none },
      { cluster: "", cluster_header: "x-copy" },
    ];
    const p = proxy({}, { request_mirror_policies: policies, timeout: 100 });
    const copy = p.cluster("copy");
    p.connect().get("/");
    expect(copy.exchanges.length).toBe(0);
    p.connect().get("/", "x-copy: copy");
    expect(copy.exchanges.length).toBe(1);
    p.cx.clock.advance(100);
    expect(copy.last.wasReset).toBe(true);
    expect(copy.host.told).toEqual(["timeout"]);
  });
});

describe("an internal redirect", () => {
  const redirecting = (policy: object = {}) =>
    proxy(
      {},
      {
        internal_redirect_policy: {
          max_internal_redirects: 1,
          redirect_response_codes: [302, 303],
          predicates: [],
          response_headers_to_copy: [],
          ...policy,
        },
      },
    );
  const to = (location: string) => ({ location });

  it("is followed here, with a log line for each pass", () => {
    const p = redirecting({ response_headers_to_copy: ["x-token"] });
    const c = p.connect().post("/a", "body");
    p.up.last.respond(302, { ...to("http://other.test/b?c#d"), "x-token": "t" }, "");
    expect([p.up.last.path, p.up.last.body]).toEqual(["/b?c", "body"]);
    expect(p.up.last.header("host")).toBe("other.test");
    expect(p.up.last.header("x-token")).toBe("t");
    expect(p.up.last.header("x-envoy-original-url")).toBe("http://h.test/a");
    p.up.last.respond(200, {}, "there");
    expect(c.take()).toMatch(/^HTTP\/1.1 200 [\s\S]*\nthere\n0\n\n$/);
    expect(p.lines).toEqual(["302 - internal_redirect 1", "200 - via_upstream 1"]);
    expect(p.cx.stats.value("cluster.up.upstream_internal_redirect_succeeded_total")).toBe(1);
    c.get("/next");
    p.up.last.respond(200, {}, "");
    expect(c.status()).toBe(200);
  });

  it("becomes GET without a body after 303", () => {
    const p = redirecting();
    p.connect().post("/a", "body");
    p.up.last.respond(303, to("http://h.test/b"), "");
    expect([p.up.last.method, p.up.last.body, p.up.last.header("content-length")]).toEqual([
      "GET",
      "",
      undefined,
    ]);
  });

  it.each([
    ["bad_location", "/relative"],
    ["unsafe_scheme", "https://h.test/b"],
  ])("goes to the client for a location that is not good: %s", (why, location) => {
    const p = redirecting();
    const c = p.connect().get("/a");
    p.up.last.respond(302, to(location), "");
    expect(c.status()).toBe(302);
    expect(p.cx.stats.value(`http.test.passthrough_internal_redirect_${why}`)).toBe(1);
    expect(p.cx.stats.value("cluster.up.upstream_internal_redirect_failed_total")).toBe(1);
  });

  it("happens no more often than it may, and where its predicates let it", () => {
    const p = redirecting();
    const c = p.connect().get("/a");
    p.up.last.respond(302, to("http://h.test/b"), "");
    p.up.last.respond(302, to("http://h.test/c"), "");
    expect(c.status()).toBe(302);
    const listed = {
      name: "p",
      typed_config: {
        "@type":
          "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig",
        allowed_route_names: ["elsewhere"],
      },
    };
    const q = redirecting({ predicates: [listed] });
    const d = q.connect().get("/a");
    q.up.last.respond(302, to("http://other.test/b"), "");
    expect(d.take()).toContain("location: http://other.test/b");
    expect(q.cx.stats.value("http.test.passthrough_internal_redirect_predicate")).toBe(1);
  });

  it("leads from HTTPS to HTTP, and not back, where its predicate wants that", () => {
    const type = "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig";
    const safe = { name: "p", typed_config: { "@type": type } };
    const p = redirecting({ allow_cross_scheme_redirect: true, predicates: [safe] });
    const c = p
      .connect((connection) => {
        connection.secure = true;
      })
      .get("/a");
    p.up.last.respond(302, to("http://h.test/b"), "");
    expect(p.up.last.path).toBe("/b");
    expect(p.up.last.header("x-envoy-original-url")).toBe("https://h.test/a");
    p.up.last.respond(200, {}, "");
    expect(c.status()).toBe(200);
    const d = p.connect().get("/a");
    p.up.last.respond(302, to("https://h.test/b"), "");
    expect(d.status()).toBe(302);
    expect(p.cx.stats.value("http.test.passthrough_internal_redirect_predicate")).toBe(1);
  });

  it("takes a connection without TLS for HTTP, whatever x-forwarded-proto says", () => {
    const p = redirecting();
    const c = p.connect().get("/a", "x-forwarded-proto: https");
    p.up.last.respond(302, to("https://h.test/b"), "");
    expect(c.status()).toBe(302);
    p.connect().get("/a", "x-forwarded-proto: https");
    p.up.last.respond(302, to("http://h.test/b"), "");
    expect(p.up.last.path).toBe("/b");
    expect(p.up.last.header("x-envoy-original-url")).toBe("http://h.test/a");
  });

  it.each([
    ["http://u:p@h.test:81/b", "h.test:81 /b"],
    ["http://@h.test", "h.test /"],
    ["HTTP://[::1]:80/b?c?d#e", "[::1]:80 /b?c?d"],
    ['http://h.test/\\^"', 'h.test /\\^"'],
  ])("goes where the URL %s leads", (location, place) => {
    const p = redirecting();
    p.connect().get("/a");
    p.up.last.respond(302, to(location), "");
    expect(`${p.up.last.header("host")} ${p.up.last.path}`).toBe(place);
  });

  it.each([
    "http://h.test#f",
    "http://h.test:/b",
    "http://h.test:99999/b",
    "http://h.test:8a/b",
    "http://h_i.test/b",
    "http://a@b@h.test/b",
    "http://[::1/b",
    "http://h.test/\u00e9",
    "http://h;i/b",
    "http://h%2ei/b",
    "http:///b",
    "http://h.test\\b",
  ])("goes to the client for %s, which is no URL to Envoy", (location) => {
    const p = redirecting();
    const c = p.connect().get("/a");
    p.up.last.respond(302, to(location), "");
    expect(c.status()).toBe(302);
    expect(p.cx.stats.value("http.test.passthrough_internal_redirect_bad_location")).toBe(1);
  });

  it("waits for no request that is still coming", () => {
    const p = redirecting();
    const c = p.connect().send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabc");
    p.up.last.respond(302, to("http://h.test/b"), "");
    expect(c.status()).toBe(302);
  });
});

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

  it("max_grpc_timeout does the same in the older way", () => {
    const p = proxy({}, { max_grpc_timeout: 400 });
    const c = p.connect().get("/", "content-type: application/grpc", "grpc-timeout: 1S");
    expect(p.up.last.header("x-envoy-expected-rq-timeout-ms")).toBe("400");
    expect(p.up.last.header("grpc-timeout")).toBe("400m");
    p.cx.clock.advance(400);
    expect(c.take()).toContain("grpc-status: 14");
  });
});

it("checks steering headers strictly if it is told to", () => {
  const p = new TestProxy({ codec, router });
  p.start(INTERNAL, { strict_check_headers: ["x-envoy-upstream-rq-timeout-ms"] });
  const c = p.connect().get("/", "x-envoy-upstream-rq-timeout-ms: soon");
  expect(c.take()).toMatch(
    /^HTTP\/1.1 400 [\s\S]*invalid header 'x-envoy-upstream-rq-timeout-ms' with value 'soon'$/,
  );
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

it("turns the share of a cluster in maintenance away", () => {
  const p = proxy({});
  p.cx.runtime.replace([["upstream.maintenance_mode.up", 100]]);
  const c = p.connect().get("/");
  expect(c.take()).toMatch(
    /^HTTP\/1.1 503 [\s\S]*x-envoy-overloaded: true\n[\s\S]*maintenance mode$/,
  );
  expect(p.lines).toEqual(["503 UO maintenance_mode 0"]);
  expect([p.stat("maintenance_mode"), p.stat("503")]).toEqual([1, 1]);
});

it("ends an exchange that takes longer than its cluster allows", () => {
  const p = proxy({});
  p.up.maxStreamDurationMs = 100;
  const c = p.connect().get("/");
  p.cx.clock.advance(100);
  expect(c.take()).toMatch(/^HTTP\/1.1 504 [\s\S]*upstream max stream duration reached$/);
  expect(p.lines).toEqual(["504 UMSDR upstream_max_stream_duration_reached 1"]);
});

it("says why an upstream failed, once in a while", () => {
  const p = proxy({});
  const transportFailure = "delayed_connect_error: Connection refused";
  p.up.answer = { reason: "connection_failed", host: p.up.host, transportFailure };
  for (let k = 0; k < 3; k++) p.connect().get("/");
  p.cx.clock.advance(10_000);
  p.connect().get("/");
  const said = p.cx.logged.filter(({ message }) => message === "an upstream failed");
  expect(said.map(({ fields }) => fields.times)).toEqual([1, 3]);
  expect(said[0]!.fields).toMatchObject({
    cluster: "up",
    host: "198.51.100.1:8080",
    phase: "connecting",
    transport: transportFailure,
  });
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

describe("upstream_log", () => {
  it("has a line for every attempt, with its own code, flags and sizes", () => {
    const p = new TestProxy({ codec, router });
    const lines: string[] = [];
    p.cx.define("access_log/tries", {
      kind: "access_log",
      setup: () => ({
        log: ({ info, logType, response }: import("@tsproxy/sdk").LogEntry) =>
          void lines.push(
            [
              logType,
              info.responseCode,
              info.flags.join(",") || "-",
              info.bytesSent,
              info.bytesReceived,
              info.upstreamHost === undefined ? "-" : "host",
              response?.get(headerName("x-t")) ?? "-",
              info.protocol || "-",
            ].join(" "),
          ),
      }),
    });
    const upstream_log = [{ name: "l", package: "access_log/tries", config: {} }];
    const upstream_log_options = { flush_upstream_log_on_upstream_stream: true };
    p.start({
      route_config: oneHost(
        routeTo("up", { retry_policy: { retry_on: "5xx", num_retries: 2, per_try_timeout: 500 } }),
      ),
      http_filters: [
        {
          name: "r",
          package: "http/router",
          config: { strict_check_headers: [], upstream_log, upstream_log_options },
        },
      ],
    });
    p.connect().send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n12345");
    p.up.last.respond(503, { "x-t": "one" }, "busy");
    p.cx.clock.advance(250);
    p.cx.clock.advance(500);
    p.cx.clock.advance(250);
    p.up.last.respond(200, { "x-t": "two" }, "done!!");
    expect(lines).toEqual([
      "UpstreamPoolReady 0 - 0 0 host - HTTP/1.1",
      "UpstreamEnd 503 - 5 0 host one HTTP/1.1",
      "UpstreamPoolReady 0 - 0 0 host - HTTP/1.1",
      "UpstreamEnd 0 UT 5 0 host - HTTP/1.1",
      "UpstreamPoolReady 0 - 0 0 host - HTTP/1.1",
      "UpstreamEnd 200 - 5 6 host two HTTP/1.1",
    ]);
  });
});
