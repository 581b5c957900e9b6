import { HeaderMap, WISH } from "@tsproxy/sdk";
import { describe, expect, it } from "vitest";
import { harness, logged, script, shown, source } from "./test-script.ts";

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
