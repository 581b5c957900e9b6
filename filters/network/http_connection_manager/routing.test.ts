import { ConfigError } from "@tsproxy/sdk";
import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import router from "../../http/router/filter.ts";
import { oneHost, routeTo, TestProxy } from "./test-proxy.ts";

const proxy = () => new TestProxy({ codec, router });
const says = (body: string, match: object = { prefix: "/" }) => ({
  match,
  direct_response: { status: 200, body: { inline_string: body } },
});
const add = (key: string, value: string, more: object = {}) => ({
  header: { key, value },
  ...more,
});

describe("header rules", () => {
  it("apply from the most specific level outwards, removals first, additions last", () => {
    const level = (name: string) => ({
      request_headers_to_add: [
        add("x-lvl", name),
        add("x-set", name, { append_action: "OVERWRITE_IF_EXISTS_OR_ADD" }),
      ],
      response_headers_to_add: [add("x-lvl", name)],
    });
    const p = proxy().start({
      route_config: {
        name: "t",
        ...level("table"),
        virtual_hosts: [
          {
            name: "v",
            domains: ["*"],
            ...level("host"),
            request_headers_to_remove: ["x-bad"],
            response_headers_to_remove: ["x-drop"],
            routes: [{ ...routeTo("up"), ...level("route") }],
          },
        ],
      },
    });
    const c = p.connect().get("/", "x-bad: 1", "x-keep: k");
    const names = p.up.last.headers.map(([n, v]) =>
      n.startsWith("x-lvl") || n === "x-set" ? `${n}=${v}` : n,
    );
    expect(names).toEqual([
      "host",
      "x-keep",
      "x-forwarded-proto",
      "x-request-id",
      "x-envoy-expected-rq-timeout-ms",
      "x-lvl=route",
      "x-lvl=host",
      "x-set=table",
      "x-lvl=table",
    ]);
    p.up.last.respond(200, { "x-drop": "1", "x-up": "1" }, "");
    expect(c.take()).toBe(
      "HTTP/1.1 200 OK\nx-up: 1\nx-envoy-upstream-service-time: 0\nx-lvl: route\nx-lvl: host\nx-lvl: table\nserver: envoy\ncontent-length: 0\n\n",
    );
  });

  it("turn round with most_specific_header_mutations_wins", () => {
    const set = (value: string) => ({
      request_headers_to_add: [
        add("x-set", value, { append_action: "OVERWRITE_IF_EXISTS_OR_ADD" }),
      ],
    });
    const p = proxy().start({
      route_config: {
        ...oneHost({ ...routeTo("up"), ...set("route") }),
        ...set("table"),
        most_specific_header_mutations_wins: true,
      },
    });
    p.connect().get("/");
    expect(p.up.last.header("x-set")).toBe("route");
  });

  it("apply those of a weighted cluster first, in either order of the levels", () => {
    const level = (value: string) => ({ request_headers_to_add: [add("x-lvl", value)] });
    const clusters = [{ name: "up", weight: 1, ...level("cluster") }];
    const p = proxy().start({
      route_config: {
        ...oneHost({
          match: { prefix: "/" },
          route: { weighted_clusters: { clusters } },
          ...level("route"),
        }),
        ...level("table"),
        most_specific_header_mutations_wins: true,
      },
    });
    p.connect().get("/");
    const levels = p.up.last.headers.filter(([n]) => n === "x-lvl").map(([, v]) => v);
    expect(levels).toEqual(["cluster", "table", "route"]);
  });

  it("make all values of a level before any of them is set", () => {
    const p = proxy().start({
      route_config: oneHost({
        ...routeTo("up"),
        request_headers_to_add: [
          add("x-a", "new", { append_action: "OVERWRITE_IF_EXISTS_OR_ADD" }),
          add("x-was", "%REQ(x-a)%"),
        ],
      }),
    });
    p.connect().get("/old", "x-a: old");
    expect(p.up.last.header("x-was")).toBe("old");
    expect(p.up.last.header("x-a")).toBe("new");
  });

  it("append, add, overwrite and leave alone as told", () => {
    const p = proxy().start({
      route_config: oneHost({
        ...routeTo("up"),
        request_headers_to_add: [
          add("x-a", "new"),
          add("x-b", "new", { append_action: "ADD_IF_ABSENT" }),
          add("x-c", "new", { append_action: "OVERWRITE_IF_EXISTS_OR_ADD" }),
          add("x-d", "new", { append_action: "OVERWRITE_IF_EXISTS" }),
        ],
      }),
    });
    const seen = () =>
      p.up.last.headers.filter(([n]) => /^x-[a-d]$/.test(n)).map(([n, v]) => n + v);
    p.connect().get("/", "x-a: 0", "x-b: 0", "x-c: 0", "x-d: 0");
    expect(seen()).toEqual(["x-a0", "x-b0", "x-cnew", "x-dnew", "x-anew"]);
    p.connect().get("/");
    expect(seen()).toEqual(["x-cnew", "x-anew", "x-bnew"]);
  });

  it("fill in commands, and add nothing for an empty value", () => {
    const p = proxy().start({
      route_config: oneHost({
        name: "named",
        ...routeTo("up"),
        request_headers_to_add: [
          add("x-proto", "%PROTOCOL%"),
          add("x-req", "%REQ(x-in?:path):6%"),
          add("x-empty", "%REQ(x-none)%"),
          add("x-pct", "100%%"),
        ],
        response_headers_to_add: [
          add("x-code", "%RESPONSE_CODE%"),
          add("x-up", "%UPSTREAM_CLUSTER% %UPSTREAM_HOST%"),
          add("x-resp", "%RESP(x-own)%"),
          add("x-route", "%ROUTE_NAME%"),
        ],
      }),
    });
    const c = p.connect().get("/path/long");
    expect(p.up.last.header("x-proto")).toBe("HTTP/1.1");
    expect(p.up.last.header("x-req")).toBe("/path/");
    expect(p.up.last.header("x-empty")).toBeUndefined();
    expect(p.up.last.header("x-pct")).toBe("100%");
    p.up.last.respond(201, { "x-own": "yes" }, "");
    expect(c.take()).toContain(
      "x-code: 201\nx-up: up 198.51.100.1:8080\nx-resp: yes\nx-route: named\n",
    );
  });

  it("never touch host, path and their like, in either direction", () => {
    const action = { append_action: "OVERWRITE_IF_EXISTS_OR_ADD" };
    for (const name of [":path", ":method", ":authority", ":scheme", ":status", "host", "Host"]) {
      for (const list of ["request_headers_to_add", "response_headers_to_add"]) {
        const config = oneHost({ ...routeTo("up"), [list]: [add(name, "x", action)] });
        expect(() => proxy().start({ route_config: config })).toThrow(
          `"${name}" may not be modified`,
        );
      }
    }
  });
});

describe("forwarding", () => {
  const path = (action: object, match: object, asked: string) => {
    const p = proxy().start({
      route_config: oneHost({ match, route: { cluster: "up", ...action } }),
    });
    p.connect().get(asked);
    return [p.up.last.path, p.up.last.header("x-envoy-original-path")];
  };

  it("rewrites prefixes, whole paths and what an expression matches; the query stays", () => {
    expect(path({ prefix_rewrite: "/new/" }, { prefix: "/pr/" }, "/pr/a?x=1")).toEqual([
      "/new/a?x=1",
      "/pr/a?x=1",
    ]);
    expect(path({ prefix_rewrite: "/" }, { prefix: "/p" }, "/p/x")).toEqual(["//x", "/p/x"]);
    expect(path({ prefix_rewrite: "/n" }, { path: "/whole" }, "/whole?q")[0]).toBe("/n?q");
    const regex_rewrite = { pattern: { regex: "^/rr/(\\w+)/(\\w+)" }, substitution: "/x/\\2/\\1" };
    expect(path({ regex_rewrite }, { prefix: "/rr" }, "/rr/aa/bb/cc")[0]).toBe("/x/bb/aa/cc");
  });

  it("keeps a path of which an expression leaves nothing", () => {
    const regex_rewrite = { pattern: { regex: "^/gone" }, substitution: "" };
    expect(path({ regex_rewrite }, { prefix: "/gone" }, "/gone?q")).toEqual(["/gone?q", undefined]);
    expect(path({ regex_rewrite }, { prefix: "/gone" }, "/gone/x")).toEqual(["/x", "/gone/x"]);
    const p = proxy().start({
      route_config: oneHost({ match: { prefix: "/gone" }, redirect: { regex_rewrite } }),
    });
    expect(p.connect().get("/gone?q").take()).toContain("location: http://h.test/gone?q\n");
  });

  it("rewrites the host by a literal, a header, the path, and the host chosen", () => {
    const host = (action: object, ...lines: string[]) => {
      const p = proxy();
      p.up.host.hostname = "real.test";
      p.start({ route_config: oneHost(routeTo("up", action)) });
      p.connect().get("/hrp.test", ...lines);
      forwarded = p.up.last.header("x-forwarded-host");
      return `${p.up.last.header("host")} ${p.up.last.header("x-envoy-original-host")}`;
    };
    let forwarded: string | undefined;
    expect(host({ host_rewrite_literal: "lit.test" })).toBe("lit.test h.test");
    expect(host({ host_rewrite_header: "x-h" }, "x-h: hd.test")).toBe("hd.test h.test");
    expect(host({ host_rewrite_header: "x-h" })).toBe("h.test undefined");
    const host_rewrite_path_regex = { pattern: { regex: "^/(.+)$" }, substitution: "\\1" };
    expect(host({ host_rewrite_path_regex })).toBe("hrp.test h.test");
    expect(host({ auto_host_rewrite: true })).toBe("real.test h.test");
    for (const rewrite of [{ auto_host_rewrite: true }, { host_rewrite_literal: "lit.test" }]) {
      host({ ...rewrite, append_x_forwarded_host: true }, "x-forwarded-host: first");
      expect(forwarded).toBe("first,h.test");
      host({ ...rewrite, append_x_forwarded_host: true }, "x-forwarded-host: first,h.test");
      expect(forwarded).toBe("first,h.test");
    }
  });

  it("shares requests out by weight, each entry with rules of its own", () => {
    const p = proxy();
    const b = p.cluster("b");
    p.start({
      route_config: oneHost({
        match: { prefix: "/" },
        route: {
          weighted_clusters: {
            clusters: [
              { name: "up", weight: 75 },
              {
                name: "b",
                weight: 25,
                host_rewrite_literal: "b.test",
                request_headers_to_add: [add("x-which", "b")],
              },
            ],
          },
        },
      }),
    });
    for (let k = 0; k < 400; k++) p.connect().get("/");
    expect(p.up.exchanges.length).toBeGreaterThan(240);
    expect(b.exchanges.length).toBeGreaterThan(50);
    expect(b.last.header("host")).toBe("b.test");
    expect(b.last.header("x-which")).toBe("b");
    expect(p.up.last.header("x-which")).toBeUndefined();
  });

  it("rewrites the host for a weighted cluster first, and then for the route", () => {
    const p = proxy();
    const clusters = [{ name: "up", weight: 1, host_rewrite_literal: "cluster.test" }];
    const route = { weighted_clusters: { clusters }, host_rewrite_literal: "route.test" };
    p.start({ route_config: oneHost({ match: { prefix: "/" }, route }) });
    p.connect().get("/");
    expect(p.up.last.header("host")).toBe("route.test");
    expect(p.up.last.header("x-envoy-original-host")).toBe("cluster.test");
  });

  it("takes the cluster from a header, and answers as told when there is none", () => {
    const p = proxy();
    p.start({
      route_config: oneHost(
        {
          match: { prefix: "/404" },
          route: { cluster_header: "x-c", cluster_not_found_response_code: "NOT_FOUND" },
        },
        { match: { prefix: "/" }, route: { cluster_header: "x-c" } },
      ),
    });
    p.connect().get("/", "x-c: up");
    expect(p.up.exchanges.length).toBe(1);
    expect(p.connect().get("/", "x-c: nope").status()).toBe(503);
    expect(p.connect().get("/").status()).toBe(503);
    expect(p.connect().get("/404").status()).toBe(404);
    expect(p.cx.stats.value("http.test.no_cluster")).toBe(3);
  });

  it("sends those without TLS to the same place with it, where a virtual host requires that", () => {
    const p = proxy().start({
      route_config: {
        virtual_hosts: [
          { name: "t", domains: ["tls.test"], require_tls: "ALL", routes: [routeTo("up")] },
        ],
      },
    });
    const c = p.connect().send("GET /a?b=c HTTP/1.1\r\nhost: tls.test\r\n\r\n");
    expect(c.take()).toContain(
      "HTTP/1.1 301 Moved Permanently\nlocation: https://tls.test/a?b=c\n",
    );
    const tls = p.connect((connection) => {
      connection.secure = true;
    });
    tls.send("GET /a HTTP/1.1\r\nhost: tls.test\r\n\r\n");
    expect(p.up.last.header("x-forwarded-proto")).toBe("https");
  });

  it("asks again after a filter has changed the head and forgotten the route", () => {
    const p = proxy()
      .filter("switch", (stream) => ({
        onRequestHeaders: (headers) => {
          expect(stream.route?.name).toBe("first");
          headers.path = "/second";
          stream.clearRoute();
        },
      }))
      .start({
        route_config: oneHost(
          { name: "first", ...says("first", { path: "/first" }) },
          { name: "second", ...says("second", { path: "/second" }) },
        ),
      });
    expect(p.connect().get("/first").take()).toMatch(/second$/);
  });

  it("takes routes by chance, the same for a stream however often it asks", () => {
    const seen: (string | undefined)[][] = [];
    const half = { default_value: { numerator: 50 } };
    const p = proxy()
      .filter("twice", (stream) => ({
        onRequestHeaders: () => {
          const first = stream.route?.name;
          stream.clearRoute();
          seen.push([first, stream.route?.name]);
        },
      }))
      .start({
        route_config: oneHost(
          { name: "a", ...says("a", { prefix: "/", runtime_fraction: half }) },
          { name: "b", ...says("b") },
        ),
      });
    for (let k = 0; k < 100; k++) p.connect().get("/");
    expect(seen.every(([first, second]) => first === second)).toBe(true);
    expect(new Set(seen.map(([first]) => first)).size).toBe(2);
  });
});

describe("the connection manager's own headers", () => {
  it("stand at an edge as in Envoy", () => {
    const p = proxy();
    Object.assign(p.cx.node, { id: "n1", cluster: "c1" });
    p.start({
      use_remote_address: true,
      strip_any_host_port: true,
      via: "myvia",
      server_name: "mysrv",
      add_user_agent: true,
      always_set_request_id_in_response: true,
    });
    const c = p.connect();
    c.send(
      "GET / HTTP/1.1\r\nhost: foo.test:1234\r\nx-forwarded-for: 1.2.3.4\r\nx-request-id: abc\r\nx-envoy-retry-on: 5xx\r\nx-envoy-foo: bar\r\nuser-agent:\r\nx-forwarded-proto: https\r\nx-envoy-original-path: /x\r\n\r\n",
    );
    const sent = Object.fromEntries(p.up.last.headers);
    const id = sent["x-request-id"];
    expect(sent).toEqual({
      host: "foo.test",
      "x-envoy-foo": "bar",
      "x-forwarded-for": "1.2.3.4,192.0.2.1",
      "x-envoy-downstream-service-cluster": "c1",
      "user-agent": "c1",
      "x-envoy-downstream-service-node": "n1",
      via: "myvia",
      "x-envoy-external-address": "192.0.2.1",
      "x-forwarded-proto": "http",
      "x-request-id": expect.stringMatching(/^[0-9a-f-]{36}$/),
      "x-envoy-expected-rq-timeout-ms": "15000",
    });
    p.up.last.respond(200, { server: "theirs" }, "");
    const head = "server: mysrv\nx-envoy-upstream-service-time: 0\n";
    expect(c.take()).toContain(`200 OK\n${head}x-request-id: ${id}`);
  });

  it("keep a client's request id away from an edge, and its referer if it is a URI", () => {
    const p = proxy().start();
    const c = p.connect().get("/", "x-request-id: mine", "referer: http://a.test/p?q");
    expect(p.up.last.header("x-request-id")).toBe("mine");
    expect(p.up.last.header("referer")).toBe("http://a.test/p?q");
    p.up.last.respond(200, {}, "");
    for (const referer of ["/rel?x", "rel/a:b", "http://[::1]:80/"]) {
      c.get("/", `referer: ${referer}`);
      expect(p.up.last.header("referer"), referer).toBe(referer);
      p.up.last.respond(200, {}, "");
    }
    for (const referer of [
      "http://u@a.test/#f",
      "http://",
      "about:blank",
      "/x#f",
      "http://a:99999/",
    ]) {
      c.get("/", `referer: ${referer}`);
      expect(p.up.last.header("referer"), referer).toBeUndefined();
      p.up.last.respond(200, {}, "");
    }
  });

  it.each([
    ["OVERWRITE", "server: envoy"],
    ["APPEND_IF_ABSENT", "server: theirs"],
    ["PASS_THROUGH", "server: theirs"],
  ])("leave or set the server with %s", (transformation, line) => {
    const p = proxy().start({ server_header_transformation: transformation });
    const c = p.connect().get("/");
    p.up.last.respond(200, { server: "theirs" }, "");
    expect(c.take()).toContain(line);
  });

  it("send escaped slashes back unescaped, or refuse them", () => {
    const to = (path_with_escaped_slashes_action: string) =>
      proxy().start({ path_with_escaped_slashes_action }).connect().get("/a%2Fb?x").take();
    expect(to("UNESCAPE_AND_REDIRECT")).toContain("307 Temporary Redirect\nlocation: /a/b?x\n");
    expect(to("REJECT_REQUEST")).toContain("400 Bad Request");
  });

  it("have what no path may hold escaped, if paths are normalized", () => {
    const p = proxy().start({ normalize_path: true });
    const sent: [string, string][] = [
      ['/a"b<c>', "/a%22b%3Cc%3E"],
      ["/{a|b}^`?{c}", "/%7Ba%7Cb%7D%5E%60?{c}"],
      ["/a;b='[c]@:~", "/a;b='[c]@:~"],
    ];
    for (const [path, expected] of sent) {
      p.connect().get(path);
      expect(p.up.last.path).toBe(expected);
    }
  });
});

describe("answers of Envoy's own", () => {
  const raw = (request: string) => proxy().start().connect().send(request).take();

  it.each([
    [
      "a request without a host",
      "GET / HTTP/1.1\r\n\r\n",
      "400 Bad Request\nserver: envoy\nconnection: close\ncontent-length: 0",
    ],
    [
      "a fragment",
      "GET /a#frag HTTP/1.1\r\nHost: q\r\n\r\n",
      "400 Bad Request\nserver: envoy\nconnection: close\ncontent-length: 0",
    ],
    [
      "OPTIONS *",
      "OPTIONS * HTTP/1.1\r\nHost: q\r\n\r\n",
      "404 Not Found\nserver: envoy\ncontent-length: 0",
    ],
    [
      "CONNECT",
      "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
      "404 Not Found\nserver: envoy\nconnection: close\ncontent-length: 0",
    ],
    [
      "HTTP/1.0",
      "GET /x HTTP/1.0\r\nHost: q\r\n\r\n",
      "426 Upgrade Required\ncontent-length: 16\ncontent-type: text/plain\nserver: envoy\nconnection: close",
    ],
    [
      "an unknown coding",
      "POST / HTTP/1.1\r\nHost: q\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
      "501 Not Implemented\ncontent-length: 15\ncontent-type: text/plain\nserver: envoy\nconnection: close",
    ],
  ])("meet %s", (_what, request, answer) => {
    expect(raw(request)).toMatch(new RegExp(`^HTTP/1.1 ${answer.replace(/[.*]/g, "\\$&")}\n\n`));
  });

  it("come to gRPC clients in their own form, and to HEAD without a body", () => {
    const p = proxy().start({
      route_config: oneHost({
        match: { prefix: "/no" },
        direct_response: { status: 503, body: { inline_string: "no: 5%\n" } },
      }),
    });
    const grpc = p.connect().post("/no", "", "content-type: application/grpc+proto");
    expect(grpc.take()).toBe(
      "HTTP/1.1 200 OK\ncontent-type: application/grpc\ngrpc-status: 14\ngrpc-message: no: 5%25%0A\nserver: envoy\ncontent-length: 0\n\n",
    );
    const head = p.connect().send("HEAD /no HTTP/1.1\r\nhost: h\r\n\r\n");
    expect(head.take()).toBe(
      "HTTP/1.1 503 Service Unavailable\ncontent-length: 7\ncontent-type: text/plain\nserver: envoy\n\n",
    );
  });

  it("have the length of their body, whatever the config says", () => {
    const header = { key: "content-length", value: "99" };
    const p = proxy().start({
      route_config: oneHost({
        ...says("four"),
        response_headers_to_add: [{ header, append_action: "APPEND_IF_EXISTS_OR_ADD" }],
      }),
    });
    expect(p.connect().get("/").take()).toMatch(/content-length: 4\n[\s\S]*\n\nfour$/);
  });

  it("say where for a direct response that is a redirect or a creation", () => {
    const p = proxy().start({
      route_config: oneHost({ match: { prefix: "/" }, direct_response: { status: 201 } }),
    });
    expect(p.connect().get("/new?x").take()).toContain("location: http://h.test/new?x\n");
  });
});

describe("a config that cannot work is refused, and says where", () => {
  const refuse = (config: object): string => {
    try {
      proxy().start(config);
    } catch (error) {
      if (error instanceof ConfigError) return `${error.path}: ${error.message}`;
      throw error;
    }
    return "accepted";
  };
  const route = (r: object) => refuse({ route_config: oneHost(r) });
  const hosts = (...virtual_hosts: object[]) =>
    refuse({ route_config: { name: "t", virtual_hosts } });
  const at = "route_config.virtual_hosts[0].routes[0]";

  it.each([
    [
      "an unknown cluster",
      route(routeTo("nope")),
      `${at}.route.cluster: unknown cluster "nope"; add it to static_resources.clusters, or set validate_clusters: false`,
    ],
    [
      "a mirror to an unknown cluster",
      route({
        match: { prefix: "/" },
        route: { cluster: "up", request_mirror_policies: [{ cluster: "nope" }] },
      }),
      `${at}.route.request_mirror_policies[0].cluster: unknown cluster "nope"; add it to static_resources.clusters, or set validate_clusters: false`,
    ],
    [
      "two actions",
      route({ ...says("x"), ...routeTo("up") }),
      `${at}: give one of route, redirect, direct_response and non_forwarding_action`,
    ],
    [
      "no path",
      route({ ...routeTo("up"), match: {} }),
      `${at}.match: give one of prefix, path, path_separated_prefix, safe_regex, connect_matcher and path_match_policy`,
    ],
    [
      "weights of 0",
      route({
        match: { prefix: "/" },
        route: { weighted_clusters: { clusters: [{ name: "up", weight: 0 }] } },
      }),
      `${at}.route.weighted_clusters: the weights are 0 in sum; give one cluster a weight`,
    ],
    [
      "a command that nobody knows",
      route({ ...routeTo("up"), request_headers_to_add: [add("a", "%NOPE%")] }),
      `${at}.request_headers_to_add[0].header.value: %NOPE% is not a command of access log formats`,
    ],
    [
      "a lone percent sign",
      route({ ...routeTo("up"), request_headers_to_add: [add("a", "50% x")] }),
      `${at}.request_headers_to_add[0].header.value: "% x" is not a command; a percent sign is written %%`,
    ],
    [
      "taking the host away",
      route({ ...routeTo("up"), request_headers_to_remove: ["Host"] }),
      `${at}.request_headers_to_remove[0]: "Host" may not be removed: every request needs it`,
    ],
    [
      "appending a path",
      route({ ...routeTo("up"), request_headers_to_add: [add(":path", "/")] }),
      `${at}.request_headers_to_add[0]: ":path" may not be modified; host_rewrite_literal, prefix_rewrite and regex_rewrite of a route change host and path`,
    ],
    [
      "a bad expression",
      route({ ...routeTo("up"), match: { safe_regex: { regex: "(" } } }),
      expect.stringContaining(`${at}.match.safe_regex.regex: `),
    ],
    [
      "one domain twice",
      hosts({ name: "a", domains: ["a"] }, { name: "b", domains: ["A"] }),
      `route_config.virtual_hosts[1].domains[0]: domain "A" is in route table "t" already; each may stand there once`,
    ],
    [
      "two stars",
      hosts({ name: "a", domains: ["*"] }, { name: "b", domains: ["*"] }),
      `route_config.virtual_hosts[1].domains[0]: only one virtual host of route table "t" may have the domain "*"`,
    ],
    [
      "no routes at all",
      refuse({ route_config: undefined }),
      ": give one of route_config and scoped_routes; rds is not implemented",
    ],
    [
      "HTTP/3",
      refuse({ codec_type: "HTTP3" }),
      `codec_type: "HTTP3" is not implemented; use AUTO, HTTP1 or HTTP2`,
    ],
    [
      "an address that is none",
      refuse({
        internal_address_config: { cidr_ranges: [{ address_prefix: "10.x", prefix_len: 8 }] },
      }),
      `internal_address_config.cidr_ranges[0].address_prefix: "10.x" is not an IP address`,
    ],
  ])("%s", (_what, got, expected) => {
    expect(got).toEqual(expected);
  });

  it("accepts an unknown cluster where clusters are not checked", () => {
    expect(
      refuse({ route_config: { ...oneHost(routeTo("nope")), validate_clusters: false } }),
    ).toBe("accepted");
  });
});
