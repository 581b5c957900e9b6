import { defineClusterSpecifier, headerName, Type } from "@tsproxy/sdk";
import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import router from "../../http/router/filter.ts";
import { oneHost, TestProxy } from "./test-proxy.ts";

const byHeader = defineClusterSpecifier({
  name: "by_header",
  config: Type.Object({ header: Type.String() }),
  setup: ({ header }) => {
    const name = headerName(header);
    return { cluster: ({ request }) => request.get(name) };
  },
});
const plugin = (header: string) => ({
  extension: { name: header, package: "cluster_specifier/by_header", config: { header } },
});
const routeBy = (specifier: object) => ({
  match: { prefix: "/" },
  route: { ...specifier, cluster_not_found_response_code: "NOT_FOUND" },
});
const proxy = () => {
  const p = new TestProxy({ codec, router });
  p.cx.define("cluster_specifier/by_header", byHeader);
  return p;
};

describe("a cluster specifier", () => {
  it.each([
    ["of the table, by name", { cluster_specifier_plugin: "x-to" }],
    ["within the route", { inline_cluster_specifier_plugin: plugin("x-to") }],
  ])("%s names the cluster of each request", (_, specifier) => {
    const p = proxy().start({
      route_config: { ...oneHost(routeBy(specifier)), cluster_specifier_plugins: [plugin("x-to")] },
    });
    const c = p.connect();
    c.get("/", "x-to: up");
    p.up.last.respond(200, {}, "");
    expect(c.status()).toBe(200);
    // A name that no cluster has, and none at all.
    expect(c.get("/", "x-to: nowhere").status()).toBe(404);
    expect(c.get("/").status()).toBe(404);
  });

  it("has to be one of the table's", () => {
    const route_config = oneHost(routeBy({ cluster_specifier_plugin: "gone" }));
    expect(() => proxy().start({ route_config })).toThrow('unknown plugin "gone"');
    const twice = { ...oneHost(), cluster_specifier_plugins: [plugin("a"), plugin("a")] };
    expect(() => proxy().start({ route_config: twice })).toThrow(
      'a second plugin has the name "a"',
    );
  });
});
