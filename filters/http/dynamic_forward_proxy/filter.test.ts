import type { NameOutcome } from "@tsproxy/sdk";
import { TestCluster, TestContext, TestStream } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import forward from "./filter.ts";

function open(
  outcome: (authority: string) => NameOutcome | Promise<NameOutcome>,
  routeConfig?: object,
  config: object = {},
) {
  const cx = new TestContext();
  const cluster = new TestCluster("c", cx.stats);
  const asked: string[] = [];
  const resolve = (authority: string, state?: ReadonlyMap<string, unknown>) => {
    asked.push(authority, ...(state?.keys() ?? []));
    return outcome(authority);
  };
  cx.clusterMap.set("c", Object.assign(cluster, { names: { resolve } }));
  const factory = cx.setup(forward, {
    dns_cache_config: { name: "n" } as never,
    ...config,
  });
  const route = { action: { type: "route", cluster: "c" } };
  const made = routeConfig;
  const stream = new TestStream(cx, factory, {
    route: route as never,
    routeConfigs: made === undefined ? [] : [made],
  });
  return { stream, asked, cx };
}

it("lets a request go on at once whose host is known", () => {
  const { stream, asked } = open(() => "known");
  expect(stream.requestHeaders("GET", "/", { host: "a.test" }).upstream.headers).toBeDefined();
  expect([stream.reply, asked]).toEqual([undefined, ["a.test"]]);
});

it("passes filter state on where its config says so", () => {
  const asks = (config: object) => {
    const { stream, asked } = open(() => "known", undefined, config);
    stream.filterState.set("k", "v");
    stream.requestHeaders("GET", "/", { host: "a.test" });
    return asked;
  };
  expect(asks({})).toEqual(["a.test"]);
  expect(asks({ allow_dynamic_host_from_filter_state: true })).toEqual(["a.test", "k"]);
});

it("answers for hosts that cannot be had", async () => {
  const cases: [NameOutcome, string, string][] = [
    ["overflow", "DNS cache overflow", "dns_cache_overflow"],
    [
      "pending_overflow",
      "DNS cache pending request overflow",
      "dns_cache_pending_requests_overflow",
    ],
    [{ failed: "why" }, "DNS resolution failure", "dns_resolution_failure{why}"],
  ];
  for (const [outcome, body, details] of cases) {
    const { stream } = open(() => outcome);
    stream.requestHeaders("GET", "/", { host: "a.test" });
    expect(stream.reply).toMatchObject({ status: 503, body, details });
  }
  const { stream } = open(async () => ({ failed: "late" }));
  stream.requestHeaders("GET", "/", { host: "a.test" });
  await new Promise((resolve) => setImmediate(resolve));
  expect(stream.reply).toMatchObject({ status: 503, flags: ["DF"] });
});

it("asks for the host that the route names in the place of the request's", () => {
  const literal = open(() => "known", { host_rewrite_literal: "b.test" });
  literal.stream.requestHeaders("GET", "/", { host: "a.test" });
  const header = open(() => "known", { host_rewrite_header: "x-to" });
  header.stream.requestHeaders("GET", "/", { host: "a.test", "x-to": "c.test" });
  expect([literal.asked, header.asked]).toEqual([["b.test"], ["c.test"]]);
  const empty = open(() => "known", { host_rewrite_header: "x-to" });
  empty.stream.requestHeaders("GET", "/", { host: "a.test", "x-to": "" });
  expect(empty.asked).toEqual([]);
  expect(empty.stream.reply).toMatchObject({ status: 400, details: "empty_host_header" });
  const far = open(() => "known", { host_rewrite_literal: "ж.test" });
  far.stream.requestHeaders("GET", "/", { host: "a.test" });
  expect(far.asked).toEqual([Buffer.from("ж.test").toString("latin1")]);
});
