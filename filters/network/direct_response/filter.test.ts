import { ConfigError } from "@tsproxy/sdk";
import { TestConnection, TestContext } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import directResponse from "./filter.ts";

function answer(config: unknown): TestConnection {
  const connection = new TestConnection();
  const factory = new TestContext().setup(directResponse, config);
  factory.create(connection, connection.chain).onConnect!();
  return connection;
}

it("writes its text as UTF-8 and closes when it has gone out", () => {
  const connection = answer({ response: { inline_string: "é!" } });
  expect(connection.written).toBe("\u00c3\u00a9!");
  expect([connection.ended, connection.closed]).toEqual([true, "flush"]);
});

it.each([
  ["", ""],
  ["YQ==", "a"],
  ["YWI=", "ab"],
  ["YWJj", "abc"],
  ["__8A", "\u00ff\u00ff\u0000"],
  ["//8AYWI", "\u00ff\u00ff\u0000ab"],
])("decodes the bytes %s", (inline_bytes, text) => {
  expect(answer({ response: { inline_bytes } }).written).toBe(text);
});

it("closes at once when there is nothing to say", () => {
  const connection = answer({});
  expect(connection.written).toBe("");
  expect(connection.closed).toBe("flush");
});

it("refuses what is not base64, and two responses", () => {
  expect(() => answer({ response: { inline_bytes: "a" } })).toThrow(ConfigError);
  expect(() => answer({ response: { inline_bytes: "a*==" } })).toThrow(/is not base64/);
  expect(() => answer({ response: { inline_bytes: "", inline_string: "" } })).toThrow(/keep one/);
});
