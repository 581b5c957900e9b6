import { reply } from "@tsproxy/sdk";
import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import router from "../../http/router/filter.ts";
import { oneHost, routeTo, TestProxy } from "./test-proxy.ts";

const proxy = () => new TestProxy({ codec, router });
const any = (type: string, more: object = {}) => ({
  name: "x",
  typed_config: { "@type": `type.googleapis.com/${type}`, ...more },
});
const says = (body: string, match: object = { prefix: "/" }) => ({
  match,
  direct_response: { status: 200, body: { inline_string: body } },
});

describe("an absolute URL with https on a connection without TLS", () => {
  const answer = (config: object) => {
    const p = proxy().start({ route_config: oneHost(says("taken")), ...config });
    return p.connect().send("GET https://a.test/ HTTP/1.1\r\nhost: a.test\r\n\r\n").take();
  };

  it("is refused at the edge", () => {
    expect(answer({ use_remote_address: true })).toMatch(/^HTTP\/1.1 403 [^]*\n\nForbidden$/);
  });

  it("is taken behind a proxy that may have ended TLS", () => {
    expect(answer({ use_remote_address: true, xff_num_trusted_hops: 1 })).toMatch(/\n\ntaken$/);
    expect(answer({ use_remote_address: false })).toMatch(/\n\ntaken$/);
  });

  it("is no concern where the connection has TLS", () => {
    const p = proxy().start({ route_config: oneHost(says("taken")), use_remote_address: true });
    const tls = p.connect((connection) => void Object.assign(connection, { tls: {} }));
    tls.send("GET https://a.test/ HTTP/1.1\r\nhost: a.test\r\n\r\n");
    expect(tls.take()).toMatch(/\n\ntaken$/);
  });
});

it("keeps the scheme of an absolute URL, whatever X-Forwarded-Proto says", () => {
  const p = proxy().start({
    route_config: oneHost({
      match: { prefix: "/" },
      redirect: { host_redirect: "b.test" },
    }),
  });
  const location = (target: string, proto: string) =>
    /location: (.*)/.exec(
      p
        .connect()
        .send(`GET ${target} HTTP/1.1\r\nhost: a.test\r\nx-forwarded-proto: ${proto}\r\n\r\n`)
        .take(),
    )?.[1];
  expect(location("https://a.test/x", "http")).toBe("https://b.test/x");
  expect(location("http://a.test/x", "https")).toBe("http://b.test/x");
  expect(location("/x", "https")).toBe("https://b.test/x");
});

describe("local_reply_config", () => {
  const route_config = oneHost(says("stop", { prefix: "/direct" }), {
    match: { prefix: "/moved" },
    redirect: { path_redirect: "/new" },
  });
  const start = (local_reply_config: object) => proxy().start({ route_config, local_reply_config });
  const header = (name: string) => ({ header_filter: { header: { name, present_match: true } } });

  it("knows how long the request has taken until now", () => {
    const ge = { comparison: { op: "GE", value: { default_value: 900, runtime_key: "" } } };
    const key = { header: { key: "x-slow", value: "%DURATION%" } };
    const p = proxy().start({
      stream_idle_timeout: 900,
      route_config: { ...route_config, response_headers_to_add: [key] },
      local_reply_config: {
        mappers: [{ filter: { duration_filter: ge }, headers_to_add: [key] }],
        body_format: { text_format_source: { inline_string: "after %DURATION%" } },
      },
    });
    const slow = p.connect().send("POST /direct HTTP/1.1\r\nhost: h");
    p.cx.clock.advance(905);
    expect(slow.take()).toMatch(/^HTTP\/1.1 408 [\s\S]*x-slow: 900\n[\s\S]*after 900$/);
    expect(p.connect().get("/direct").take()).toMatch(/x-slow: 0\n[\s\S]*after 0$/);
  });

  it("takes the first mapper that applies, and its format before the one of all", () => {
    const p = start({
      mappers: [
        {
          filter: header("x-map"),
          status_code: 418,
          body: { inline_string: "mapped" },
          headers_to_add: [{ header: { key: "x-was", value: "%RESPONSE_CODE%" } }],
        },
        { filter: header("x-map"), status_code: 500 },
        {
          filter: header("x-json"),
          body_format_override: {
            json_format: { code: "%RESPONSE_CODE%", said: "%LOCAL_REPLY_BODY%" },
          },
        },
      ],
      body_format: {
        text_format_source: { inline_string: "<%LOCAL_REPLY_BODY%>" },
        content_type: "text/html",
      },
    });
    expect(p.connect().get("/direct", "x-map: 1").take()).toBe(
      "HTTP/1.1 418 Unknown\nx-was: 200\ncontent-length: 8\ncontent-type: text/html\nserver: envoy\n\n<mapped>",
    );
    expect(p.connect().get("/direct", "x-json: 1").take()).toContain(
      'content-type: application/json\nserver: envoy\n\n{"code":200,"said":"stop"}\n',
    );
    expect(p.connect().get("/moved").take()).toMatch(/^HTTP\/1.1 301 [\s\S]*\n\n<>$/);
    // No request to read a header of: the head itself was bad.
    expect(p.connect().send("BAD\r\n\r\n").take()).toMatch(/^HTTP\/1.1 400 [\s\S]*<Bad Request>$/);
  });

  it("goes by the content-type of a direct response's own format, whatever the route adds", () => {
    const adds = (format: object) => ({
      match: { prefix: "/" },
      direct_response: { status: 200, body_format: format },
      response_headers_to_add: ["x-r", "content-type"].map((key) => ({
        header: { key, value: "r/r" },
        append_action: "OVERWRITE_IF_EXISTS_OR_ADD",
      })),
    });
    const answers = (format: object) =>
      proxy()
        .start({ route_config: oneHost(adds(format)) })
        .connect()
        .get("/")
        .take();
    const plain = { text_format_source: { inline_string: "hi" } };
    expect(answers(plain)).toBe(
      "HTTP/1.1 200 OK\nx-r: r/r\ncontent-type: r/r\ncontent-length: 2\nserver: envoy\n\nhi",
    );
    expect(answers({ ...plain, content_type: "a/b" })).toBe(
      "HTTP/1.1 200 OK\nx-r: r/r\ncontent-type: a/b\ncontent-length: 2\nserver: envoy\n\nhi",
    );
    expect(answers({ json_format: { a: 1 } })).toContain("content-type: application/json\n");
  });

  it("leaves alone the answers of filters that are no local replies in Envoy", () => {
    const p = proxy();
    p.filter("bare", () => ({ onRequestHeaders: () => reply(200, { unedited: true }) }));
    p.start({
      route_config,
      http_filters: [
        { name: "bare", package: "http/bare", config: {} },
        { name: "http/router", package: "http/router", config: {} },
      ],
      local_reply_config: { body_format: { text_format_source: { inline_string: "all" } } },
    });
    for (const line of ["x-a: 1", "content-type: application/grpc"])
      expect(p.connect().get("/direct", line).take()).toBe(
        "HTTP/1.1 200 OK\nserver: envoy\ncontent-length: 0\n\n",
      );
  });

  it("keeps a mapper's own content-type; JSON has no line end in a gRPC message", () => {
    const content_type = { header: { key: "content-type", value: "text/x" } };
    const p = start({
      mappers: [
        {
          filter: header("x-map"),
          body: { inline_string: "mapped" },
          headers_to_add: [{ ...content_type, append_action: "OVERWRITE_IF_EXISTS_OR_ADD" }],
        },
      ],
      body_format: { json_format: { said: "%LOCAL_REPLY_BODY%" } },
    });
    expect(p.connect().get("/direct", "x-map: 1").take()).toContain("content-type: text/x\n");
    expect(p.connect().get("/direct").take()).toContain("content-type: application/json\n");
    const call = p.connect().get("/none", "content-type: application/grpc").take();
    expect(call).toContain('grpc-message: {"said":""}\n');
  });

  it("gives the headers of a mapper no body", () => {
    const seen = { header: { key: "x-seen", value: "<%LOCAL_REPLY_BODY%> %RESPONSE_CODE%" } };
    const p = start({
      mappers: [
        {
          filter: header("x-map"),
          status_code: 429,
          body: { inline_string: "mapped" },
          headers_to_add: [seen],
        },
      ],
    });
    const answer = p.connect().get("/direct", "x-map: 1").take();
    expect(answer).toMatch(/^HTTP\/1.1 429 [^]*\nx-seen: <> [^4][^]*\n\nmapped$/);
  });

  it("maps a gRPC reply by the status that it would have had", () => {
    const p = start({ mappers: [{ filter: header("x-map"), status_code: 429 }] });
    const answer = p.connect().get("/none", "content-type: application/grpc", "x-map: 1").take();
    expect(answer).toContain("HTTP/1.1 200 OK\ncontent-type: application/grpc\ngrpc-status: 14\n");
  });
});

describe("original_ip_detection_extensions", () => {
  const XFF = "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig";
  const HEADER = "envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig";
  const start = (...original_ip_detection_extensions: object[]) => {
    const remote = [
      { header: { key: "x-remote", value: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%" } },
    ];
    const route_config = { ...oneHost(routeTo("up")), request_headers_to_add: remote };
    const said = { inline_string: "[%REQ(:SCHEME)%] [%REQ(X-FORWARDED-PROTO)%]" };
    const local_reply_config = { body_format: { text_format_source: said } };
    return proxy().start({ route_config, original_ip_detection_extensions, local_reply_config });
  };
  const remoteOf = (p: TestProxy, ...lines: string[]) => {
    p.connect((connection) => {
      connection.remoteAddress = { ip: "10.0.0.1", port: 4000 };
    }).get("/", ...lines);
    return p.up.last.headers.find(([name]) => name === "x-remote")?.[1];
  };

  it("find the client in a header, or turn the request away", () => {
    const p = start(
      any(HEADER, { header_name: "x-real", reject_with_status: { code: "Unauthorized" } }),
    );
    expect(remoteOf(p, "x-real: 1.2.3.4")).toBe("1.2.3.4");
    // As in Envoy, the head of a request that is turned away stays as it was.
    const away = p.connect().get("/", "x-real: junk").take();
    expect(away).toContain("HTTP/1.1 401 ");
    expect(away).toContain("[-] [-]");
    expect(p.cx.stats.value("http.test.downstream_rq_rejected_via_ip_detection")).toBe(1);
  });

  it("skip the proxies that are trusted", () => {
    const cidrs = [{ address_prefix: "10.0.0.0", prefix_len: 8 }];
    const p = start(any(XFF, { xff_trusted_cidrs: { cidrs } }));
    expect(remoteOf(p, "x-forwarded-for: 6.6.6.6, 7.7.7.7, 10.2.2.2")).toBe("7.7.7.7");
    expect(remoteOf(p, "x-forwarded-for: 10.9.9.9")).toBe("10.9.9.9");
    expect(remoteOf(p)).toBe("10.0.0.1");
  });

  it("stand alone", () => {
    expect(() =>
      proxy().start({ use_remote_address: true, original_ip_detection_extensions: [any(XFF)] }),
    ).toThrow(/cannot stand beside use_remote_address/);
  });
});

it("edits heads before anything is decided by them", () => {
  const type = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation";
  const mutations = [
    { remove: "x-gone" },
    { append: { header: { key: "x-new", value: "%REQ(x-old)%" } } },
    { remove_on_match: { key_matcher: { prefix: "x-internal-" } } },
  ];
  const p = proxy().start({
    early_header_mutation_extensions: [any(type, { mutations })],
    route_config: oneHost({
      match: { prefix: "/", headers: [{ name: "x-new", string_match: { exact: "v" } }] },
      route: { cluster: "up" },
    }),
  });
  p.connect().get("/", "x-gone: 1", "x-old: v", "x-internal-a: 1");
  const names = p.up.last.headers.map(([name]) => name);
  expect(names).toContain("x-new");
  expect(names).not.toContain("x-gone");
  expect(names).not.toContain("x-internal-a");
});

describe("early mutations of headers that the proxy itself reads", () => {
  const type = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation";
  const set = (key: string, value: string) => ({
    append: { header: { key, value }, append_action: "OVERWRITE_IF_EXISTS_OR_ADD" },
  });
  const headersAfter = (mutations: object[], ...lines: string[]) => {
    const p = proxy().start({ early_header_mutation_extensions: [any(type, { mutations })] });
    p.connect().get("/", ...lines);
    return (name: string) =>
      p.up.last.headers.filter(([key]) => key === name).map(([, value]) => value);
  };

  it("are as if the client had sent them", () => {
    const p = proxy().start({
      early_header_mutation_extensions: [
        any(type, { mutations: [set("x-forwarded-for", "9.9.9.9")] }),
      ],
      route_config: oneHost({
        ...routeTo("up"),
        request_headers_to_add: [
          { header: { key: "x-client", value: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%" } },
        ],
      }),
    });
    p.connect().get("/");
    expect(p.up.last.header("x-client")).toBe("9.9.9.9");
    const sent = headersAfter([
      set("x-request-id", "mine"),
      set("x-forwarded-proto", "https"),
      set("x-envoy-max-retries", "3"),
      set("x-envoy-internal", "true"),
    ]);
    expect(sent("x-request-id")).toEqual(["mine"]);
    expect(sent("x-forwarded-proto")).toEqual(["https"]);
    expect(sent("x-envoy-max-retries")).toEqual([]);
    expect(sent("x-envoy-internal")).toEqual([]);
  });

  it("that remove them are as if the client had not sent them", () => {
    const gone = headersAfter(
      [{ remove: "x-request-id" }, { remove: "x-forwarded-proto" }],
      "x-request-id: theirs",
      "x-forwarded-proto: https",
    );
    expect(gone("x-request-id")).toEqual([expect.stringMatching(/^[0-9a-f-]{36}$/)]);
    expect(gone("x-forwarded-proto")).toEqual(["http"]);
  });
});

describe("internal_address_config", () => {
  const isInternal = (internal_address_config: object | undefined, client: string) => {
    const p = proxy().start({ ...(internal_address_config && { internal_address_config }) });
    p.connect().get("/", `x-forwarded-for: ${client}`);
    return p.up.last.header("x-envoy-internal") === "true";
  };
  const some = ["10.1.2.3", "172.31.0.1", "192.168.9.9", "127.0.0.1", "fd12::1", "::1"];
  const others = ["9.9.9.9", "172.32.0.1", "127.0.0.2", "fc00::1", "::ffff:10.0.0.1", "0.0.0.0"];

  it("without ranges means the private addresses", () => {
    for (const config of [{}, { unix_sockets: true }, { cidr_ranges: [] }]) {
      expect(some.filter((ip) => isInternal(config, ip))).toEqual(some);
      expect(others.filter((ip) => isInternal(config, ip))).toEqual([]);
    }
  });

  it("with ranges means these alone; without it nobody is internal", () => {
    const config = { cidr_ranges: [{ address_prefix: "9.0.0.0", prefix_len: 8 }] };
    const all = [...some, ...others];
    expect(all.filter((ip) => isInternal(config, ip))).toEqual(["9.9.9.9"]);
    expect(all.filter((ip) => isInternal(undefined, ip))).toEqual([]);
  });
});

describe("limits of heads", () => {
  it("of responses are a cluster's", () => {
    const common_http_protocol_options = { max_response_headers_kb: 1 };
    expect(() => proxy().start({ common_http_protocol_options })).toThrow(
      "cannot be set on http_connection_manager",
    );
  });
});

describe("scoped_routes", () => {
  const scope = (name: string, ...keys: string[]) => ({
    name,
    key: { fragments: keys.map((string_key) => ({ string_key })) },
    route_configuration: { ...oneHost(says(name)), name },
  });
  const by = (more: object) => ({ header_value_extractor: { name: "x-scope", ...more } });
  const start = (fragments: object[], ...scopes: object[]) =>
    proxy().start({
      route_config: undefined,
      scoped_routes: {
        name: "scopes",
        scope_key_builder: { fragments },
        scoped_route_configurations_list: { scoped_route_configurations: scopes },
      },
    });
  const ask = (p: TestProxy, ...lines: string[]) =>
    p
      .connect()
      .get("/", ...lines)
      .take();

  it("choose the table by a key of headers", () => {
    const element = { element_separator: ";", element: { separator: "=", key: "v" } };
    const p = start(
      [by(element), by({ element_separator: ";", index: 0 })],
      scope("one", "a", "v=a"),
      scope("two", "b", "x"),
    );
    expect(ask(p, "x-scope: v=a;x")).toMatch(/one$/);
    expect(ask(p, "x-scope: x;v=b")).toMatch(/two$/);
    expect(ask(p, "x-scope: v=c")).toMatch(/^HTTP\/1.1 404/);
    expect(ask(p)).toMatch(/^HTTP\/1.1 404/);
  });

  it("choose by the host of the request too", () => {
    const host = { name: ":authority", element_separator: ".", index: 1 };
    const p = start([{ header_value_extractor: host }], scope("one", "one"), scope("two", "two"));
    expect(p.connect().send("GET / HTTP/1.1\r\nhost: h.two.test\r\n\r\n").take()).toMatch(/two$/);
  });

  it("have a key each", () => {
    expect(() => start([by({ index: 0 })], scope("one", "a"), scope("two", "a"))).toThrow(
      /has the key of another one/,
    );
  });
});

it("strip_any_host_port takes the port of CONNECT too, as Envoy 1.40 does", () => {
  const table = oneHost({ match: { connect_matcher: {} }, direct_response: { status: 201 } });
  const p = proxy().start({
    strip_any_host_port: true,
    upgrade_configs: [{ upgrade_type: "CONNECT" }],
    route_config: {
      ...table,
      virtual_hosts: [{ ...table.virtual_hosts[0]!, domains: ["h.test"] }],
    },
  });
  const c = p.connect().send("CONNECT h.test:443 HTTP/1.1\r\nhost: h.test:443\r\n\r\n");
  expect(c.take()).toMatch(/^HTTP\/1.1 201/);
});

it("strip_any_host_port takes numbers alone for ports, as Envoy does", () => {
  const p = proxy().start({ strip_any_host_port: true });
  const sent = (host: string) => {
    p.connect().send(`GET / HTTP/1.1\r\nhost: ${host}\r\n\r\n`);
    return p.up.last.header("host");
  };
  for (const port of ["80", "+80", "080", "99999", "4294967295"])
    expect(sent(`a.test:${port}`)).toBe("a.test");
  for (const odd of ["", "abc", "8x", "-1", "80.", "4294967296"])
    expect(sent(`a.test:${odd}`)).toBe(`a.test:${odd}`);
  expect([sent("[::1]:80"), sent("[::1]:ab"), sent("[::1]")]).toEqual([
    "[::1]",
    "[::1]:ab",
    "[::1]",
  ]);
});

describe("upgrades", () => {
  const ask = (p: TestProxy, path: string, upgrade: string) =>
    p.connect().get(path, "connection: upgrade", `upgrade: ${upgrade}`);

  it("walk the chain of their own", () => {
    const p = proxy();
    const seen: string[] = [];
    p.filter("mark", () => ({ onRequestHeaders: () => void seen.push("mark") }));
    const ref = p.config({}).http_filters.at(-1);
    p.start({
      upgrade_configs: [{ upgrade_type: "foo", filters: [ref] }, { upgrade_type: "bar" }],
    });
    ask(p, "/", "foo");
    expect([seen, p.up.exchanges.length]).toEqual([[], 1]);
    ask(p, "/", "BAR");
    expect([seen, p.up.exchanges.length]).toEqual([["mark"], 2]);
  });

  it("that nobody allows cost the connection, but for requests without a route", () => {
    const p = proxy().start({
      route_config: oneHost({ match: { path: "/a" }, route: { cluster: "up" } }),
    });
    const refused = ask(p, "/a", "foo");
    expect(refused.take()).toMatch(/^HTTP\/1.1 403 [\s\S]*connection: close\n/);
    expect(ask(p, "/b", "foo").take()).toMatch(/^HTTP\/1.1 404 /);
  });
});

describe("header_key_format", () => {
  const preserve = any(
    "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig",
  );

  it("writes capitals where words begin", () => {
    const p = proxy().start({
      http_protocol_options: { header_key_format: { proper_case_words: {} } },
    });
    const c = p.connect().get("/");
    p.up.last.respond(200, { "x-a_b-c1d": "1", "content-length": "0" }, "");
    expect(c.take()).toContain("X-A_B-C1d: 1\nContent-Length: 0\n");
  });

  it("keeps the names of requests, whole or in pieces", () => {
    const p = proxy();
    let names: ReadonlyMap<string, string> | undefined;
    p.filter("look", () => ({
      onRequestHeaders: (headers) => void (names = headers.originalNames),
    }));
    p.start({ http_protocol_options: { header_key_format: { stateful_formatter: preserve } } });
    const c = p.connect();
    for (const piece of ["GET / HTTP/1.1\r\nHo", "st: h\r\nX-Ca", "mel: 1\r\nx-low: 2\r\n\r\n"])
      c.send(piece);
    expect(Object.fromEntries(names ?? [])).toEqual({ host: "Host", "x-camel": "X-Camel" });
  });
});

it("closes a connection that has lived long enough", () => {
  const p = proxy().start({
    common_http_protocol_options: { idle_timeout: 3_600_000, max_connection_duration: 1000 },
    drain_timeout: 500,
  });
  const silent = p.connect();
  const idle = p.connect().get("/");
  p.up.last.respond(200, { "content-length": "0" }, "");
  const busy = p.connect().get("/");
  p.cx.clock.advance(1001);
  expect(silent.connection.closed).toBe("flush");
  expect(p.cx.stats.value("http.test.downstream_cx_max_duration_reached")).toBe(3);
  p.up.last.respond(200, { "content-length": "0" }, "");
  expect(busy.take()).toContain("connection: close");
  expect(idle.connection.closed).toBeUndefined();
  p.cx.clock.advance(501);
  expect(idle.connection.closed).toBe("delayed");
});

it("lets connections live and drain longer by random parts of the percentages", () => {
  const all = { value: 100 };
  const p = proxy().start({
    common_http_protocol_options: {
      idle_timeout: 3_600_000,
      max_connection_duration: 1000,
      max_connection_duration_jitter: all,
    },
    drain_timeout: 1000,
    drain_timeout_jitter: all,
  });
  const clients = Array.from({ length: 64 }, () => p.connect().get("/"));
  for (const exchange of p.up.exchanges) exchange.respond(200, { "content-length": "0" }, "");
  const reached = () => p.cx.stats.value("http.test.downstream_cx_max_duration_reached");
  const left = () => clients.filter(({ connection }) => connection.closed !== undefined).length;
  p.cx.clock.advance(999);
  expect(reached()).toBe(0);
  p.cx.clock.advance(500);
  // All of them fall into one half once in 2^63 runs.
  expect(reached()).toBeGreaterThan(0);
  expect(reached()).toBeLessThan(64);
  p.cx.clock.advance(501);
  expect(reached()).toBe(64);
  p.cx.clock.advance(500);
  expect(left()).toBeLessThan(64);
  p.cx.clock.advance(1500);
  expect(left()).toBe(64);
});

it("lets a connection that has lived long enough wait for its next request", () => {
  const p = proxy().start({
    common_http_protocol_options: { idle_timeout: 3_600_000, max_connection_duration: 1000 },
    http1_safe_max_connection_duration: true,
    drain_timeout: 500,
  });
  const silent = p.connect();
  const idle = p.connect().get("/");
  p.up.last.respond(200, { "content-length": "0" }, "");
  idle.take();
  const busy = p.connect().get("/");
  p.cx.clock.advance(1001);
  p.up.last.respond(200, { "content-length": "0" }, "");
  expect(busy.take()).not.toContain("connection: close");
  expect(silent.connection.closed).toBe("flush");
  p.cx.clock.advance(60_000);
  for (const old of [busy, idle]) {
    expect(old.connection.closed).toBeUndefined();
    old.get("/");
    p.up.last.respond(200, { "content-length": "0" }, "");
    expect(old.take()).toContain("connection: close");
    expect(old.connection.closed).toBe("flush");
  }
});

describe("max_stream_duration of a route", () => {
  const route = (max_stream_duration: object) => oneHost(routeTo("up", { max_stream_duration }));

  it("goes before the connection manager's", () => {
    const p = proxy().start({
      route_config: route({ max_stream_duration: 300 }),
      common_http_protocol_options: { idle_timeout: 0, max_stream_duration: 5000 },
    });
    const c = p.connect().get("/");
    p.cx.clock.advance(301);
    expect(c.take()).toMatch(/^HTTP\/1.1 504 [\s\S]*downstream duration timeout$/);
  });

  it("lets a gRPC client ask for less", () => {
    const p = proxy().start({ route_config: route({ grpc_timeout_header_max: 1000 }) });
    const c = p.connect().get("/", "content-type: application/grpc", "grpc-timeout: 200m");
    p.cx.clock.advance(201);
    expect(c.take()).toContain("grpc-status: 4");
  });

  it("reads grpc-timeout as Envoy does, and nothing else of that name", () => {
    const p = proxy().start({ route_config: route({ grpc_timeout_header_max: 1000 }) });
    const told = (text: string) => {
      p.connect().get("/", "content-type: application/grpc", `grpc-timeout: ${text}`);
      return p.up.last.header("grpc-timeout");
    };
    expect(["500n", "+1S", "1 m", "99999999H"].map(told)).toEqual(["1m", "1000m", "1m", "1000m"]);
    const left = ["123456789S", "1.5S", "-1S", "1", "S", "1s"];
    expect(left.map(told)).toEqual(left);
  });

  it("tells a gRPC upstream how long it may take, whatever the client has said", () => {
    const told = (duration: object, managerMs: number, timeout = "grpc-timeout: bad") => {
      const common_http_protocol_options = { max_stream_duration: managerMs };
      const p = proxy().start({ route_config: route(duration), common_http_protocol_options });
      p.connect().get("/", "content-type: application/grpc", timeout);
      return p.up.last.header("grpc-timeout");
    };
    expect(told({ max_stream_duration: 700 }, 300)).toBe("700m");
    expect(told({ max_stream_duration: 700 }, 0, "grpc-timeout: 1S")).toBe("700m");
    expect(told({ grpc_timeout_header_max: 5000 }, 300)).toBe("300m");
    expect(told({ grpc_timeout_header_max: 5000 }, 0)).toBe("bad");
    expect(told({ max_stream_duration: 0 }, 300)).toBeUndefined();
    expect(told({ max_stream_duration: 0 }, 0)).toBe("bad");
  });

  it("takes a deadline of nothing for one that has passed: it ends with the turn, before any answer", async () => {
    const p = proxy().start({ route_config: route({ grpc_timeout_header_max: 1000 }) });
    const c = p.connect().get("/", "content-type: application/grpc", "grpc-timeout: 0S");
    expect(c.take()).toBe("");
    await Promise.resolve();
    expect(c.take()).toContain("grpc-status: 4");
    expect(p.up.last.wasReset).toBe(true);
  });

  it("forgets a deadline that has passed with the stream", async () => {
    const p = proxy().start({ route_config: route({ grpc_timeout_header_max: 1000 }) });
    const c = p.connect().get("/", "content-type: application/grpc", "grpc-timeout: 0S");
    p.up.last.respond(200, {}, "x");
    c.take();
    c.get("/");
    await Promise.resolve();
    expect(c.take()).toBe("");
    expect(p.up.last.wasReset).toBe(false);
  });
});

it("keeps the connection of a refused request where the config says so", () => {
  const p = proxy().start({ stream_error_on_invalid_http_message: true });
  const c = p.connect().get("/a#b");
  expect(c.take()).not.toContain("connection: close");
  c.get("/");
  expect(p.up.exchanges.length).toBe(1);
});

it("asks the routes of one virtual host, however many there are", () => {
  const p = proxy();
  const asked: string[] = [];
  const { regex } = p.cx;
  Object.assign(p.cx, {
    regex: (pattern: string) => {
      const made = regex.call(p.cx, pattern);
      const matches = (text: string) => {
        asked.push(pattern);
        return made.matches(text);
      };
      return { ...made, matches };
    },
  });
  const virtual_hosts = Array.from({ length: 2000 }, (_, v) => ({
    name: `v${v}`,
    domains: [v % 3 === 0 ? `h${v}.test` : v % 3 === 1 ? `*.h${v}.test` : `h${v}.*`],
    routes: [says(`v${v}`, { safe_regex: { regex: `/${v}` } })],
  }));
  p.start({ route_config: { name: "many", virtual_hosts } });
  const ask = (host: string, path: string) =>
    p.connect().send(`GET ${path} HTTP/1.1\r\nhost: ${host}\r\n\r\n`).take();
  expect(ask("h1500.test", "/1500")).toMatch(/v1500$/);
  expect(ask("a.h1501.test", "/1501")).toMatch(/v1501$/);
  expect(ask("h1502.example", "/1502")).toMatch(/v1502$/);
  expect(asked).toEqual(["/1500", "/1501", "/1502"]);
});

describe("custom_settings_parameters", () => {
  const start = (options: object, ...parameters: (readonly [number, number])[]) => {
    const custom_settings_parameters = parameters.map(([identifier, value]) => ({
      identifier,
      value,
    }));
    const http2_protocol_options = { ...options, custom_settings_parameters };
    proxy().start({ route_config: oneHost(says("taken")), http2_protocol_options });
  };

  it("may not contradict each other or the options with names, nor ask for push", () => {
    const named = {
      max_concurrent_streams: 4,
      hpack_table_size: 0,
      initial_stream_window_size: 65535,
    };
    for (const identifier of [1, 3, 4])
      expect(() => start(named, [identifier, 1])).toThrow(/by its name too; keep one/);
    expect(() => start({}, [300, 1], [300, 2])).toThrow("setting 300 is already 1");
    expect(() => start({}, [2, 1])).toThrow("server push is not supported");
    expect(() => start({}, [8, 1])).toThrow("write allow_connect");
  });

  it("may say the same twice, and what no option with a name says", () => {
    expect(() => start({}, [300, 1], [300, 1], [2, 0], [1, 0], [3, 4], [4, 65535])).not.toThrow();
  });
});

describe("forward_proto_config", () => {
  const config = {
    use_remote_address: true,
    forward_proto_config: {
      https_destination_ports: [443, 8443],
      http_destination_ports: [80, 443],
    },
  };
  /** The scheme that the upstream is told. `to`: the port that a listener filter has found; undefined: none has. */
  function told(to: number | undefined, more: object = {}, ...lines: string[]) {
    const p = proxy().start({ ...config, ...more });
    const c = p.connect((connection) => {
      connection.localAddress = { ip: "192.0.2.1", port: to ?? 443 };
      Object.assign(connection, { localAddressRestored: to !== undefined });
    });
    c.get("/", ...lines);
    return p.up.last.header("x-forwarded-proto");
  }

  it("tells the scheme by the port that the client connected to, where a listener filter found it", () => {
    expect([443, 8443, 80, 81, undefined].map((port) => told(port))).toEqual([
      ...["https", "https", "http", "http", "http"],
    ]);
    expect(told(80, {}, "x-forwarded-proto: https")).toBe("http");
  });

  it("believes X-Forwarded-Proto where it is believed without it", () => {
    const trusting = { use_remote_address: false };
    expect(told(80, trusting, "x-forwarded-proto: https")).toBe("https");
    expect(told(443, trusting)).toBe("https");
  });
});
