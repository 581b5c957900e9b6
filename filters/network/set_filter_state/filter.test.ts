import { TestChain, TestConnection, TestContext, withDefaults } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import filter, { Config } from "./filter.ts";

const object = (object_key: string, text: string) => [
  {
    object_key,
    factory_key: "envoy.string",
    format_string: { text_format_source: { inline_string: text } },
  },
];

function chainOf(config: object, connection = new TestConnection()): TestChain {
  const cx = new TestContext();
  return new TestChain(cx, cx.setup(filter, withDefaults(Config, config)), connection);
}

const config = {
  on_new_connection: object("new", "%DOWNSTREAM_REMOTE_ADDRESS%"),
  on_downstream_tls_handshake: object("shaken", "yes"),
  on_downstream_data: object("data", "%FILTER_STATE(new:PLAIN)%"),
};

it("sets objects when the connection is new, and when its first bytes come", async () => {
  const chain = chainOf(config);
  const before = Object.fromEntries(chain.connect().connection.filterState ?? []);
  expect(before).toEqual({ new: "192.0.2.1:40000", shaken: "yes" });
  await chain.fromClient("x").settled();
  expect(chain.connection.filterState?.get("data")).toBe("192.0.2.1:40000");
  expect(chain.passed).toBe("x");
});

it("waits for the TLS handshake", async () => {
  const connection = new TestConnection();
  connection.secure = true;
  const chain = chainOf(config, connection).connect();
  expect(connection.filterState?.has("shaken")).toBe(false);
  await chain.fromClient("x").settled();
  expect(connection.filterState?.get("shaken")).toBe("yes");
});
