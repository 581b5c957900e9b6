import { describe, expect, it } from "vitest";
import { filterStateFactory, filterStateText } from "./filter-state.ts";
import { compileFilterStateMatch } from "./filter-state-match.ts";
import { compileFormat } from "./format.ts";
import { newStreamInfo } from "./http.ts";
import { TestContext } from "./testing/context.ts";

const made = (factory: string, text: string) => filterStateFactory(factory)?.(text);

/** What a log writes of an object: `PLAIN|TYPED`. */
function written(factory: string, text: string): string {
  const filterState = new Map([["k", made(factory, text)]]);
  const source = { info: newStreamInfo(), request: undefined, response: undefined, filterState };
  return compileFormat("%FILTER_STATE(k:PLAIN)%|%FILTER_STATE(k)%").format(source);
}

describe("objects of filter state", () => {
  it.each([
    ["envoy.string", "a b", 'a b|"a b"'],
    ["envoy.bool", "Yes", "true|true"],
    ["envoy.network.ip", "10.0.0.1", "10.0.0.1:0|-"],
    ["envoy.network.ip", "::1", "[::1]:0|-"],
    ["envoy.network.transport_socket.original_dst_address", "[::1]:80", "[::1]:80|-"],
    ["envoy.network.upstream_server_name", "a.test", "a.test|-"],
    ["envoy.network.application_protocols", "h2", "-|-"],
    ["envoy.tcp_proxy.disable_tunneling", "nonsense", "false|false"],
    ["envoy.tcp_proxy.per_connection_idle_timeout_ms", "0100", '100|"100"'],
    ["envoy.upstream.dynamic_port", "443", "443|443"],
  ])("of %s made of %s are written as in Envoy", (factory, text, expected) => {
    expect(written(factory, text)).toBe(expected);
  });

  it.each([
    ["envoy.bool", "perhaps"],
    ["envoy.network.ip", "10.0.0.1:80"],
    ["envoy.network.transport_socket.original_dst_address", "10.0.0.1"],
    ["envoy.network.transport_socket.original_dst_address", "10.0.0.1:65536"],
    ["envoy.upstream.dynamic_port", "4294967296"],
    ["envoy.tcp_proxy.per_connection_idle_timeout_ms", "18446744073709551616"],
    ["envoy.tcp_proxy.per_connection_idle_timeout_ms", "-1"],
  ])("of %s cannot be made of %s", (factory, text) => {
    expect(made(factory, text)).toBeUndefined();
  });

  it.each([{ a: 1 }, [1], null, { toString: "a" }, { toString: null }, Object.create(null)])(
    "that filters of other kinds keep have a text only if they say so: not %o",
    (value) => {
      expect(filterStateText(value)).toBeUndefined();
      const filterState = new Map([["k", value]]);
      const source = {
        info: newStreamInfo(),
        request: undefined,
        response: undefined,
        filterState,
      };
      expect(compileFormat("%FILTER_STATE(k:PLAIN)%").format(source)).toBe("-");
    },
  );
});

describe("a match of filter state", () => {
  const state = new Map([
    ["tenant", made("envoy.string", "blue")],
    ["ip", made("envoy.network.ip", "10.2.3.4")],
    ["text", made("envoy.string", "10.2.3.4:0")],
  ]);
  const matches = (config: object, key = "ip") =>
    compileFilterStateMatch({ key, ...config }, "m", new TestContext())(state);
  const ranges = [{ address_prefix: "10.0.0.0", prefix_len: 8 }];

  it("compares texts", () => {
    const blue = { string_match: { exact: "blue", ignore_case: false } };
    expect([matches(blue, "tenant"), matches(blue), matches(blue, "none")]).toEqual([
      true,
      false,
      false,
    ]);
  });

  it("finds addresses in ranges, inverted too, but nothing that is no address", () => {
    const inside = { address_match: { ranges, invert_match: false } };
    const outside = { address_match: { ranges, invert_match: true } };
    expect(["ip", "text", "none"].map((key) => matches(inside, key))).toEqual([true, false, false]);
    expect(["ip", "text", "none"].map((key) => matches(outside, key))).toEqual([
      false,
      false,
      false,
    ]);
    const others = [{ address_prefix: "11.0.0.0", prefix_len: 8 }];
    expect(matches({ address_match: { ranges: others, invert_match: true } })).toBe(true);
  });

  it("is refused without exactly one of its forms", () => {
    expect(() => matches({})).toThrow(/give one of string_match and address_match/);
  });
});
