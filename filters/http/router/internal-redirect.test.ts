import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import { proxies } from "../../network/http_connection_manager/test-proxy.ts";
import router from "./filter.ts";

const proxy = proxies({ codec, router });

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
