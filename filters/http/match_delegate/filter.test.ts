import { defineHttpFilter, type HttpFilterFactory, Type } from "@tsproxy/sdk";
import { TestContext, TestStream, withDefaults } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import filter from "./filter.ts";

const ACTION = "x/envoy.extensions.filters";
const SKIP = {
  name: "a",
  typed_config: { "@type": `${ACTION}.common.matcher.action.v3.SkipFilter` },
};
const execute = (name: string, more: object = {}) => ({
  name: "a",
  typed_config: {
    "@type": `${ACTION}.http.composite.v3.ExecuteFilterAction`,
    typed_config: { name, package: `http/${name}`, config: {} },
    ...more,
  },
});
const input = (type: string, fields: object = {}) => ({
  name: "i",
  typed_config: { "@type": `x/envoy.type.matcher.v3.${type}`, ...fields },
});
const byRequest = input("HttpRequestHeaderMatchInput", { header_name: "x-kind" });
const tree = (by: object, map: Readonly<Record<string, object>>) => ({
  matcher_tree: {
    input: by,
    exact_match_map: {
      map: Object.fromEntries(Object.entries(map).map(([key, action]) => [key, { action }])),
    },
  },
});

/** A stream through a delegate around the filter `inner`; `other` may take its place. Each notes what it sees. */
function stream(xds_matcher: object, routeMatcher?: object) {
  const seen: string[] = [];
  const cx = new TestContext();
  const note =
    (name: string): HttpFilterFactory =>
    (s) => ({
      onRequestHeaders: () => void seen.push(`${name} request ${s.routeConfig === undefined}`),
      onResponseHeaders: () => void seen.push(`${name} response`),
      onEnd: () => void seen.push(`${name} end`),
    });
  for (const name of ["inner", "other"]) {
    const setup = () => note(name);
    cx.define(`http/${name}`, defineHttpFilter({ name, config: Type.Object({}), setup }));
  }
  const extension_config = { name: "inner", package: "http/inner", config: {} };
  const factory = cx.setup(filter, withDefaults(filter.config, { extension_config, xds_matcher }));
  const routeConfigs =
    routeMatcher === undefined
      ? []
      : [withDefaults(filter.routeConfig!, { xds_matcher: routeMatcher })];
  return { s: new TestStream(cx, factory, { routeConfigs }), seen, cx };
}

describe("a matcher around a filter", () => {
  const matcher = tree(byRequest, { skip: SKIP, other: execute("other") });
  const run = (kind: string, routeMatcher?: object, status = 200) => {
    const { s, seen } = stream(matcher, routeMatcher);
    s.requestHeaders("GET", "/", { "x-kind": kind }).responseHeaders(status).end();
    return seen;
  };

  it("does not decide by a request that no filter has been shown", () => {
    const { s, seen } = stream({ ...matcher, on_no_match: { action: SKIP } });
    s.responseHeaders(400).end();
    expect(seen).toEqual(["inner response", "inner end"]);
  });

  it("leaves the filter alone where nothing matches", () => {
    expect(run("none")).toEqual(["inner request true", "inner response", "inner end"]);
  });

  it("leaves it out, or puts another in its place", () => {
    expect(run("skip")).toEqual(["inner end"]);
    expect(run("other")).toEqual([
      "inner end",
      "other request true",
      "other response",
      "other end",
    ]);
  });

  it("is another one on routes that say so, and the filter sees nothing of that", () => {
    const mine = tree(byRequest, { mine: SKIP });
    expect(run("mine", mine)).toEqual(["inner end"]);
    expect(run("skip", mine)).toEqual(["inner request true", "inner response", "inner end"]);
  });

  it("waits for the response where it stands on that, and counts from there on", () => {
    const { s, seen } = stream(
      tree(input("HttpResponseStatusCodeClassMatchInput"), { "5xx": SKIP }),
    );
    s.requestHeaders("GET", "/").responseHeaders(503).end();
    expect(seen).toEqual(["inner request true", "inner end"]);
  });

  it("takes only a sample, if it is told so", () => {
    const never = execute("other", {
      sample_percent: { default_value: { numerator: 0, denominator: "HUNDRED" } },
    });
    const { s, seen, cx } = stream(tree(byRequest, { other: never }));
    s.requestHeaders("GET", "/", { "x-kind": "other" });
    expect(seen).toEqual(["inner request true"]);
    expect(cx.stats.value("composite.filter_delegation_success")).toBe(0);
  });

  it("holds on to no code of a filter that cannot be made", () => {
    const cx = new TestContext();
    const setup = () => () => {
      throw new Error("not today");
    };
    cx.define("http/inner", defineHttpFilter({ name: "inner", config: Type.Object({}), setup }));
    const extension_config = { name: "inner", package: "http/inner", config: {} };
    const xds_matcher = tree(byRequest, { skip: SKIP });
    const config = withDefaults(filter.config, { extension_config, xds_matcher });
    const factory = cx.setup(filter, config);
    expect(() => new TestStream(cx, factory)).toThrow("not today");
    expect(cx.slots.map((slot) => slot.current.uses)).toEqual([0]);
  });
});
