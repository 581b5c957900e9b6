import { describe, expect, test } from "vitest";
import type { FilterChainMatchConfig } from "../protocol.ts";
import { addressBytes, FilterChainMatcher, type MatchInput } from "./filter-chain-match.ts";

const input = (
  over: Partial<MatchInput> & { local?: string; remote?: string } = {},
): MatchInput => {
  const address = (text: string) => {
    const colon = text.lastIndexOf(":");
    return { ip: text.slice(0, colon), port: Number(text.slice(colon + 1)) };
  };
  const remote = address(over.remote ?? "192.0.2.9:5000");
  return {
    localAddress: address(over.local ?? "10.0.0.1:80"),
    remoteAddress: remote,
    directAddress: remote,
    serverName: "",
    transportProtocol: "raw_buffer",
    applicationProtocols: [],
    ...over,
  };
};
const choose = (
  chains: Record<string, FilterChainMatchConfig>,
  at: MatchInput,
): string | undefined =>
  new FilterChainMatcher(Object.entries(chains).map(([value, match]) => ({ match, value }))).choose(
    at,
  );
const cidr = (text: string) => {
  const [address_prefix, length] = text.split("/");
  return { address_prefix: address_prefix!, prefix_len: Number(length) };
};

describe("the most specific value of each criterion is taken, in Envoy's order", () => {
  test("destination port before everything else, else any port", () => {
    const chains = { p: { destination_port: 81 }, any: {} };
    expect(choose(chains, input({ local: "10.0.0.1:81" }))).toBe("p");
    expect(choose(chains, input({ local: "10.0.0.1:80" }))).toBe("any");
  });

  test("the longest destination prefix", () => {
    const chains = {
      wide: { prefix_ranges: [cidr("10.0.0.0/8")] },
      narrow: { prefix_ranges: [cidr("10.0.0.0/24")] },
      v6: { prefix_ranges: [cidr("2001:db8::/32")] },
    };
    expect(choose(chains, input())).toBe("narrow");
    expect(choose(chains, input({ local: "10.9.0.1:80" }))).toBe("wide");
    expect(choose(chains, input({ local: "2001:db8::5:80" }))).toBe("v6");
    expect(choose(chains, input({ local: "172.16.0.1:80" }))).toBeUndefined();
  });

  test("exact server name, then the longest wildcard, then none", () => {
    const chains = {
      exact: { server_names: ["a.b.test"] },
      near: { server_names: ["*.b.test"] },
      far: { server_names: ["*.test"] },
      dotted: { server_names: [".dot.test"] },
      none: {},
    };
    expect(choose(chains, input({ serverName: "x.dot.test" }))).toBe("dotted");
    expect(choose(chains, input({ serverName: "A.b.test" }))).toBe("exact");
    expect(choose(chains, input({ serverName: "x.b.test" }))).toBe("near");
    expect(choose(chains, input({ serverName: "x.y.test" }))).toBe("far");
    expect(choose(chains, input({ serverName: "other" }))).toBe("none");
    expect(choose(chains, input())).toBe("none");
  });

  test("a star behind a wildcard is a letter like others, and an empty name is any name", () => {
    const chains = {
      star: { server_names: ["*.*.test"] },
      end: { server_names: ["*.b.*"] },
      any: { server_names: ["", "a.test"] },
    };
    expect(choose(chains, input({ serverName: "x.*.test" }))).toBe("star");
    expect(choose(chains, input({ serverName: "x.b.*" }))).toBe("end");
    expect(choose(chains, input({ serverName: "x.y.test" }))).toBe("any");
    expect(choose(chains, input())).toBe("any");
  });

  test("a prefix of more bits than an IPv4 address has is the address", () => {
    const chains = { one: { prefix_ranges: [cidr("10.0.0.1/60")] }, any: {} };
    expect(choose(chains, input())).toBe("one");
    expect(choose(chains, input({ local: "10.0.0.2:80" }))).toBe("any");
  });

  test("the first of the client's protocols that a chain names", () => {
    const chains = {
      h2: { application_protocols: ["h2"] },
      h1: { application_protocols: ["http/1.1"] },
      any: {},
    };
    expect(choose(chains, input({ applicationProtocols: ["http/1.1", "h2"] }))).toBe("h1");
    expect(choose(chains, input({ applicationProtocols: ["spdy"] }))).toBe("any");
  });

  test("source type, source prefix, source port", () => {
    const chains = {
      local: { source_type: "SAME_IP_OR_LOOPBACK" as const },
      external: { source_type: "EXTERNAL" as const, source_prefix_ranges: [cidr("192.0.2.0/24")] },
      port: {
        source_type: "EXTERNAL" as const,
        source_prefix_ranges: [cidr("192.0.2.0/24")],
        source_ports: [7],
      },
    };
    expect(choose(chains, input({ remote: "127.0.0.1:9" }))).toBe("local");
    expect(choose(chains, input({ remote: "10.0.0.1:9" }))).toBe("local");
    expect(choose(chains, input({ remote: "192.0.2.1:9" }))).toBe("external");
    expect(choose(chains, input({ remote: "192.0.2.1:7" }))).toBe("port");
    expect(choose(chains, input({ remote: "198.51.100.1:7" }))).toBeUndefined();
  });

  test("the socket's own peer, where a PROXY header has named another", () => {
    const chains = { direct: { direct_source_prefix_ranges: [cidr("10.1.0.0/16")] }, any: {} };
    const at = input({ directAddress: { ip: "10.1.2.3", port: 1 } });
    expect(choose(chains, at)).toBe("direct");
    expect(choose(chains, input())).toBe("any");
  });
});

test("there is no way back to a less specific sibling", () => {
  const chains = {
    exact: { server_names: ["a.test"], application_protocols: ["h2"] },
    wildcard: { server_names: ["*.test"] },
    any: {},
  };
  expect(
    choose(chains, input({ serverName: "a.test", applicationProtocols: ["http/1.1"] })),
  ).toBeUndefined();
});

test("a single chain without criteria takes everything", () => {
  expect(choose({ all: {} }, input())).toBe("all");
});

test.each([
  ["1.2.3.4", [1, 2, 3, 4]],
  ["::ffff:1.2.3.4", [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 1, 2, 3, 4]],
  ["::1", [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]],
  ["2001:db8:0:0:1:0:0:1%eth0", [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]],
])("reads %s", (text, bytes) => {
  expect([...addressBytes(text)!]).toEqual(bytes);
});

test.each([
  "",
  "1.2.3",
  "1.2.3.256",
  "1.2.3.04",
  "1.2.3.4.5",
  "a.b.c.d",
  "::1::",
  "1:2:3",
  "1:2:3:4:5:6:7:8:9",
  "12345::",
  "::g",
])("refuses %s", (text) => {
  expect(addressBytes(text)).toBeUndefined();
});
