import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import router from "../../http/router/filter.ts";
import { oneHost, TestProxy } from "./test-proxy.ts";

const say = (match: object, body: string, more: object = {}) => ({
  match,
  direct_response: { status: 200, body: { inline_string: body } },
  ...more,
});
const start = (...routes: object[]) =>
  new TestProxy({ codec, router }).start({ route_config: oneHost(...routes) });
const ask = (p: TestProxy, path: string, ...lines: string[]) =>
  p
    .connect()
    .get(path, ...lines)
    .take()
    .split("\n\n")[1] ?? "";

const template = (path_template: string) => ({
  path_match_policy: {
    name: "envoy.path.match.uri_template.uri_template_matcher",
    typed_config: {
      "@type":
        "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
      path_template,
    },
  },
});
const rewriteTo = (path_template_rewrite: string) => ({
  path_rewrite_policy: {
    name: "envoy.path.rewrite.uri_template.uri_template_rewriter",
    typed_config: {
      "@type":
        "type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig",
      path_template_rewrite,
    },
  },
});

it("lists the stats of every route with a stat_prefix before its first request", () => {
  const p = start(say({ prefix: "/" }, "x", { stat_prefix: "r" }));
  expect(p.cx.stats.values.get("vhost.all.route.r.upstream_rq_total")).toBe(0);
});

describe("a URI template", () => {
  it.each([
    ["/a/{x}/c", "/a/b/c", true],
    ["/a/{x}/c", "/a/b/c?q=/", true],
    ["/a/{x}/c", "/a//c", false],
    ["/a/{x}/c", "/a/b/b/c", false],
    ["/a/*/c", "/a/b.b/c", true],
    ["/a/**", "/a/b/c/d", true],
    ["/a/**", "/a/", true],
    ["/a/**.jpg", "/a/b/c.jpg", true],
    ["/a/**.jpg", "/a/b/cjpg", false],
    ["/a/*", "/a/b*", true],
    ["/a/**", "/a/*/b", true],
    ["/v{x}", "/v1", true],
    ["/v{x}", "/v", false],
    ["/{x}-y/c", "/a-y/c", true],
    ["/{x}-y/c", "/a/c", false],
    ["/a/{x=v*}/**.mp4", "/a/vv/b.mp4", true],
    ["/a/{x=v*}/**.mp4", "/a/v1/b.mp4", false],
    ["/{x=a/*}/{y=**}", "/a/b/c/d", true],
    ["/{x=a/*}/{y=**}", "/b/b/c/d", false],
    ["/a/", "/a/", true],
    ["/a/", "/a", false],
    ["/a+b$", "/a+b$", true],
  ])("%s and %s", (text, path, matches) => {
    const p = start(say(template(text), "yes"), say({ prefix: "/" }, "no"));
    expect(ask(p, path)).toBe(matches ? "yes" : "no");
  });

  it("is refused where Envoy refuses it", () => {
    const bad = ["a/b", "/a/**/*", "/{x}/{x}", "/{1}", "/a{x", "/*b/c", "/a b", "/{x=}"];
    bad.push("/{a}{b}", "/{a}x{b}", "/*{a}", "/{a=*b}", "/a/{b=/x}", "/**x/y", "/a}", "/{a=*=}");
    for (const text of [...bad, "/{a}/{b}/{c}/{d}/{e}/{f}", `/{${"x".repeat(17)}}`]) {
      expect(() => start(say(template(text), "")), text).toThrow(/URI template/);
    }
  });

  it("fills what it has caught into the rewritten path", () => {
    const route = (to: string) => ({
      match: template("/api/{who}/{rest=**}"),
      route: { cluster: "up", ...rewriteTo(to) },
    });
    const p = start(route("/{rest}/of/{who}"));
    p.connect().get("/api/ann/x/y?q=1");
    expect(p.up.last.path).toBe("/x/y/of/ann?q=1");
    expect(() => start(route("/{other}"))).toThrow(/no variable \{other\}/);
  });
});

it("matches no CONNECT but by connect_matcher", () => {
  const p = start(say({ prefix: "/" }, "prefix"), say({ connect_matcher: {} }, "connect"));
  const client = p.connect().send("CONNECT h.test:443 HTTP/1.1\r\nhost: h.test:443\r\n\r\n");
  expect(client.take()).toMatch(/^HTTP\/1.1 403 |connect/);
  expect(ask(p, "/x")).toBe("prefix");
});

it("matches the certificate that the client has shown", () => {
  const p = start(
    say({ prefix: "/", tls_context: { presented: true, validated: true } }, "valid"),
    say({ prefix: "/", tls_context: { presented: true } }, "shown"),
    say({ prefix: "/" }, "none"),
  );
  const as = (tls: object | undefined) =>
    p
      .connect((connection) => void Object.assign(connection, { tls }))
      .get("/")
      .take()
      .split("\n\n")[1];
  expect(as(undefined)).toBe("none");
  expect(as({ peer: {}, peerValidated: false })).toBe("shown");
  expect(as({ peer: {}, peerValidated: true })).toBe("valid");
});

it("matches metadata that filters have left, once the route is cleared", () => {
  const metadata = (value: object, more: object = {}) => ({
    prefix: "/",
    dynamic_metadata: [{ filter: "ns", path: [{ key: "a" }, { key: "b" }], value, ...more }],
  });
  const p = new TestProxy({ codec, router });
  p.filter("mark", (stream) => ({
    onRequestHeaders: (headers) => {
      const value = headers.get("x-value");
      if (value !== undefined) stream.metadata.set("ns", { a: { b: JSON.parse(value) } });
      if (!headers.has("x-keep")) stream.clearRoute();
    },
  }));
  p.start({
    route_config: oneHost(
      say(metadata({ string_match: { prefix: "x" } }), "string"),
      say(metadata({ double_match: { range: { start: 1, end: 3 } } }), "range"),
      say(metadata({ list_match: { one_of: { string_match: { exact: "in" } } } }), "list"),
      say(metadata({ null_match: {} }), "null"),
      say(metadata({ present_match: true }, { invert: true }), "absent"),
      say({ prefix: "/" }, "other"),
    ),
  });
  const with_ = (value: string) => ask(p, "/", `x-value: ${value}`);
  expect(with_('"xyz"')).toBe("string");
  expect([with_("1"), with_("3")]).toEqual(["range", "other"]);
  expect(with_('["out","in"]')).toBe("list");
  expect(with_("null")).toBe("null");
  expect(ask(p, "/")).toBe("absent");
  expect(ask(p, "/", 'x-value: "xyz"', "x-keep: 1")).toBe("absent");
});

it("leaves path parameters out of the match, and forwards them", () => {
  const p = new TestProxy({ codec, router });
  const routes = ["/a", "/b/c"].map((path) => ({ match: { path }, route: { cluster: "up" } }));
  const route_config = { ...oneHost(...routes), ignore_path_parameters_in_path_matching: true };
  p.start({ route_config });
  p.connect().get("/a;v=1?q");
  expect(p.up.last.path).toBe("/a;v=1?q");
  p.connect().get("/b;v=1;w/c;x");
  expect(p.up.last.path).toBe("/b;v=1;w/c;x");
});

describe("a matcher of a virtual host", () => {
  const input = (name: string) => ({
    name: "header",
    typed_config: {
      "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
      header_name: name,
    },
  });
  const route = (entry: object) => ({
    action: {
      name: "route",
      typed_config: { "@type": "type.googleapis.com/envoy.config.route.v3.Route", ...entry },
    },
  });
  const routes = (...entries: object[]) => ({
    action: {
      name: "routes",
      typed_config: {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteList",
        routes: entries,
      },
    },
  });

  it("is refused where Envoy refuses it", () => {
    const start = (typed_config: object, more: object = {}) => {
      const on_match = { ...route(say({ prefix: "/" }, "x")), ...more };
      const predicate = {
        single_predicate: { input: { name: "i", typed_config }, value_match: { exact: "a" } },
      };
      const matcher = { matcher_list: { matchers: [{ predicate, on_match }] } };
      const virtual_hosts = [{ name: "all", domains: ["*"], matcher }];
      return () =>
        new TestProxy({ codec, router }).start({ route_config: { name: "r", virtual_hosts } });
    };
    const type = (name: string, more: object) => ({
      "@type": `type.googleapis.com/envoy.${name}`,
      ...more,
    });
    const query = type("type.matcher.v3.HttpRequestQueryParamMatchInput", { query_param: "a" });
    const header = type("type.matcher.v3.HttpRequestHeaderMatchInput", { header_name: "a" });
    const state = type("extensions.matching.common_inputs.network.v3.FilterStateInput", {
      key: "a",
    });
    expect(start(query)).toThrow(
      /no input for this tree; use HttpRequestHeaderMatchInput, FilterStateInput or Config/,
    );
    expect(start(header, { keep_matching: true })).toThrow(/^is not supported here/);
    for (const taken of [header, state]) expect(start(taken)).not.toThrow();
  });

  it("chooses the routes that may match", () => {
    const matcher = {
      matcher_tree: {
        input: input(":path"),
        prefix_match_map: {
          map: {
            "/a": routes(say({ path: "/a/1" }, "one"), say({ prefix: "/a/2" }, "two")),
            "/b": route(say({ prefix: "/b/" }, "b")),
          },
        },
      },
      on_no_match: route(say({ prefix: "/" }, "rest")),
    };
    const p = new TestProxy({ codec, router });
    const virtual_hosts = [{ name: "all", domains: ["*"], matcher }];
    p.start({ route_config: { name: "local", virtual_hosts } });
    expect([ask(p, "/a/1"), ask(p, "/a/2x"), ask(p, "/b/x"), ask(p, "/c")]).toEqual([
      "one",
      "two",
      "b",
      "rest",
    ]);
    // The tree has decided; routes beside those that it chose are not asked.
    expect(p.connect().get("/a/3").status()).toBe(404);
  });
});

describe("weighted clusters", () => {
  const weighted = (more: object) => ({
    match: { prefix: "/" },
    route: {
      weighted_clusters: {
        clusters: [
          { name: "up", weight: 1 },
          { name: "other", weight: 1 },
        ],
        ...more,
      },
    },
  });

  it("are chosen by the number in a header", () => {
    const p = new TestProxy({ codec, router });
    const other = p.cluster("other");
    p.start({ route_config: oneHost(weighted({ header_name: "x-random" })) });
    for (const n of [0, 1, 2, 3, 5]) p.connect().get("/", `x-random: ${n}`);
    expect([p.up.exchanges.length, other.exchanges.length]).toEqual([2, 3]);
    // The greatest number of 64 bits is odd, which a double does not know of it.
    p.connect().get("/", "x-random: 18446744073709551615");
    expect([p.up.exchanges.length, other.exchanges.length]).toEqual([2, 4]);
    // Two lines are no number, as in Envoy.
    for (let k = 0; k < 60; k++) p.connect().get("/", "x-random: 0\r\nx-random: 0");
    expect(other.exchanges.length).toBeGreaterThan(4);
  });

  it("are chosen by the route's hash policy", () => {
    const p = new TestProxy({ codec, router });
    const other = p.cluster("other");
    const { match, route } = weighted({ use_hash_policy: true });
    const hash_policy = [{ header: { header_name: "x-user" } }];
    p.start({ route_config: oneHost({ match, route: { ...route, hash_policy } }) });
    for (let n = 0; n < 40; n++) p.connect().get("/", `x-user: ${n % 20}`);
    // Each of the twenty users goes to the same cluster both times.
    const users = (exchanges: typeof p.up.exchanges) =>
      exchanges.map((e) => e.headers.find(([name]) => name === "x-user")![1]).sort();
    for (const list of [users(p.up.exchanges), users(other.exchanges)]) {
      expect(list.length).toBeGreaterThan(0);
      expect(list.filter((_, k) => k % 2 === 0)).toEqual(list.filter((_, k) => k % 2 === 1));
    }
  });

  it("take their weights from the runtime", () => {
    const p = new TestProxy({ codec, router });
    const other = p.cluster("other");
    p.cx.runtime.replace([["split.up", 0]]);
    const routes = [weighted({ runtime_key_prefix: "split" }), say({ prefix: "/" }, "next")];
    p.start({ route_config: oneHost(...routes) });
    for (let k = 0; k < 5; k++) p.connect().get("/");
    expect([p.up.exchanges.length, other.exchanges.length]).toEqual([0, 5]);
    p.cx.runtime.replace([
      ["split.up", 0],
      ["split.other", 0],
    ]);
    // All are 0: the route matches nothing, as in Envoy, and the next one has its turn.
    expect(p.connect().get("/").take()).toContain("next");
    expect([p.up.exchanges.length, other.exchanges.length]).toEqual([0, 5]);
  });

  it("refuse a new config if the runtime leaves them no weight in sum", () => {
    const split = weighted({ runtime_key_prefix: "split" });
    const refusal = (worker: number, rehearsed: boolean, ...values: [string, number][]) => {
      const p = new TestProxy({ codec, router });
      p.cluster("other");
      Object.assign(p.cx, { worker, rehearsed });
      p.cx.runtime.replace(values);
      try {
        p.start({ route_config: oneHost(split) });
        return "";
      } catch (error) {
        return (error as Error).message;
      }
    };
    const none: [string, number][] = [
      ["split.up", 0],
      ["split.other", 0.9],
    ];
    expect(refusal(0, false, ...none)).toContain(
      `with the runtime's "split.…" the weights are 0 in sum; give one cluster a weight`,
    );
    const much: [string, number][] = [["split.up", 0xffff_ffff]];
    expect(refusal(0, false, ...much)).toMatch(/the weights are \d+ in sum, above 4294967295/);
    // What a canary has let pass has met the values of its time; an operator may have set others since.
    expect(refusal(0, true, ...none)).toBe("");
    expect(refusal(1, false, ...none)).toBe("");
  });
});

it("a request without the vhost_header has no virtual host, not even that of `*`", () => {
  const host = (name: string, domain: string) => ({
    name,
    domains: [domain],
    routes: [say({ prefix: "/" }, name)],
  });
  const virtual_hosts = [host("named", "one"), host("rest", "*")];
  const p = new TestProxy({ codec, router });
  p.start({ route_config: { vhost_header: "x-vhost", virtual_hosts } });
  expect(ask(p, "/", "x-vhost: ONE")).toBe("named");
  expect(ask(p, "/", "x-vhost: other")).toBe("rest");
  expect(p.connect().get("/").status()).toBe(404);
});
