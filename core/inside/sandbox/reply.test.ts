import { latin1Decode, latin1Encode, reply } from "@tsproxy/sdk";
import { expect, it } from "vitest";
import { readReply } from "../parked-head.ts";
import { measureReply, writeReply } from "./reply.ts";

it("carries all of a reply to the other side, and nothing that it does not say", () => {
  const words = new Int32Array(256);
  const memory = new Uint8Array(words.buffer);
  const put = (text: string, at: number) => {
    memory.set(latin1Encode(text), at);
    return at + text.length;
  };
  const bare = reply(204);
  const full = reply(429, {
    body: "slow",
    headers: [
      ["x-a", "1"],
      ["x-b", ""],
    ],
    flags: ["RL", "DI"],
    details: "too_fast",
    contentType: "text/x",
    grpcStatus: 8,
  });
  for (const said of [bare, full]) {
    const size = measureReply(said);
    writeReply(words, 16, said, put);
    const body = said.body as string;
    expect(readReply(said.status, body, words, memory, 16, 16 + size)).toEqual(said);
    expect(latin1Decode(memory, 16 + size, 16 + size + 4)).toBe("\0\0\0\0");
    memory.fill(0);
  }
});
