import { HeaderLine, HeaderMap } from "@tsproxy/sdk";
import { describe, expect, it } from "vitest";
import { logged, script, shown } from "./test-script.ts";

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
