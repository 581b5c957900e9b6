import { HeaderLine, HeaderMap, type Route, TYPED_METADATA, WISH } from "@tsproxy/sdk";
import {
  TestCluster,
  TestContext,
  TestStream,
  type TestStreamOptions,
  withDefaults,
} from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import { Config, RouteConfig } from "./config.ts";
import lua from "./filter.ts";

const source = (text: string, modules: object = {}) => ({ text, modules });

function harness(
  config: object,
  options: TestStreamOptions & { readonly routeConfig?: object } = {},
) {
  const cx = new TestContext();
  const factory = cx.setup(lua, withDefaults(Config, config));
  const { routeConfig, ...rest } = options;
  const routeConfigs = routeConfig === undefined ? [] : [withDefaults(RouteConfig, routeConfig)];
  return { cx, stream: () => new TestStream(cx, factory, { ...rest, routeConfigs }) };
}
const script = (text: string, options?: Parameters<typeof harness>[1]) =>
  harness({ default_source_code: source(text) }, options);

/** What `expression` is on a request: `show(…)` puts its arguments into a header. */
function shown(expression: string, options?: Parameters<typeof harness>[1]): string | undefined {
  const text = `
    function envoy_on_request(h)
      local function show(...)
        local t = {}
        for i = 1, select("#", ...) do t[i] = tostring((select(i, ...))) end
        h:headers():add("x-shown", table.concat(t, " "))
      end
      show(${expression})
    end`;
  return script(text, options)
    .stream()
    .requestHeaders("GET", "/path?q=1", { "x-a": "1" })
    .upstream.header("x-shown");
}

const logged = (cx: TestContext) => cx.logged.map(({ message }) => message);

describe("headers", () => {
  it("that are not there are nil, whatever other filters have added", () => {
    const { stream } = script(`
      function envoy_on_response(h)
        local headers = h:requestHeaders()
        local none = headers:get("x-none")
        h:headers():add("x-shown", tostring(none) .. " " .. headers:get("x-line"))
      end`);
    const s = stream().requestHeaders("GET", "/");
    s.request.appendLine(new HeaderLine("x-line", "added"));
    s.responseHeaders(200);
    expect(s.downstream.header("x-shown")).toBe("nil added");
  });

  it("are read, iterated in Envoy's order, added, replaced and removed", () => {
    const { stream, cx } = script(`
      function envoy_on_request(h)
        local headers = h:headers()
        headers:add("X-New", "a") headers:add("x-new", "b")
        headers:replace("x-old", "new") headers:remove("x-gone")
        headers:add("x-count", headers:getNumValues("x-new") .. headers:get("x-new") .. headers:getAtIndex("x-new", 1))
        headers:replace(":path", "/other") headers:replace(":method", "PUT") headers:replace("host", "elsewhere")
        local names = {}
        for k, v in pairs(headers) do names[#names + 1] = k end
        headers:add("x-names", table.concat(names, " "))
      end
      function envoy_on_response(h)
        h:headers():replace(":status", "202")
        h:headers():add("x-from", h:requestHeaders():get(":path"))
      end`);
    const s = stream().requestHeaders("GET", "/", { "x-old": "old", "x-gone": "1" });
    expect(s.upstream.headers).toEqual([
      ["host", "elsewhere"],
      ["x-new", "a"],
      ["x-new", "b"],
      ["x-old", "new"],
      ["x-count", "2a,bb"],
      ["x-names", ":authority :path :method :scheme x-new x-new x-old x-count"],
    ]);
    expect([s.request.method, s.request.path]).toEqual(["PUT", "/other"]);
    s.responseHeaders(200);
    expect([s.response?.status, s.downstream.header("x-from")]).toEqual([202, "/other"]);
    expect(s.routeCleared).toBe(1);
    expect([cx.stats.value("lua.executions"), cx.stats.value("lua.errors")]).toEqual([2, 0]);
  });

  it("do not change under an iteration", () => {
    const { stream, cx } = script(
      `function envoy_on_request(h) for k in pairs(h:headers()) do h:headers():add("a", "b") end end`,
    );
    stream().requestHeaders("GET", "/");
    expect(logged(cx).at(-1)).toMatch(/header map cannot be modified while iterating/);
  });

  it("that are not there are no value, not nil", () => {
    expect(shown(`select("#", h:headers():get("nope"))`)).toBe("0");
    expect(shown(`pcall(function() return tostring(h:headers():get("nope")) end)`)).toMatch(
      /value expected/,
    );
  });

  it("cannot be broken", () => {
    const fails = (code: string) => shown(`select(2, pcall(function() ${code} end))`);
    expect(fails(`h:headers():add("x", {})`)).toMatch(
      /bad argument #2 to 'add' \(string expected, got table\)/,
    );
    expect(fails(`h:headers():add("a b", "c")`)).toMatch(/invalid header name/);
    expect(fails(`h:headers():add("a", "b\\nc")`)).toMatch(/invalid header value/);
    expect(fails(`h:headers():replace(":path", "no slash")`)).toMatch(/invalid :path/);
    expect(fails(`h:headers():replace(":method", "HEAD")`)).toMatch(/cannot change/);
    // Framing is the codec's.
    expect(shown(`h:headers():add("transfer-encoding", "x") or "fine"`)).toBe("fine");
  });
});

describe("bodies", () => {
  it("come as a whole, before the head goes on", async () => {
    const { stream } = script(`
      function envoy_on_request(h)
        local body = h:body()
        h:headers():add("x-size", body:length())
        h:headers():add("x-part", body:getBytes(1, 2))
        body:setBytes("<" .. body:getBytes(0, body:length()) .. ">")
      end
      function envoy_on_response(h) h:headers():add("x-body", tostring(h:body() == nil)) end`);
    const s = stream().requestHeaders("POST", "/", {}, false);
    expect(s.upstream.head).toBeUndefined();
    s.requestBody("ab", false).requestBody("cd\xff");
    await s.settled();
    expect([s.upstream.header("x-size"), s.upstream.header("x-part")]).toEqual(["5", "bc"]);
    expect(s.upstream.body).toBe("<abcd\xff>");
    expect(s.upstream.header("content-length")).toBe("7");
    s.responseHeaders(200);
    expect(s.downstream.header("x-body")).toBe("true");
  });

  it("are given to messages that came without one", async () => {
    const { stream } = script(`
      function envoy_on_request(h)
        h:body(true):setBytes("asked")
        h:headers():add("x-size", h:headers():get("content-length") .. h:body(true):length())
      end
      function envoy_on_response(h)
        h:headers():add("x-fails", select(2, pcall(function() h:body(true):setBytes("answered") end)) or "")
      end`);
    const s = stream().requestHeaders("GET", "/");
    expect([s.upstream.header("content-length"), s.upstream.body, s.upstream.ended]).toEqual([
      "5",
      "asked",
      true,
    ]);
    expect(s.upstream.header("x-size")).toBe("55");
    s.responseHeaders(200, {}, true);
    expect([s.downstream.header("content-length"), s.downstream.body]).toEqual(["8", "answered"]);
    const empty = stream().requestHeaders("GET", "/").responseHeaders(204, {}, true);
    expect(empty.downstream.header("x-fails")).toMatch(/a message that cannot have a body/);
    expect([empty.downstream.body, empty.downstream.ended]).toEqual(["", true]);
  });

  it("come chunk by chunk, with an empty one or none at the end", async () => {
    const { stream } = script(`
      sizes = {}
      function envoy_on_request(h)
        for chunk in h:bodyChunks() do
          sizes[#sizes + 1] = chunk:length()
          chunk:setBytes(chunk:getBytes(0, chunk:length()):upper())
        end
        local ok, message = pcall(function() h:headers():add("x", "y") end)
        sizes[#sizes + 1] = message:match(": (.*)$")
      end
      function envoy_on_response(h) h:headers():add("x-sizes", table.concat(sizes, ",")) end`);
    const s = stream().requestHeaders("POST", "/", { "content-length": "5" }, false);
    s.requestBody("ab", false);
    expect(s.upstream.header("content-length")).toBe("5");
    s.requestBody("cde");
    await s.settled();
    expect(s.upstream.chunks).toEqual(["AB", "CDE"]);
    s.responseHeaders(200);
    expect(s.downstream.header("x-sizes")).toBe("2,3,0,header map can no longer be modified");
  });

  it("may have trailers", async () => {
    const { stream } = script(`
      function envoy_on_request(h)
        local trailers = h:trailers()
        if trailers then trailers:add("x-seen", trailers:get("x-t")) end
      end`);
    const s = stream().requestHeaders("POST", "/", {}, false).requestBody("a", false);
    const trailers = new HeaderMap();
    trailers.append("x-t", "1");
    s.requestTrailers(trailers);
    expect([...s.upstream.trailers!]).toEqual([
      ["x-t", "1"],
      ["x-seen", "1"],
    ]);
    expect(stream().requestHeaders("GET", "/").error).toBeUndefined();
  });

  it("are waited for behind the whole body, and the head with them", async () => {
    const { stream } = script(`
      function envoy_on_request(h)
        local size = h:body():length()
        local last = h:trailers():get("x-t")
        h:headers():add("x-both", size .. last)
      end`);
    const s = stream().requestHeaders("POST", "/", {}, false).requestBody("abc", false);
    expect(s.upstream.head).toBeUndefined();
    const trailers = new HeaderMap();
    trailers.append("x-t", "1");
    s.requestTrailers(trailers);
    expect([s.upstream.header("x-both"), s.upstream.body]).toEqual(["31", "abc"]);
    const without = stream().requestHeaders("POST", "/", {}, false).requestBody("abc");
    expect([without.upstream.ended, without.upstream.body]).toEqual([true, "abc"]);
  });

  it("are asked for in time", () => {
    const fails = (code: string) => shown(`select(2, pcall(function() ${code} end))`);
    expect(fails(`h:body(true):getBytes(0, 1)`)).toMatch(/index\/length must be >= 0/);
    expect(shown("select('#', h:body()), h:body(true):length(), select('#', h:trailers())")).toBe(
      "0 0 0",
    );
  });
});

describe("respond", () => {
  it("answers the request and ends the script; the answer passes envoy_on_response", () => {
    const { stream, cx } = script(`
      function envoy_on_request(h)
        pcall(h.respond, h, { [":status"] = "403", ["x-many"] = { "a", "b" } }, "no")
        after = true
      end
      function envoy_on_response(h) h:headers():add("x-after", tostring(after)) end`);
    const s = stream().requestHeaders("GET", "/");
    expect(s.reply).toMatchObject({
      status: 403,
      body: "no",
      details: "lua_response",
      headers: [
        ["x-many", "a"],
        ["x-many", "b"],
      ],
    });
    expect(s.response?.get("x-after")).toBe("nil");
    expect(cx.stats.value("lua.errors")).toBe(0);
  });

  it("answers behind the trailers too", () => {
    const { stream } = script(`
      function envoy_on_request(h)
        h:body()
        h:trailers()
        h:respond({ [":status"] = "403" }, "no")
      end`);
    const s = stream().requestHeaders("POST", "/", {}, false).requestBody("abc", false);
    const trailers = new HeaderMap();
    trailers.append("x-end", "1");
    s.requestTrailers(trailers);
    expect(s.reply).toMatchObject({ status: 403, body: "no" });
  });

  it("sends bytes that are no text as they are", () => {
    const { stream } = script(
      `function envoy_on_request(h) h:respond({ [":status"] = "200" }, "\\31\\139\\0\\255") end`,
    );
    const s = stream().requestHeaders("GET", "/");
    expect(s.reply?.body).toEqual(Uint8Array.of(31, 139, 0, 255));
  });

  it("wants a status, a request, and a head that is still here", () => {
    const fails = (code: string) => shown(`select(2, pcall(function() ${code} end))`);
    expect(fails(`h:respond({}, "")`)).toMatch(/:status must be between 200-599/);
    const { stream, cx } = script(
      `function envoy_on_response(h) h:respond({ [":status"] = "403" }) end`,
    );
    expect(stream().requestHeaders("GET", "/").responseHeaders(200).response?.status).toBe(200);
    expect(logged(cx).at(-1)).toMatch(/respond not currently supported in the response path/);
  });
});

describe("an error", () => {
  it("is logged and counted; the stream goes on as the script has left it", () => {
    const { stream, cx } = script(`
      function envoy_on_request(h)
        h:headers():add("x-before", "1")
        local x = nil
        x.y = 1
      end
      function envoy_on_response(h) coroutine.yield() end`);
    const s = stream().requestHeaders("GET", "/").responseHeaders(200);
    expect(s.upstream.header("x-before")).toBe("1");
    expect(s.response?.status).toBe(200);
    expect(logged(cx).filter((line) => line.startsWith("script log"))).toEqual([
      `script log: [string "..."]:5: attempt to index local 'x' (a nil value)`,
      "script log: script performed an unexpected yield",
    ]);
    expect(cx.stats.value("lua.errors")).toBe(2);
  });

  it("of loading refuses the config", () => {
    const refused = (text: string) => expect(() => script(text), text);
    refused("this is not lua").toThrow(
      `script load error: [string "this is not lua"]:1: '=' expected near 'is'`,
    );
    refused(`require("none")`).toThrow(/module 'none' not found/);
    refused("while true do end").toThrow(/script ran for more than 100 ms/);
    expect(() => harness({ inline_code: source(""), default_source_code: source("") })).toThrow(
      /give one of/,
    );
  });
});

it("makes objects of filter state as Envoy's factories do", () => {
  const kept = (factory: string, text: string) =>
    shown(
      `(function() local f = h:streamInfo():filterState() f:set("k", "${factory}", "${text}") return f:get("k") end)()`,
    );
  expect(kept("envoy.bool", "YES")).toBe("true");
  expect(kept("envoy.network.ip", "192.0.2.1")).toBe("192.0.2.1:0");
  expect(kept("envoy.network.transport_socket.original_dst_address", "[::1]:80")).toBe("[::1]:80");
  expect(kept("envoy.upstream.dynamic_port", "0443")).toBe("443");
  const protocols = '"envoy.network.application_protocols"';
  const state = "h:streamInfo():filterState()";
  const set = `${state}:set(${protocols}, ${protocols}, "h2")`;
  expect(shown(`(function() ${set} return tostring((${state}:get(${protocols}))) end)()`)).toBe(
    "nil",
  );
});

it("may give a response without a body another status", () => {
  const { stream } = script(`
      function envoy_on_response(h)
        local ok, message = pcall(function() h:headers():replace(":status", "200") end)
        h:headers():add("x-ok", tostring(ok))
      end`);
  const empty = stream().requestHeaders("GET", "/").responseHeaders(204, {}, true);
  expect([empty.response?.status, empty.downstream.header("x-ok")]).toEqual([200, "true"]);
  const full = stream().requestHeaders("GET", "/").responseHeaders(304, {}, false);
  expect([full.response?.status, full.downstream.header("x-ok")]).toEqual([304, "false"]);
});

describe("httpCall", () => {
  const CALL = `
    function envoy_on_request(h)
      local headers, body = h:httpCall("auth", {
        [":method"] = "POST", [":path"] = "/check", [":authority"] = "auth.test", ["x-k"] = { "1", "2" }
      }, "payload", 1000)
      if headers[":status"] ~= "200" then h:respond({ [":status"] = "403" }, body) end
      h:headers():add("x-user", body)
    end`;

  function calling(source = CALL) {
    const made = script(source);
    const auth = new TestCluster("auth", made.cx.stats);
    made.cx.clusterMap.set("auth", auth);
    return { ...made, auth };
  }

  it("suspends the stream until the answer is there", async () => {
    const { stream, auth } = calling();
    const s = await stream().requestHeaders("GET", "/").settled();
    expect([s.waiting, s.upstream.head]).toEqual([true, undefined]);
    expect([auth.last.path, auth.last.header("host"), auth.last.header("x-k")]).toEqual([
      "/check",
      "auth.test",
      "1",
    ]);
    expect(
      ["x-envoy-internal", "x-forwarded-for", "x-envoy-expected-rq-timeout-ms"].map((name) =>
        auth.last.header(name),
      ),
    ).toEqual(["true", "127.0.0.1", "1000"]);
    auth.last.respond(200, {}, "ada");
    await s.settled();
    expect(s.upstream.header("x-user")).toBe("ada");
  });

  it("in the last chunk of a body joins the end, which comes meanwhile, to that chunk", async () => {
    const { stream, auth } = calling(`
      function envoy_on_request(h)
        for chunk in h:bodyChunks() do
          h:httpCall("auth", { [":method"] = "GET", [":path"] = "/" .. chunk:length(), [":authority"] = "a" }, nil, 1000)
        end
      end`);
    const s = stream().requestHeaders("POST", "/", {}, false).requestBody("abc");
    expect(auth.last.path).toBe("/3");
    auth.last.respond(200, {}, "");
    await s.settled();
    expect([auth.exchanges.length, s.upstream.ended]).toEqual([1, true]);
  });

  it("that is asynchronous leaves before the request does, and nobody waits for its answer", async () => {
    const call = (cluster: string) =>
      `function envoy_on_request(h)
        h:httpCall("${cluster}", { [":method"] = "GET", [":path"] = "/", [":authority"] = "a" }, nil, 1000, true)
      end`;
    const { stream, auth } = calling(call("auth"));
    const s = stream().requestHeaders("GET", "/");
    expect([auth.last.path, s.upstream.head]).toEqual(["/", undefined]);
    await s.settled();
    expect(s.upstream.head).toBeDefined();
    const { stream: lost, cx } = script(call("none"));
    await lost().requestHeaders("GET", "/").settled();
    expect(logged(cx).at(-1)).toMatch(/:\d+: http call cluster invalid. Must be configured$/);
  });

  it("that fails is answered as Envoy's router would", async () => {
    const { stream, auth } = calling();
    auth.answer = { reason: "connection_failed", detail: "" } as never;
    const s = await stream().requestHeaders("GET", "/").settled();
    expect(s.reply).toMatchObject({
      status: 403,
      body: "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
    });
  });

  it("of a cluster that there is not is an error of the script", async () => {
    const { stream, cx } = script(CALL);
    const s = await stream().requestHeaders("GET", "/").settled();
    expect(logged(cx).at(-1)).toMatch(
      /^script log: \[string ".*"\]:\d+: http call cluster invalid. Must be configured$/,
    );
    expect(s.upstream.head).toBeDefined();
  });

  it("checks what it is given", () => {
    const fails = (args: string) => shown(`select(2, pcall(function() h:httpCall(${args}) end))`);
    expect(fails(`"up", {}, "", 1`)).toMatch(
      /:8: http call headers must include ':path', ':method', and ':authority'$/,
    );
    const head = `{ [":method"] = "GET", [":path"] = "/", [":authority"] = "a" }`;
    expect(fails(`"up", ${head}, "", -1`)).toMatch(/:8: http call timeout must be >= 0$/);
    expect(fails(`"up", ${head}, "", { bad = 1 }`)).toMatch(
      /:8: "bad" is not valid key for httpCall\(\) options$/,
    );
    expect(fails(`"up", 5, "", 1`)).toMatch(/table expected, got number/);
  });
});

it("reads typed metadata that other filters have set", () => {
  const { stream } = script(`
    function envoy_on_request(h)
      local info = h:streamInfo()
      local typed = info:dynamicTypedMetadata("a")
      h:headers():add("x-typed", typed.value .. type(info:dynamicTypedMetadata("none")))
    end`);
  const s = stream();
  s.filterState.set(TYPED_METADATA, { a: { value: "hello" } });
  s.requestHeaders("GET", "/");
  expect(s.upstream.header("x-typed")).toBe("hellonil");
});

describe("the stream", () => {
  const route = {
    name: "home",
    virtualHostName: "site",
    routeMetadata: { "envoy.filters.http.lua": { text: "é", list: [1, { a: true }] } },
    virtualHostMetadata: { "envoy.filters.http.lua": { n: 5 } },
  } as unknown as Route;

  it("has metadata of its route and virtual host, and the route's filter_context", () => {
    const options = { route, routeConfig: { filter_context: { k: "v" } } };
    expect(shown(`h:metadata():get("text")`, options)).toBe("\xc3\xa9");
    expect(
      shown(`h:route():metadata():get("list")[2].a, h:virtualHost():metadata():get("n")`, options),
    ).toBe("true 5");
    expect(
      shown(`h:filterContext():get("k"), select("#", h:metadata():get("none"))`, options),
    ).toBe("v 0");
    expect(shown(`h:streamInfo():routeName(), h:streamInfo():protocol()`, options)).toBe(
      "home HTTP/1.1",
    );
  });

  it("has dynamic metadata and filter state, for others too", () => {
    const { stream } = script(`
      function envoy_on_request(h)
        local info = h:streamInfo()
        info:dynamicMetadata():set("ns", "key", { "a", { b = 1.5 } })
        info:dynamicMetadata():set("ns", "more", true)
        info:filterState():set("state", "envoy.string", "value")
        for name, values in pairs(info:dynamicMetadata()) do h:headers():add("x-" .. name, tostring(values.more)) end
      end`);
    const s = stream().requestHeaders("GET", "/");
    expect(s.metadata.get("ns")).toEqual({ key: ["a", { b: 1.5 }], more: true });
    expect(s.filterState.get("state")).toBe("value");
    expect(s.upstream.header("x-ns")).toBe("true");
  });

  it("hands out one object a kind, which is not edited while it is gone through", () => {
    for (const thing of [
      "metadata()",
      "route():metadata()",
      "filterContext()",
      "streamInfo():dynamicMetadata()",
      "streamInfo():filterState()",
      "connectionStreamInfo():dynamicMetadata()",
    ])
      expect(shown(`h:${thing} == h:${thing}`, { route })).toBe("true");
    const fails = (code: string) => shown(`select(2, pcall(function() ${code} end))`, { route });
    const dynamic = "h:streamInfo():dynamicMetadata()";
    const each = (code: string) =>
      fails(`${dynamic}:set("a", "b", 1) for k in pairs(${dynamic}) do ${code} end`);
    expect(each(`${dynamic}:set("c", "d", 1)`)).toMatch(/cannot be modified while iterating$/);
    expect(each(`for j in pairs(${dynamic}) do end`)).toMatch(/cannot create a second iterator/);
    expect(
      fails("for k in pairs(h:metadata()) do for j in pairs(h:metadata()) do end end"),
    ).toMatch(/cannot create a second iterator/);
  });

  it("refuses what Envoy refuses", () => {
    const fails = (code: string) => shown(`select(2, pcall(function() ${code} end))`);
    const state = "h:streamInfo():filterState()";
    expect(fails(`${state}:set("k", "none", "v")`)).toMatch(
      /'none' does not have an object factory$/,
    );
    expect(fails(`${state}:set("k", "envoy.network.ip", "there")`)).toMatch(
      /failed to create an object 'k' from value 'there'$/,
    );
    expect(fails(`h:body("yes")`)).toMatch(/boolean expected, got string/);
    expect(fails(`h:setUpstreamOverrideHost("192.0.2.1:80", "yes")`)).toMatch(/boolean expected/);
    expect(fails(`h:respond({ [":status"] = "200", ["a b"] = "c" })`)).toMatch(
      /invalid header name 'a b'$/,
    );
    expect(fails(`h:respond({ [":status"] = "200", "c" })`)).toBe("invalid key to 'next'");
    expect(fails(`h:stats():gauge("g"):set(-1)`)).toMatch(/gauge set value must be non-negative$/);
    expect(fails(`h:stats():histogram("h", "yards")`)).toMatch(
      /invalid histogram unit 'yards', expected 'ms', .*, or 'unspecified'$/,
    );
    expect(fails(`assert(false, "no")`)).toMatch(/:8: no$/);
    expect(fails("error(5)")).toMatch(/:8: 5$/);
  });

  it("has what a PROXY header has said", () => {
    const proxied = "envoy.filters.listener.proxy_protocol";
    const downstreamConnection = { metadata: new Map([[proxied, { service: "a" }]]) } as never;
    const typed = `h:connectionStreamInfo():dynamicTypedMetadata`;
    expect(
      shown(`${typed}("${proxied}").typed_metadata.service, ${typed}("none")`, {
        downstreamConnection,
      }),
    ).toBe("a nil");
  });

  it("has addresses and TLS", () => {
    const info = { downstreamRemoteAddress: { ip: "192.0.2.9", port: 1 } };
    expect(shown("h:streamInfo():downstreamRemoteAddress(), h:connection():ssl()", { info })).toBe(
      "192.0.2.9:1 nil",
    );
    const certificate = {
      subject: "CN=client,O=Org",
      issuer: "CN=ca",
      serial: "0a",
      sha256: "ff",
      notBefore: 1000,
      notAfter: 2000,
      names: [{ type: "URI", value: "spiffe://a" }],
      pem: "PEM\n",
    };
    const tls = {
      version: "TLSv1.3",
      cipher: "TLS_AES_256_GCM_SHA384",
      sessionId: "",
      peer: certificate,
      peerValidated: true,
    };
    const downstreamConnection = { serverName: "sni", tls } as never;
    const ssl = (method: string) =>
      shown(`h:streamInfo():downstreamSslConnection():${method}`, { downstreamConnection });
    expect(ssl("subjectPeerCertificate()")).toBe("CN=client,O=Org");
    expect(ssl("uriSanPeerCertificate()[1]")).toBe("spiffe://a");
    expect(ssl("parsedSubjectPeerCertificate():organizationName()[1]")).toBe("Org");
    expect(ssl("ciphersuiteId()")).toBe("0x1302");
    expect(ssl("expirationPeerCertificate()")).toBe("2");
    expect(shown("h:streamInfo():requestedServerName()", { downstreamConnection })).toBe("sni");
  });
});

describe("wishes", () => {
  it("are left for the router and the connection manager", () => {
    const { stream } = script(`
      function envoy_on_request(h)
        h:setUpstreamOverrideHost("192.0.2.1:80", true)
        for _, bad in ipairs({ "nope", "::1", "" }) do
          h:headers():add("x-bad", select(2, pcall(function() h:setUpstreamOverrideHost(bad) end)):match("host .*"))
        end
      end
      function envoy_on_response(h)
        h:streamInfo():drainConnectionUponCompletion()
        h:headers():setHttp1ReasonPhrase("Fine")
      end`);
    const s = stream().requestHeaders("GET", "/").responseHeaders(200);
    expect(
      s.upstream.headers.filter(([, value]) => value === "host is not a valid IP address"),
    ).toHaveLength(3);
    expect([...s.filterState]).toEqual([
      [WISH.UPSTREAM_HOST, { address: "192.0.2.1:80", strict: true }],
      [WISH.DRAIN_CONNECTION, true],
      [WISH.REASON_PHRASE, "Fine"],
    ]);
  });
});

describe("what the script holds", () => {
  it("is of no use behind a wait, or to another stream", async () => {
    const { stream } = script(`
      function envoy_on_request(h)
        local try = function(what) return select(2, pcall(what)):match("object .*") or "fine" end
        if old then
          h:headers():add("x-old-pairs", try(each))
          h:headers():add("x-old", try(function() old:get("host") end))
          h:headers():add("x-old-handle", try(function() oldhandle:headers() end))
        end
        old, oldhandle = h:headers(), h
        each = pairs(old)
        local info = h:streamInfo()
        h:body()
        h:headers():add("x-head", try(function() old:get("host") end))
        h:headers():add("x-info", try(function() info:protocol() end))
      end`);
    const gone = "object used outside of proper scope";
    const first = stream().requestHeaders("POST", "/", {}, false).requestBody("a");
    await first.settled();
    expect([first.upstream.header("x-head"), first.upstream.header("x-info")]).toEqual([
      gone,
      gone,
    ]);
    const next = stream().requestHeaders("GET", "/");
    expect(next.upstream.header("x-old")).toBe(gone);
    expect(next.upstream.header("x-old-handle")).toBe(gone);
    expect(next.upstream.header("x-old-pairs")).toBe(gone);
  });
});

describe("the handle", () => {
  it("encodes, tells the time, and counts", () => {
    expect(shown(`h:base64Escape("a\\0\\255"), h:base64Decode("YQ=="), h:base64Decode("!")`)).toBe(
      "YQD/ a nil",
    );
    expect(
      shown(`h:timestamp() > 1e12, #h:timestampString(EnvoyTimestampResolution.MICROSECOND)`),
    ).toBe("true 16");
    const { stream, cx } = script(
      `function envoy_on_request(h) h:stats():counter("seen"):inc() h:stats():gauge("level"):set(3) end`,
    );
    stream().requestHeaders("GET", "/");
    stream().requestHeaders("GET", "/");
    expect([cx.stats.value("lua.seen"), cx.stats.value("lua.level")]).toEqual([2, 3]);
  });

  it("writes to the log at Envoy's levels", () => {
    const { stream, cx } = script(
      `function envoy_on_request(h) h:logInfo("i") h:logCritical("c") h:headers():logDebug("d") print("p", 1) end`,
    );
    stream().requestHeaders("GET", "/");
    const lines = cx.logged.map(({ level, message }) => `${level} ${message}`);
    expect(lines.slice(-4)).toEqual([
      "info script log: i",
      "error script log: c",
      "debug script log: d",
      "info p\t1",
    ]);
  });

  it("refuses to be called without a colon, or with another's method", () => {
    expect(shown(`pcall(function() h.headers() end)`)).toMatch(
      /^false .*bad argument #1 to 'headers' \(N5Envoy\w+19StreamHandleWrapperE expected, got no value\)/,
    );
    expect(shown(`pcall(function() return h.headers(h:headers()) end)`)).toMatch(/^false/);
    expect(shown(`pcall(function() h:nope() end)`)).toMatch(
      /attempt to call method 'nope' \(a nil value\)/,
    );
  });
});

describe("a route", () => {
  const named = {
    default_source_code: source(
      `function envoy_on_request(h) h:headers():add("x-by", "default") end`,
    ),
    source_codes: {
      other: source(`function envoy_on_request(h) h:headers():add("x-by", "other") end`),
    },
  };
  const by = (routeConfig?: object) =>
    harness(named, routeConfig === undefined ? {} : { routeConfig })
      .stream()
      .requestHeaders("GET", "/")
      .upstream.header("x-by");

  it("chooses a script by name, has its own, or none", () => {
    const own = source(
      `function envoy_on_request(h) h:headers():add("x-by", h:filterContext():get("k")) end`,
    );
    expect([by(), by({ filter_context: {} }), by({ name: "other" }), by({ name: "none" })]).toEqual(
      ["default", "default", "other", undefined],
    );
    expect([
      by({ disabled: true }),
      by({ source_code: own, filter_context: { k: "own" } }),
    ]).toEqual([undefined, "own"]);
  });
});

describe("modules", () => {
  it("are found by require", () => {
    const modules = {
      "lib.my": { text: "return { name = function() return 'mine' end }", file: "./lib/my.lua" },
    };
    const { stream } = harness({
      inline_code: source(
        `local my = require("lib.my") function envoy_on_request(h) h:headers():add("x-by", my.name()) end`,
        modules,
      ),
    });
    expect(stream().requestHeaders("GET", "/").upstream.header("x-by")).toBe("mine");
  });
});
