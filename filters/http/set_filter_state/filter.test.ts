import { filterStateText } from "@tsproxy/sdk";
import { TestContext, TestStream, withDefaults } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import filter, { Config } from "./filter.ts";

const object = (object_key: string, text: string, more: object = {}) => ({
  object_key,
  format_string: { text_format_source: { inline_string: text } },
  ...more,
});
const string = { factory_key: "envoy.string" };

function streamOf(config: object): TestStream {
  const cx = new TestContext();
  return new TestStream(cx, cx.setup(filter, withDefaults(Config, config)));
}

function stateOf(on_request_headers: object[], headers: Record<string, string> = {}) {
  const stream = streamOf({ on_request_headers });
  stream.requestHeaders("GET", "/", headers);
  return Object.fromEntries([...stream.filterState].map(([k, v]) => [k, filterStateText(v)]));
}

it("makes objects by the factory that is named, else by that of the key", () => {
  const given = [
    object("tenant", "%REQ(x-tenant)%", string),
    object("envoy.network.upstream_server_name", "%REQ(x-sni)%"),
    object("port", "0443", { factory_key: "envoy.upstream.dynamic_port" }),
  ];
  expect(stateOf(given, { "x-tenant": "blue", "x-sni": "a.test" })).toEqual({
    tenant: "blue",
    "envoy.network.upstream_server_name": "a.test",
    port: "443",
  });
});

it("leaves out what no object can be made of, and empty texts where it is told to", () => {
  const empty = { text_format_source: { inline_string: "%REQ(x-none)%" }, omit_empty_values: true };
  expect(
    stateOf([
      object("flag", "perhaps", { factory_key: "envoy.bool" }),
      object("address", "10.0.0.256", { factory_key: "envoy.network.ip" }),
      object("e", "", { ...string, format_string: empty, skip_if_empty: true }),
      object("kept", "", { ...string, format_string: empty }),
    ]),
  ).toEqual({ kept: "" });
});

it("chooses the route anew where it is told to", () => {
  const cleared = (clear_route_cache: boolean) => {
    const stream = streamOf({ on_request_headers: [object("a", "x", string)], clear_route_cache });
    stream.requestHeaders("GET", "/");
    return stream.routeCleared;
  };
  expect([cleared(true), cleared(false)]).toEqual([1, 0]);
});

it("refuses a key without a factory", () => {
  expect(() => stateOf([object("tenant", "x")])).toThrow(
    /^'tenant' does not have an object factory/,
  );
});
