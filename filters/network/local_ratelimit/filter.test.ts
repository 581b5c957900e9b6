import { TestConnection, TestContext, withDefaults } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import { Config } from "./config.ts";
import limit from "./filter.ts";

function harness(config: object = {}, cx = new TestContext()) {
  const token_bucket = { max_tokens: 2, tokens_per_fill: 2, fill_interval: 1000 };
  const full = withDefaults(Config, { stat_prefix: "in", token_bucket, ...config });
  const factory = cx.setup(limit, full);
  const last = { connection: new TestConnection() };
  const connect = () => {
    const connection = new TestConnection();
    last.connection = connection;
    factory.create(connection, connection.chain).onConnect?.();
    return connection.closed;
  };
  return { cx, connect, last };
}

it("closes connections that find no token", () => {
  const { cx, connect, last } = harness();
  expect([connect(), connect(), connect()]).toEqual([undefined, undefined, "flush"]);
  expect(last.connection.responseFlag).toBe("URX");
  expect(cx.stats.value("local_rate_limit.in.rate_limited")).toBe(1);
  cx.clock.advance(500);
  expect([connect(), connect()]).toEqual([undefined, "flush"]);
});

it("shares its bucket with the other workers", () => {
  const { cx, connect } = harness();
  connect();
  const other = new TestContext();
  other.cells = cx.cells;
  const second = harness({}, other);
  expect([second.connect(), second.connect()]).toEqual([undefined, "flush"]);
});

it("can be switched off, also while it runs", () => {
  const runtime_enabled = { default_value: true, runtime_key: "limit" };
  const { cx, connect } = harness({ runtime_enabled });
  connect();
  connect();
  expect(connect()).toBe("flush");
  cx.runtime.replace([["limit", false]]);
  expect(connect()).toBeUndefined();
});

it("refuses fills faster than Envoy's", () => {
  const token_bucket = { max_tokens: 1, tokens_per_fill: 1, fill_interval: 20 };
  expect(() => harness({ token_bucket })).toThrow("shorter than 50 ms");
});
