import { expect, test } from "vitest";
import { Messages } from "./bench-messages.ts";

const WIRE = [
  "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
  "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
  "HTTP/1.1 429 Too Many\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
  "HTTP/1.1 503 Down\r\ntransfer-encoding: chunked\r\n\r\na;x=1\r\n0123456789\r\n0\r\nx-end: 1\r\n\r\n",
  "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
].join("");
const LINES = [
  "HTTP/1.1 200 OK",
  "HTTP/1.1 204 No Content",
  "HTTP/1.1 429 Too Many",
  "HTTP/1.1 503 Down",
  "GET / HTTP/1.1",
];

test("counts messages however their bytes arrive", () => {
  for (const size of [1, 2, 3, 7, 64, WIRE.length]) {
    const seen: string[] = [];
    const messages = new Messages((line) => seen.push(line));
    for (let at = 0; at < WIRE.length; at += size)
      expect(messages.read(Buffer.from(WIRE.slice(at, at + size)))).toBe(true);
    expect(seen).toEqual(LINES);
  }
});

test("takes no nonsense for a chunk", () => {
  const messages = new Messages(() => {});
  const head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
  expect(messages.read(Buffer.from(`${head}zz\r\n`))).toBe(false);
});
