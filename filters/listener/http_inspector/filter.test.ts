import { type AcceptedSocket, Chunk, type ListenerFilterFactory } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import httpInspector from "./filter.ts";

/** Gives the text byte by byte; tells the verdict, how many bytes it took, and what was found. */
function inspect(text: string, transportProtocol = "raw_buffer") {
  const cx = new TestContext();
  const factory = cx.setup(httpInspector, {}) as ListenerFilterFactory;
  const socket: AcceptedSocket = {
    remoteAddress: { ip: "192.0.2.1", port: 1 },
    localAddress: { ip: "192.0.2.2", port: 2 },
    transportProtocol,
    serverName: "",
    applicationProtocols: [],
  };
  const filter = factory(socket);
  const bytes = Buffer.from(text, "latin1");
  for (let n = 0; n <= bytes.length; n++) {
    const verdict = filter.onBytes(new Chunk(bytes, 0, n));
    if (verdict !== "more") return { verdict, n, found: socket.applicationProtocols, cx };
  }
  return { verdict: "more", n: bytes.length, found: socket.applicationProtocols, cx };
}

test("knows each HTTP by its first line", () => {
  expect(inspect("GET / HTTP/1.1\r\nhost: a\r\n")).toMatchObject({
    verdict: 0,
    n: 16,
    found: ["http/1.1"],
  });
  for (const line of ["GET / HTTP/1.0", "GET / HTTP/3.0", "GET /", "CONNECT a:1 HTTP/1.0"])
    expect(inspect(`${line}\r\n`).found).toEqual(["http/1.0"]);
  expect(inspect("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")).toMatchObject({ n: 24, found: ["h2c"] });
  expect(inspect(`${"M".repeat(64)} / HTTP/1.1\r\n`).found).toEqual(["http/1.1"]);
  expect(inspect(`GET /${"a".repeat(5000)} HTTP/1.1\r\n`).found).toEqual(["http/1.1"]);
  expect(inspect("GET / HTTP/1.1\r\n").cx.stats.value("http_inspector.http11_found")).toBe(1);
});

test("gives up on what is none", () => {
  const long = "M".repeat(65);
  for (const text of [
    "\x16\x03",
    "HELO example\n",
    " GET / HTTP/1.1\r\n",
    "GET\r\n",
    "GET / http/1.1\r\n",
    long,
    `${long} / HTTP/1.1\r\n`,
  ])
    expect(inspect(text), text).toMatchObject({ verdict: 0, found: [] });
  expect(inspect("SSH-2.0-x\n").cx.stats.value("http_inspector.http_not_found")).toBe(1);
});

test("closes a connection whose first line has no end within 64 KiB", () => {
  const { verdict, cx } = inspect(`GET /${"a".repeat(70_000)}`);
  expect(verdict).toBe("close");
  expect(cx.stats.value("http_inspector.read_error")).toBe(1);
});

test("waits for a line that is not there yet", () => {
  expect(inspect("GET / HTTP/1.").verdict).toBe("more");
  expect(inspect("PRI * HT").verdict).toBe("more");
});

test("leaves TLS to ALPN", () => {
  expect(inspect("GET / HTTP/1.1\r\n", "tls")).toMatchObject({ verdict: 0, n: 0, found: [] });
});
