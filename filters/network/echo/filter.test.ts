import { Chunk, latin1Encode } from "@tsproxy/sdk";
import { TestConnection, TestContext } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import echo from "./filter.ts";

function open() {
  const connection = new TestConnection();
  const filter = new TestContext().setup(echo, {}).create(connection, connection.chain);
  const send = (text: string, endStream = false) => {
    const bytes = latin1Encode(`<${text}>`);
    filter.onData!(new Chunk(bytes, 1, bytes.length - 1), endStream);
  };
  return { connection, filter, send };
}

it("sends back what it gets, byte for byte", () => {
  const { connection, send } = open();
  send("a\u00ff\u0000");
  send("b");
  expect(connection.written).toBe("a\u00ff\u0000b");
  expect(connection.closed).toBeUndefined();
});

it("closes after the last byte when the client ends its half", () => {
  const { connection, send } = open();
  send("last", true);
  expect(connection.written).toBe("last");
  expect(connection.closed).toBe("flush");
});

it("does not read while the client does not", () => {
  const { connection, filter, send } = open();
  connection.blocked = true;
  send("a");
  send("b");
  expect(connection.pauses).toBe(1);
  connection.blocked = false;
  filter.onDrained!();
  expect(connection.pauses).toBe(0);
});
