import { describe, expect, it } from "vitest";
import { RequestHeaders } from "./headers.ts";
import type { StreamInfo } from "./http.ts";
import { compileMatcher, MatcherOf } from "./matcher.ts";
import type { MatchSubject } from "./matcher-inputs.ts";
import { Type } from "./schema.ts";
import { TestContext, withDefaults } from "./testing/index.ts";

const Schema = MatcherOf({ "test.Say": Type.Object({ word: Type.String() }) });

const say = (word: string, more: object = {}) => ({
  action: { name: "say", typed_config: { "@type": "x/test.Say", word } },
  ...more,
});
const header = (name: string) => ({
  name: "i",
  typed_config: {
    "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
    header_name: name,
  },
});
const is = (name: string, exact: string) => ({
  single_predicate: { input: header(name), value_match: { exact } },
});
const network = (input: string) => ({
  name: "i",
  typed_config: { "@type": `x/envoy.extensions.matching.common_inputs.network.v3.${input}` },
});

function subject(path: string, fields: Record<string, string> = {}): MatchSubject {
  const request = new RequestHeaders();
  request.path = path;
  for (const [name, value] of Object.entries(fields)) request.append(name, value);
  const address = { ip: "10.0.0.7", port: 4000 };
  const info = {
    downstreamRemoteAddress: address,
    downstreamDirectAddress: address,
    downstreamLocalAddress: { ip: "10.0.0.1", port: 80 },
  } as StreamInfo;
  return { request, info, metadata: new Map([["ns", { a: { b: "deep" } }]]) };
}

const compile = (config: object) => {
  const tree = compileMatcher(
    withDefaults(Schema, config),
    "matcher",
    new TestContext(),
    (action) => action.word,
  );
  return (path: string, fields?: Record<string, string>) => tree.match(subject(path, fields));
};

describe("a matcher tree", () => {
  it("takes the first entry of a list whose predicate holds", () => {
    const match = compile({
      matcher_list: {
        matchers: [
          { predicate: is("a", "1"), on_match: say("one") },
          {
            predicate: {
              and_matcher: { predicate: [is("b", "2"), { not_matcher: is("c", "3") }] },
            },
            on_match: say("two"),
          },
          {
            predicate: { or_matcher: { predicate: [is("d", "4"), is("e", "5")] } },
            on_match: say("or"),
          },
        ],
      },
      on_no_match: say("none"),
    });
    expect(match("/", { a: "1", b: "2" })).toBe("one");
    expect(match("/", { b: "2" })).toBe("two");
    expect(match("/", { b: "2", c: "3" })).toBe("none");
    expect(match("/", { e: "5" })).toBe("or");
  });

  it("goes on where a nested tree finds nothing, or an action says keep_matching", () => {
    const nested = {
      matcher_list: { matchers: [{ predicate: is("x", "y"), on_match: say("in") }] },
    };
    const match = compile({
      matcher_list: {
        matchers: [
          { predicate: is("a", "1"), on_match: { matcher: nested } },
          { predicate: is("a", "1"), on_match: say("skipped", { keep_matching: true }) },
          { predicate: is("a", "1"), on_match: say("after") },
        ],
      },
    });
    expect(match("/", { a: "1", x: "y" })).toBe("in");
    expect(match("/", { a: "1" })).toBe("after");
    expect(match("/")).toBeUndefined();
  });

  it("looks exact values up, and the longest prefix first", () => {
    const exact = compile({
      matcher_tree: { input: header(":path"), exact_match_map: { map: { "/a?x": say("a") } } },
    });
    expect([exact("/a?x"), exact("/a")]).toEqual(["a", undefined]);
    const prefix = compile({
      matcher_tree: {
        input: header(":path"),
        prefix_match_map: {
          map: {
            "/": say("root"),
            "/a": say("a"),
            "/a/b": {
              matcher: {
                matcher_list: { matchers: [{ predicate: is("h", "1"), on_match: say("ab") }] },
              },
            },
          },
        },
      },
    });
    expect(prefix("/a/b", { h: "1" })).toBe("ab");
    expect(prefix("/a/b")).toBe("a");
    expect(prefix("/z")).toBe("root");
  });

  it("reads addresses, query parameters and metadata", () => {
    const one = (input: object, more: object) => {
      const predicate = { single_predicate: { input, ...more } };
      return compile({ matcher_list: { matchers: [{ predicate, on_match: say("yes") }] } });
    };
    const ranges = {
      custom_match: {
        name: "ip",
        typed_config: {
          "@type": "x/envoy.extensions.matching.input_matchers.ip.v3.Ip",
          cidr_ranges: [{ address_prefix: "10.0.0.0", prefix_len: 24 }],
          stat_prefix: "s",
        },
      },
    };
    expect(one(network("SourceIPInput"), ranges)("/")).toBe("yes");
    expect(one(network("DestinationPortInput"), { value_match: { exact: "80" } })("/")).toBe("yes");
    expect(one(network("ServerNameInput"), { value_match: { prefix: "a" } })("/")).toBeUndefined();
    const query = {
      name: "q",
      typed_config: {
        "@type": "x/envoy.type.matcher.v3.HttpRequestQueryParamMatchInput",
        query_param: "q",
      },
    };
    expect(one(query, { value_match: { exact: "a b" } })("/?q=a%20b&q=c")).toBe("yes");
    const metadata = {
      name: "m",
      typed_config: {
        "@type": "x/envoy.extensions.matching.common_inputs.network.v3.DynamicMetadataInput",
        filter: "ns",
        path: [{ key: "a" }, { key: "b" }],
      },
    };
    const value = {
      custom_match: {
        name: "v",
        typed_config: {
          "@type": "x/envoy.extensions.matching.input_matchers.metadata.v3.Metadata",
          value: { string_match: { exact: "deep" } },
        },
      },
    };
    expect(one(metadata, value)("/")).toBe("yes");
  });

  it("never matches a missing value, and so always its negation", () => {
    const match = compile({
      matcher_list: {
        matchers: [{ predicate: { not_matcher: is("a", "1") }, on_match: say("not") }],
      },
    });
    expect(match("/")).toBe("not");
  });
});

describe("a branch by address or domain", () => {
  const branch = (type: string, fields: object, input: object = network("SourceIPInput")) =>
    compile({
      matcher_tree: {
        input,
        custom_match: {
          name: "c",
          typed_config: { "@type": `x/xds.type.matcher.v3.${type}`, ...fields },
        },
      },
    });

  it("takes the narrowest range, and wider ones where that finds nothing unless they are exclusive", () => {
    const range = (address_prefix: string, prefix_len: number, on_match: object, more = {}) => ({
      ranges: [{ address_prefix, prefix_len }],
      on_match,
      ...more,
    });
    const onlyX = {
      matcher: { matcher_list: { matchers: [{ predicate: is("x", "1"), on_match: say("x") }] } },
    };
    const ranges = [range("10.0.0.0", 8, say("wide")), range("10.0.0.0", 24, onlyX)];
    const match = branch("IPMatcher", { range_matchers: ranges });
    expect([match("/", { x: "1" }), match("/")]).toEqual(["x", "wide"]);
    const exclusive = [range("10.0.0.0", 8, say("wide"), { exclusive: true }), ranges[1]!];
    expect(branch("IPMatcher", { range_matchers: exclusive })("/")).toBeUndefined();
  });

  it("takes the longest name", () => {
    const entries = { "a.b.test": "name", "*.b.test": "sub", "*": "any" };
    const domain_matchers = Object.entries(entries).map(([domain, word]) => ({
      domains: [domain],
      on_match: say(word),
    }));
    const match = branch("ServerNameMatcher", { domain_matchers }, header("h"));
    const of = (h: string) => match("/", { h });
    expect(["a.b.test", "x.y.b.test", "b.test", ""].map(of)).toEqual(["name", "sub", "any", "any"]);
    const twice = [...domain_matchers, { domains: ["*"], on_match: say("x") }];
    expect(() => branch("ServerNameMatcher", { domain_matchers: twice })).toThrow(
      "duplicate domain: *",
    );
  });
});

describe("CEL in a tree", () => {
  const cel = { typed_config: { "@type": "x/xds.type.matcher.v3.HttpAttributesCelMatchInput" } };
  const request = (field: string) => ({
    select_expr: { operand: { ident_expr: { name: "request" } }, field },
  });
  const equal = (left: object, text: string) => ({
    call_expr: { function: "_==_", args: [left, { const_expr: { string_value: text } }] },
  });
  const matches = (expr_match: object) => ({
    name: "c",
    typed_config: { "@type": "x/xds.type.matcher.v3.CelMatcher", expr_match },
  });
  const list = (single_predicate: object) => ({
    matcher_list: { matchers: [{ predicate: { single_predicate }, on_match: say("hit") }] },
  });

  it.each(["parsed_expr", "checked_expr", "cel_expr_parsed", "cel_expr_checked"])("%s", (form) => {
    const custom_match = matches({ [form]: { expr: equal(request("path"), "/a") } });
    const ask = compile(list({ input: { name: "i", ...cel }, custom_match }));
    expect([ask("/a"), ask("/b")]).toEqual(["hit", undefined]);
  });

  it("takes a value that is no truth for no match", () => {
    const custom_match = matches({ parsed_expr: { expr: request("path") } });
    expect(compile(list({ input: { name: "i", ...cel }, custom_match }))("/a")).toBeUndefined();
  });

  it("goes with its own input alone", () => {
    const custom_match = matches({ parsed_expr: { expr: request("path") } });
    const together = /belong together/;
    expect(() => compile(list({ input: header("a"), custom_match }))).toThrow(together);
    const value_match = { exact: "a" };
    expect(() => compile(list({ input: { name: "i", ...cel }, value_match }))).toThrow(together);
    expect(() =>
      compile(list({ input: { name: "i", ...cel }, custom_match: matches({}) })),
    ).toThrow(/give one of parsed_expr/);
  });
});

describe("inputs of a matcher", () => {
  it("read certificates, filter state and the status, and custom matchers their hash", () => {
    const names = [
      { type: "URI", value: "spiffe://a" },
      { type: "DNS", value: "a.test" },
      { type: "DNS", value: "b.test" },
    ] as const;
    const more = {
      downstreamConnection: { tls: { peer: { subject: "CN=a", names } } },
      filterState: new Map([["k", "state"]]),
      response: { status: 503 },
    } as unknown as Partial<MatchSubject>;
    const read = (type: string, fields: object = {}) => {
      const seen: string[] = [];
      const tree = compileMatcher(
        withDefaults(Schema, {
          matcher_tree: {
            input: { name: "i", typed_config: { "@type": `x/envoy.${type}`, ...fields } },
            prefix_match_map: { map: { "": say("") } },
          },
        }),
        "m",
        new TestContext(),
        () => ({ seen }),
      );
      return tree.match({ ...subject("/"), ...more }) !== undefined;
    };
    const ssl = "extensions.matching.common_inputs.ssl.v3.";
    for (const type of ["UriSanInput", "DnsSanInput", "SubjectInput"])
      expect(read(ssl + type)).toBe(true);
    const filterState = "extensions.matching.common_inputs.network.v3.FilterStateInput";
    expect([read(filterState, { key: "k" }), read(filterState, { key: "x" })]).toEqual([
      true,
      false,
    ]);
    expect(read("type.matcher.v3.HttpResponseStatusCodeMatchInput")).toBe(true);
    const hashed = (threshold: number) => {
      const custom_match = {
        name: "c",
        typed_config: {
          "@type":
            "x/envoy.extensions.matching.input_matchers.consistent_hashing.v3.ConsistentHashing",
          threshold,
          modulo: 100,
        },
      };
      const predicate = { single_predicate: { input: header("h"), custom_match } };
      return compile({ matcher_list: { matchers: [{ predicate, on_match: say("in") }] } })("/", {
        h: "v",
      });
    };
    expect([hashed(0), hashed(100)]).toEqual(["in", undefined]);
  });
});
