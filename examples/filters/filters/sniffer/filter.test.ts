import { Chunk, latin1Encode, stop } from "@tsproxy/sdk";
import { TestConnection, TestContext } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import sniffer from "./filter.ts";

const cx = new TestContext();
const factory = cx.setup(sniffer, { allowed: ["http", "tls"] });

function say(...texts: string[]) {
  const connection = new TestConnection();
  const filter = factory.create(connection, connection.chain);
  const results = texts.map((text) => {
    const bytes = latin1Encode(text);
    return filter.onData?.(new Chunk(bytes, 0, bytes.length), false);
  });
  return { results, closed: connection.closed };
}

test("lets what is allowed pass, and counts what it was", () => {
  expect(say("GET / HTTP/1.1\r\n", "x")).toEqual({ results: [undefined, undefined] });
  expect(say("\x16\x03\x01\x02\x00\x01").closed).toBeUndefined();
  expect([cx.stats.value("sniffer.http"), cx.stats.value("sniffer.tls")]).toEqual([1, 1]);
});

test("closes what is not", () => {
  expect(say("SSH-2.0-OpenSSH_9.2\r\n")).toEqual({ results: [stop], closed: "abort" });
  expect(say("hello")).toEqual({ results: [stop], closed: "abort" });
});
