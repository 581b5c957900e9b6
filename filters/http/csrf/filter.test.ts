import { TestContext, TestStream } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import csrf from "./filter.ts";

const share = (numerator: number) => ({
  default_value: { numerator, denominator: "HUNDRED" as const },
  runtime_key: "",
});
const policy = (enabled: number, more: object = {}) => ({
  filter_enabled: share(enabled),
  additional_origins: [],
  ...more,
});

function harness(config: object, route?: object) {
  const cx = new TestContext();
  cx.statPrefix = "http.x.";
  const factory = cx.setup(csrf, config);
  const ask = (method: string, headers: Record<string, string> = {}) =>
    new TestStream(cx, factory, {
      routeConfigs: route === undefined ? [] : [route],
    }).requestHeaders(method, "/", { host: "me.test:8080", ...headers }).reply?.status;
  return { ask, stat: (name: string) => cx.stats.value(`http.x.csrf.${name}`) };
}

it("lets requests of the same origin change things, and no others", () => {
  const { ask, stat } = harness(policy(100));
  expect(ask("GET")).toBeUndefined();
  expect(ask("POST", { origin: "http://me.test:8080" })).toBeUndefined();
  expect(ask("PUT", { referer: "https://me.test:8080/page?x" })).toBeUndefined();
  expect(ask("POST", { origin: "http://me.test" })).toBe(403);
  expect(ask("DELETE", { origin: "null", referer: "https://me.test:8080/" })).toBe(403);
  expect(ask("PATCH")).toBe(403);
  expect(["request_valid", "request_invalid", "missing_source_origin"].map(stat)).toEqual([
    2, 1, 2,
  ]);
});

it("takes further origins, and a route's policy in the filter's place", () => {
  const more = policy(100, { additional_origins: [{ suffix: ".ok.test", ignore_case: false }] });
  const origin = "https://a.ok.test";
  expect(harness(more).ask("POST", { origin })).toBeUndefined();
  expect(harness(policy(0), policy(100)).ask("POST", { origin })).toBe(403);
});

it("only counts in shadow", () => {
  const { ask, stat } = harness(policy(0, { shadow_enabled: share(100) }));
  expect(ask("POST")).toBeUndefined();
  expect(stat("missing_source_origin")).toBe(1);
});
