import { TestContext, TestStream } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import ratelimit from "./filter.ts";

test("lets each key have its requests, and more when the time is over", () => {
  const cx = new TestContext();
  const factory = cx.setup(ratelimit, { header: "x-api-key", requests: 2, per: 10_000 });
  const ask = (key: string) =>
    new TestStream(cx, factory).requestHeaders("GET", "/", { "x-api-key": key }).reply;
  expect([ask("a"), ask("a"), ask("b")]).toEqual([undefined, undefined, undefined]);
  expect(ask("a")).toMatchObject({ status: 429, headers: [["retry-after", "5"]], flags: ["RL"] });
  expect(cx.stats.value("ratelimit.limited")).toBe(1);
  cx.clock.advance(10_000);
  expect(ask("a")).toBeUndefined();
});
