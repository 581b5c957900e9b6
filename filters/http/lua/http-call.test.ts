import { TestCluster } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import { logged, script, shown } from "./test-script.ts";

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
