import { RequestHeaders, type SpecifierSubject } from "@tsproxy/sdk";
import { TestCluster, TestContext, withDefaults } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import lua from "./filter.ts";

function specifier(text: string, cx = new TestContext()) {
  const config = withDefaults(lua.config, {
    source_code: { text, modules: {} },
    default_cluster: "spare",
  });
  const made = cx.setup(lua, config);
  const address = { ip: "192.0.2.1", port: 1 };
  const info = {
    downstreamRemoteAddress: address,
    downstreamDirectAddress: address,
    downstreamLocalAddress: address,
  };
  const clusterOf = (headers: Record<string, string> = {}) => {
    const request = new RequestHeaders();
    request.method = "GET";
    request.path = "/p";
    for (const [name, value] of Object.entries(headers)) request.append(name, value);
    const subject: SpecifierSubject = { request, info, random: 0 };
    return made.cluster(subject);
  };
  return { cx, clusterOf };
}
const logged = (cx: TestContext) => cx.logged.map(({ message }) => message);

it("answers the cluster that the script does, by what the head says", () => {
  const { clusterOf } = specifier(`
    function envoy_on_route(handle)
      local headers = handle:headers()
      if headers:get("Header_Key") == "fake" then return "fake_cluster" end
      if headers:get("none") then return "never" end
      return (headers:get(":method") .. headers:get(":path") .. (headers:get("x") or "")), nil
    end`);
  expect(clusterOf({ header_key: "fake" })).toBe("fake_cluster");
});

it("answers the default where the script fails, takes too long or has no name", () => {
  const bodies = [
    "return nil",
    "return {}",
    "error('no')",
    "while true do end",
    "local t = {} while true do t[#t + 1] = {} end",
    "return ('a'):rep(1e9)",
    "local function f() return 1 + f() end return f()",
    "return (('a'):rep(3000)):find(('.-'):rep(20) .. 'b')",
    "coroutine.yield()",
    "handle:headers():add('a', 'b')",
  ];
  for (const body of bodies) {
    const { cx, clusterOf } = specifier(`function envoy_on_route(handle) ${body} end`);
    expect(clusterOf(), body).toBe("spare");
    expect(logged(cx).at(-1), body).toMatch(/^script log: .*use default cluster$/);
  }
  expect(specifier("function envoy_on_route() return 5 end").clusterOf()).toBe("5");
});

it("tells what is going on in a cluster, while the choice is made", () => {
  const cx = new TestContext();
  cx.clusterMap.set("busy", new TestCluster("busy", cx.stats));
  const { clusterOf } = specifier(
    `function envoy_on_route(handle)
      if old then return select(2, pcall(function() old:headers() end)):match("object .*") end
      old = handle
      local busy = handle:getCluster("busy")
      if handle:getCluster("nope") then return "wrong" end
      return "c" .. busy:numConnections() .. busy:numRequests() .. busy:numPendingRequests()
    end`,
    cx,
  );
  expect([clusterOf(), clusterOf()]).toEqual(["c000", "object used outside of proper scope"]);
});

it("begins anew before what it keeps can fill the worker's memory", () => {
  const { clusterOf } = specifier(`
    kept = {}
    function envoy_on_route()
      kept[#kept + 1] = ("x"):rep(1024 * 1024)
      return "kept" .. #kept
    end`);
  const counts = Array.from({ length: 200 }, () => Number(clusterOf()!.slice(4)));
  expect(Math.max(...counts)).toBeLessThan(65);
  expect(counts.filter((count) => count === 1).length).toBeGreaterThan(2);
});

it("is refused where the script cannot be loaded or does not choose", () => {
  expect(() => specifier("x = 1")).toThrow(/defines no function envoy_on_route/);
  expect(() => specifier("function")).toThrow(/script load error/);
});
