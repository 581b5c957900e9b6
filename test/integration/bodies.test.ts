import { createHash, type Hash } from "node:crypto";
import http from "node:http";
import net from "node:net";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { deferred } from "./client.ts";
import { bootstrap, cluster, http as httpFilter, listener, route, tcpProxy } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { httpUpstream, tcpUpstream, type Upstream } from "./upstream.ts";

const SIZE = 64 * 1024 * 1024;
const PIECE = 64 * 1024;
/** What the proxy may grow by while 64 MB pass through: read slots, socket buffers and the heap's own breath. */
const MAX_GROWTH = 48 * 1024 * 1024;

/** When a writer has been held up for so long, everything between it and the reader is taken to be full. */
const FULL_AFTER_MS = 500;

let upstream: Upstream<http.Server>;
let raw: Upstream;
let proxy: Proxy;
let answer: http.RequestListener;
let onConnection: (socket: net.Socket) => void;

beforeAll(async () => {
  upstream = await httpUpstream((request, response) => answer(request, response));
  raw = await tcpUpstream((socket) => onConnection(socket));
  proxy = await Proxy.start({
    config: bootstrap(
      [listener("main", httpFilter([route("/", "origin")])), listener("tcp", tcpProxy("raw"))],
      [cluster("origin", [upstream.port]), cluster("raw", [raw.port])],
    ),
  });
  await passOnce(8);
});
afterAll(async () => {
  await proxy?.stop();
  await Promise.all([upstream?.close(), raw?.close()]);
});
afterEach(() => proxy.untilStat("http.test.downstream_rq_active", 0));

/** A piece of the body: every one differs, so that none can stand in for another. */
function piece(n: number): Buffer {
  const bytes = Buffer.alloc(PIECE, n & 255);
  for (let at = 0; at < PIECE; at += 64) bytes.writeUInt32LE((n * 1024 + at) >>> 0, at);
  return bytes;
}
function expectedHash(pieces: number): string {
  const hash = createHash("sha1");
  for (let n = 0; n < pieces; n++) hash.update(piece(n));
  return hash.digest("hex");
}
const PIECES = SIZE / PIECE;
const EXPECTED = expectedHash(PIECES);

/**
 * Writes the body as fast as it is taken, or one piece a turn of the loop. `onBlocked`: nothing was taken for so long that
 * everything between here and the reader must be full.
 */
async function writeBody(
  stream: NodeJS.WritableStream,
  { pieces = PIECES, slow = false, onBlocked = () => {} } = {},
): Promise<void> {
  for (let n = 0; n < pieces; n++) {
    if (!stream.write(piece(n))) {
      const drained = new Promise((resolve) => stream.once("drain", resolve));
      const deadline = setTimeout(onBlocked, FULL_AFTER_MS);
      await drained;
      clearTimeout(deadline);
    }
    if (slow) await new Promise((resolve) => setImmediate(resolve));
  }
  stream.end();
}

async function hashOf(stream: NodeJS.ReadableStream): Promise<string> {
  const hash: Hash = createHash("sha1");
  for await (const bytes of stream) hash.update(bytes as Buffer);
  return hash.digest("hex");
}

/** Sends a request and resolves with the response, whose body is not read yet. */
function open(method: string): {
  request: http.ClientRequest;
  response: Promise<http.IncomingMessage>;
} {
  const request = http.request({
    host: "127.0.0.1",
    port: proxy.port("main"),
    method,
    path: "/",
    agent: false,
    headers: method === "GET" ? {} : { "content-length": SIZE },
  });
  const response = new Promise<http.IncomingMessage>((resolve, reject) => {
    request.on("response", resolve);
    request.on("error", reject);
  });
  return { request, response };
}

/** Warms the proxy up, so that what it grows by later is what the bodies cost. */
async function passOnce(pieces: number): Promise<void> {
  answer = (_, response) => void writeBody(response, { pieces });
  const { request, response } = open("GET");
  request.end();
  await hashOf(await response);
}

test("64 MB reach a reader that stops reading until everything before it is full", async () => {
  const before = proxy.rss();
  const full = deferred();
  answer = (_, response) => {
    response.setHeader("content-length", SIZE);
    void writeBody(response, { onBlocked: full.resolve });
  };
  const { request, response } = open("GET");
  request.end();
  const message = await response;
  await full.promise;
  expect(proxy.rss() - before).toBeLessThan(MAX_GROWTH);
  expect(await hashOf(message)).toBe(EXPECTED);
  expect(proxy.rss() - before).toBeLessThan(MAX_GROWTH);
});

test("64 MB in chunks, without a length, arrive byte for byte", async () => {
  answer = (_, response) => void writeBody(response, { slow: true });
  const { request, response } = open("GET");
  request.end();
  const message = await response;
  expect(message.headers["transfer-encoding"]).toBe("chunked");
  expect(await hashOf(message)).toBe(EXPECTED);
});

test("64 MB from a writer that is slower than the upstream reads arrive byte for byte", async () => {
  const got = deferred<string>();
  answer = async (request, response) => {
    got.resolve(await hashOf(request));
    response.end("ok");
  };
  const { request, response } = open("POST");
  await writeBody(request, { slow: true });
  expect(await got.promise).toBe(EXPECTED);
  expect((await response).statusCode).toBe(200);
  (await response).resume();
});

test("64 MB to an upstream that reads late do not pile up in the proxy", async () => {
  const before = proxy.rss();
  const full = deferred();
  const got = deferred<string>();
  answer = async (request, response) => {
    await full.promise;
    got.resolve(await hashOf(request));
    response.end("ok");
  };
  const { request, response } = open("POST");
  const written = writeBody(request, { onBlocked: full.resolve });
  await full.promise;
  expect(proxy.rss() - before).toBeLessThan(MAX_GROWTH);
  await written;
  expect(await got.promise).toBe(EXPECTED);
  (await response).resume();
});

test("64 MB echoed through tcp_proxy, in both directions at once, arrive byte for byte", async () => {
  onConnection = (socket) => void socket.pipe(socket);
  const socket = net.connect({ port: proxy.port("tcp"), host: "127.0.0.1", allowHalfOpen: true });
  const echoed = hashOf(socket);
  await writeBody(socket);
  expect(await echoed).toBe(EXPECTED);
  await proxy.untilStat("tcp.tcp.downstream_cx_active", 0);
});
