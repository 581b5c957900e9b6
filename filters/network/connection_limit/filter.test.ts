import { stop } from "@tsproxy/sdk";
import { TestConnection, TestContext, withDefaults } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import { Config } from "./config.ts";
import limit from "./filter.ts";

const GONE = { by: "remote", phase: "connected", timeout: false, error: undefined } as const;

function harness(config: object = {}, cx = new TestContext()) {
  const full = withDefaults(Config, { stat_prefix: "in", max_connections: 2, ...config });
  const factory = cx.setup(limit, full);
  const connect = () => {
    const connection = new TestConnection();
    const filter = factory.create(connection, connection.chain);
    const verdict = filter.onConnect?.();
    return { connection, verdict, close: () => filter.onClose?.(GONE) };
  };
  const stat = (name: string) => cx.stats.value(`connection_limit.in.${name}`);
  return { cx, connect, stat };
}

it("closes what comes past the limit, until somebody leaves", () => {
  const { connect, stat } = harness();
  const [a, , c] = [connect(), connect(), connect()];
  expect(c.connection.closed).toBe("flush");
  expect([stat("limited_connections"), stat("active_connections")]).toEqual([1, 3]);
  c.close();
  a.close();
  expect(connect().connection.open).toBe(true);
  expect(stat("active_connections")).toBe(2);
});

it("counts over all workers", () => {
  const { cx, connect } = harness();
  connect();
  const other = new TestContext();
  other.cells = cx.cells;
  const second = harness({}, other);
  expect([second.connect(), second.connect()].map((c) => c.connection.closed)).toEqual([
    undefined,
    "flush",
  ]);
});

it("lets those wait that it will close, and shows nobody what they say", () => {
  const { cx, connect } = harness({ max_connections: 1, delay: 500 });
  connect();
  const { connection, verdict } = connect();
  expect([connection.open, verdict]).toEqual([true, stop]);
  cx.clock.advance(500);
  expect(connection.closed).toBe("flush");
  const gone = connect();
  gone.close();
  expect(cx.clock.armed).toBe(0);
});

it("can be switched off", () => {
  const { connect, stat } = harness({
    max_connections: 1,
    runtime_enabled: { default_value: false, runtime_key: "limit" },
  });
  expect([connect(), connect()].every((c) => c.connection.open)).toBe(true);
  expect(stat("active_connections")).toBe(0);
});
