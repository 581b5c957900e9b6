import type net from "node:net";
import { text } from "node:stream/consumers";
import { expect, test } from "vitest";
import { pairedSockets } from "./paired-sockets.ts";

const closed = (socket: net.Socket) => new Promise<void>((resolve) => socket.on("close", resolve));

test("bytes pass in both directions, and each direction ends by itself", async () => {
  const [one, other] = pairedSockets({});
  one.end("question");
  expect(await text(other)).toBe("question");
  expect(one.destroyed).toBe(false);
  other.end("answer");
  expect(await text(one)).toBe("answer");
  await Promise.all([closed(one), closed(other)]);
});

test("a reader that waits fills the writer, which is told when it has read", async () => {
  const [one, other] = pairedSockets({ highWaterMark: 1000 });
  other.pause();
  const bytes = Buffer.alloc(1_000_000, "x");
  let isWritten = false;
  const written = new Promise<void>((resolve) => {
    expect(one.write(bytes, () => resolve())).toBe(false);
  }).then(() => (isWritten = true));
  await new Promise((resolve) => setImmediate(resolve));
  expect(isWritten).toBe(false);
  one.end();
  expect((await text(other)).length).toBe(bytes.length);
  await written;
  other.end();
  await closed(one);
});

test("what was written before a close arrives; what is written after it is answered by a reset", async () => {
  const [one, other] = pairedSockets({});
  one.write("last words", () => one.destroy());
  expect(await text(other)).toBe("last words");
  const failed = new Promise<NodeJS.ErrnoException>((resolve) => other.on("error", resolve));
  other.write("too late");
  expect((await failed).code).toBe("ECONNRESET");
});

test("a reset ends both, and the writes that wait", async () => {
  const [one, other] = pairedSockets({});
  other.pause();
  const failed = new Promise<NodeJS.ErrnoException>((resolve) => other.on("error", resolve));
  const unwritten = new Promise((resolve) => one.write("lost", resolve));
  one.on("error", () => {});
  one.resetAndDestroy();
  expect((await failed).code).toBe("ECONNRESET");
  expect(await unwritten).toBeInstanceOf(Error);
  expect(one.destroyed && other.destroyed).toBe(true);
});
