import { createHash } from "node:crypto";
import type http from "node:http";
import type { Duplex } from "node:stream";
import { afterAll, beforeAll, expect, test } from "vitest";
import { echoWebSocket } from "../../examples/websocket.ts";
import { deferred, eventually, RawClient } from "./client.ts";
import { accessLog, bootstrap, cluster, http as httpFilter, listener, route } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { httpUpstream, type Upstream } from "./upstream.ts";

let upstream: Upstream<http.Server>;
let proxy: Proxy;
let onUpgrade: (request: http.IncomingMessage, socket: Duplex, head: Buffer) => void =
  echoWebSocket;

const LINE = "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n";

beforeAll(async () => {
  upstream = await httpUpstream(
    (_, response) => void response.writeHead(404).end("no upgrade here"),
  );
  upstream.server.on("upgrade", (request, socket, head) => onUpgrade(request, socket, head));
  const upgrades = { upgrade_configs: [{ upgrade_type: "websocket" }] };
  proxy = await Proxy.start({
    args: ["--file-flush-interval-msec", "50"],
    config: bootstrap(
      [
        listener(
          "main",
          httpFilter(
            [route("/off", "origin"), route("/", "origin", { ...upgrades, timeout: "0s" })],
            { access_log: [accessLog("/dev/stdout", LINE)] },
          ),
        ),
      ],
      [cluster("origin", [upstream.port])],
    ),
  });
});
afterAll(async () => {
  await proxy?.stop();
  await upstream?.close();
});

const handshake = (path: string) =>
  `GET ${path} HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: Upgrade\r\n` +
  "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";

/** Answers the handshake and hands the bytes of both directions to the test. */
function raw(onBytes: (socket: Duplex, text: string) => void) {
  return (request: http.IncomingMessage, socket: Duplex, head: Buffer) => {
    expect(request.headers.upgrade).toBe("websocket");
    socket.on("error", () => socket.destroy());
    socket.write(
      "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n",
    );
    if (head.length > 0) onBytes(socket, head.toString());
    socket.on("data", (piece: Buffer) => onBytes(socket, piece.toString()));
    // A half that nobody closes keeps the tunnel.
    socket.on("end", () => socket.end());
  };
}

test("a WebSocket client and an echo talk through the proxy", async () => {
  onUpgrade = echoWebSocket;
  const socket = new WebSocket(`ws://127.0.0.1:${proxy.port("main")}/chat`);
  const opened = deferred();
  const messages: string[] = [];
  const all = deferred();
  const large = "x".repeat(200_000);
  socket.onopen = () => opened.resolve();
  socket.onerror = () => opened.reject(new Error("the handshake failed"));
  socket.onmessage = ({ data }) => {
    messages.push(data);
    if (messages.length === 3) all.resolve();
  };
  await opened.promise;
  for (const message of ["hello", large, "ünïcode"]) socket.send(message);
  await all.promise;
  expect(messages.map(hash)).toEqual(["hello", large, "ünïcode"].map(hash));
  const closed = deferred<number>();
  socket.onclose = ({ code }) => closed.resolve(code);
  socket.close(1000);
  expect(await closed.promise).toBe(1000);
  await proxy.untilStat("http.test.downstream_cx_upgrades_active", 0);
});

test("after the handshake, bytes of any kind pass in both directions, the server's first ones too", async () => {
  onUpgrade = raw((socket, text) => socket.write(`got ${text}`));
  const client = await RawClient.connect(proxy.port("main"));
  // Sent with the handshake, before the answer is there.
  client.send(`${handshake("/raw")}early`);
  await client.untilText("got early");
  expect(client.text).toMatch(/^HTTP\/1\.1 101 Switching Protocols\r\n/);
  client.send("\x00\xff late");
  await client.untilText("late");
  client.destroy();
});

test("the Connection lines of the handshake and of its answer stay where they stood", async () => {
  let names: string[] = [];
  onUpgrade = (request, socket, head) => {
    names = request.rawHeaders.filter((_, k) => k % 2 === 0);
    raw(() => {})(request, socket, head);
  };
  const client = await RawClient.connect(proxy.port("main"));
  client.send(handshake("/order"));
  await client.untilText("\r\n\r\n");
  expect(names.slice(0, 4)).toEqual(["host", "upgrade", "connection", "sec-websocket-key"]);
  expect(client.text).toMatch(/^HTTP.*\r\nupgrade: websocket\r\nconnection: Upgrade\r\ndate: /);
  client.destroy();
});

test("a client's FIN delivers what it sent before and ends both connections", async () => {
  const finished = deferred<string>();
  onUpgrade = (request, socket, head) => {
    let text = "";
    raw((_, piece) => (text += piece))(request, socket, head);
    socket.on("close", () => finished.resolve(text));
  };
  const client = await RawClient.connect(proxy.port("main"));
  client.send(handshake("/half"));
  await client.untilText("\r\n\r\n");
  client.send("all that I have to say");
  client.end();
  expect(await finished.promise).toBe("all that I have to say");
  await client.untilClosed();
});

test("a server's FIN delivers what it sent before and ends both connections", async () => {
  const last = "x".repeat(100_000);
  onUpgrade = raw((socket) => void socket.end(`${last} the last word`));
  const client = await RawClient.connect(proxy.port("main"));
  client.send(`${handshake("/last")}go`);
  await client.untilEnded();
  expect(client.text.endsWith(`${last} the last word`)).toBe(true);
  client.destroy();
  // As in Envoy, this is a connection that was lost.
  const line = "/last 101 UC upstream_reset_after_response_started{connection_termination}";
  await eventually(
    () => proxy.stdout,
    (text) => text.includes(line),
    "the log line",
  );
});

test("the upstream's refusal of the handshake is an ordinary response", async () => {
  onUpgrade = (_, socket) => socket.end("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
  const client = await RawClient.connect(proxy.port("main"));
  client.send(handshake("/refused"));
  await client.untilText("\r\n\r\nno");
  expect(client.text).toMatch(/^HTTP\/1\.1 403 Forbidden\r\n/);
  client.destroy();
});

test("a route without the upgrade refuses it, and the upstream never hears of it", async () => {
  let asked = false;
  onUpgrade = () => (asked = true);
  const client = await RawClient.connect(proxy.port("main"));
  client.send(handshake("/off"));
  await client.until((c) => /^HTTP\/1\.1 \d{3}/.test(c.text));
  expect(client.text).toMatch(/^HTTP\/1\.1 403 Forbidden\r\n/);
  expect(asked).toBe(false);
  client.destroy();
});

function hash(text: string): string {
  return createHash("sha1").update(text).digest("hex");
}
