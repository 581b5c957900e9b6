import { stop } from "@tsproxy/sdk";
import { LentChunk, TestConnection, TestContext, withDefaults } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import { Config } from "./config.ts";
import rbac from "./filter.ts";

const ANY = [{ any: true }];
const from = (address_prefix: string) => [{ direct_remote_ip: { address_prefix, prefix_len: 32 } }];
const rules = (action: string, principals: object[]) => ({
  action,
  policies: { "the one": { permissions: ANY, principals } },
});

function harness(config: object) {
  const cx = new TestContext();
  const factory = cx.setup(rbac, withDefaults(Config, { stat_prefix: "in", ...config }));
  const connect = () => {
    const connection = new TestConnection();
    const filter = factory.create(connection, connection.chain);
    return { connection, say: () => filter.onData?.(new LentChunk("hi"), false) };
  };
  return { cx, connect, stat: (name: string) => cx.stats.value(`in.rbac.${name}`) };
}

it("closes a connection that is denied when it first says something, and logs tell by which policy", () => {
  const { ip } = new TestConnection().remoteAddress;
  const { connect, stat } = harness({ rules: rules("DENY", from(ip)) });
  const { connection, say } = connect();
  expect(connection.open).toBe(true);
  expect(say()).toBe(stop);
  expect(connection.closed).toBe("abort");
  expect(connection.terminationDetails).toBe("rbac_access_denied_matched_policy[the_one]");
  expect([stat("denied"), stat("allowed")]).toEqual([1, 0]);
});

it("decides once, or at every read", () => {
  const once = harness({ rules: rules("ALLOW", ANY) });
  const a = once.connect();
  a.say();
  a.say();
  expect([a.connection.open, once.stat("allowed")]).toEqual([true, 1]);
  const always = harness({ rules: rules("ALLOW", ANY), enforcement_type: "CONTINUOUS" });
  const b = always.connect();
  b.say();
  b.say();
  expect(always.stat("allowed")).toBe(2);
});

it("keeps a denied client waiting, and shows nobody what it says", () => {
  const { cx, connect } = harness({ rules: rules("ALLOW", from("192.0.2.77")), delay_deny: 500 });
  const { connection, say } = connect();
  expect([say(), say(), connection.open]).toEqual([stop, stop, true]);
  cx.clock.advance(500);
  expect(connection.closed).toBe("abort");
  expect(connection.terminationDetails).toBe("rbac_access_denied_matched_policy[none]");
});

it("counts what shadow rules would do, and lets everything pass without rules", () => {
  const { connect, stat } = harness({ shadow_rules: rules("DENY", ANY) });
  const { connection, say } = connect();
  say();
  expect([connection.open, stat("shadow_denied"), stat("denied")]).toEqual([true, 1, 0]);
});

it("has no headers for rules to match", () => {
  const path = { url_path: { path: { prefix: "/" } } };
  const policies = { p: { permissions: [path], principals: ANY } };
  const { connect } = harness({ rules: { action: "ALLOW", policies } });
  const { connection, say } = connect();
  say();
  expect(connection.open).toBe(false);
});
