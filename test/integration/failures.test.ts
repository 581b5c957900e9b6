import type http from "node:http";
import type net from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { deferred, get, RawClient } from "./client.ts";
import {
  bootstrap,
  cluster,
  http as httpFilter,
  listener,
  route,
  tcpProxy,
  unlimited,
} from "./config.ts";
import { Proxy } from "./proxy.ts";
import { bodyOf, httpUpstream, tcpUpstream, type Upstream } from "./upstream.ts";

let origin: Upstream<http.Server>;
let rawOrigin: Upstream;
let proxy: Proxy;
let answer: http.RequestListener;
let onConnection: (socket: net.Socket) => void;

beforeAll(async () => {
  origin = await httpUpstream((request, response) => answer(request, response));
  rawOrigin = await tcpUpstream((socket) => onConnection(socket));
  proxy = await Proxy.start({
    // Events, commands, segments, slots: one that were lost would stop everything that comes after.
    env: { TSPROXY_RING: "8,8,2,2" },
    config: bootstrap(
      [
        listener("main", httpFilter([route("/raw", "raw"), route("/", "origin")])),
        listener("tcp", tcpProxy("raw")),
      ],
      [cluster("origin", [origin.port], unlimited), cluster("raw", [rawOrigin.port], unlimited)],
    ),
  });
});
afterAll(async () => {
  await proxy?.stop();
  await Promise.all([origin?.close(), rawOrigin?.close()]);
});

/** Everything that counts what is going on counts nothing. */
async function nothingIsGoingOn(): Promise<void> {
  for (const gauge of [
    "http.test.downstream_cx_active",
    "http.test.downstream_rq_active",
    "cluster.origin.upstream_rq_active",
    "cluster.origin.upstream_rq_pending_active",
    "cluster.raw.upstream_rq_active",
    "tcp.tcp.downstream_cx_active",
  ])
    await proxy.untilStat(gauge, 0);
}

test("an upstream that dies in the middle of its body cuts the client off: no complete response is made up", async () => {
  onConnection = (socket) => {
    socket.once("data", () => {
      socket.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this");
    });
  };
  const client = await RawClient.connect(proxy.port("main"));
  client.send("GET /raw HTTP/1.1\r\nhost: x\r\n\r\n");
  await client.untilText("only this");
  for (const socket of rawOrigin.sockets) socket.resetAndDestroy();
  await client.untilClosed();
  expect(client.text.endsWith("only this")).toBe(true);
});

test("the same in a chunked body: the last chunk never comes", async () => {
  onConnection = (socket) => {
    socket.once("data", () => {
      socket.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n");
    });
  };
  const client = await RawClient.connect(proxy.port("main"));
  client.send("GET /raw HTTP/1.1\r\nhost: x\r\n\r\n");
  await client.untilText("part");
  for (const socket of rawOrigin.sockets) socket.end();
  await client.untilClosed();
  expect(client.text).not.toContain("\r\n0\r\n\r\n");
});

test("an upstream that closes before it answers makes a 503", async () => {
  onConnection = (socket) => socket.once("data", () => socket.end());
  const { status, text } = await get(proxy.port("main"), "/raw");
  expect(status).toBe(503);
  expect(text).toContain("reset reason: connection termination");
});

test("an upstream that answers nonsense makes a 502 and is not asked again on that connection", async () => {
  onConnection = (socket) => socket.once("data", () => socket.write("HELLO WORLD\r\n\r\n"));
  const { status } = await get(proxy.port("main"), "/raw");
  expect(status).toBe(502);
});

test("a client that leaves in the middle of its request takes the upstream's half down with it", async () => {
  const cut = deferred<boolean>();
  const started = deferred();
  answer = (request) => {
    request.once("data", () => started.resolve());
    request.on("close", () => cut.resolve(!request.complete));
    request.on("error", () => {});
  };
  const client = await RawClient.connect(proxy.port("main"));
  client.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nthe beginning");
  await started.promise;
  client.destroy();
  expect(await cut.promise).toBe(true);
  await nothingIsGoingOn();
});

test("a client that leaves before the answer is there ends the upstream's request", async () => {
  const asked = deferred();
  const gone = deferred();
  answer = (request) => {
    asked.resolve();
    request.socket.on("close", () => gone.resolve());
  };
  const client = await RawClient.connect(proxy.port("main"));
  client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
  await asked.promise;
  client.destroy();
  await gone.promise;
  await nothingIsGoingOn();
});

test("a response that comes before the whole request ends the exchange, not the proxy", async () => {
  answer = (_, response) => void response.writeHead(413, { connection: "close" }).end("too much");
  const client = await RawClient.connect(proxy.port("main"));
  client.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nstart");
  await client.untilText("too much");
  expect(client.text).toMatch(/^HTTP\/1\.1 413 /);
  client.destroy();
  await nothingIsGoingOn();
});

test("10,000 connections of all kinds of fates leave nothing behind", async () => {
  answer = async (request, response) => {
    await bodyOf(request).catch(() => {});
    response.end("done");
  };
  onConnection = (socket) => void socket.pipe(socket);
  const fates: readonly (() => Promise<void>)[] = [
    async () => {
      const client = await RawClient.connect(proxy.port("main"));
      client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
      await client.untilText("done");
      client.end();
      await client.untilClosed();
    },
    async () => {
      const client = await RawClient.connect(proxy.port("main"));
      client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
      client.socket.resetAndDestroy();
      await client.untilClosed();
    },
    async () => {
      const client = await RawClient.connect(proxy.port("main"));
      client.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\nhalf");
      client.destroy();
      await client.untilClosed();
    },
    async () => {
      const client = await RawClient.connect(proxy.port("main"));
      client.send("not http at all\r\n\r\n");
      await client.untilText("HTTP/1.1 400 Bad Request");
      client.end();
      await client.untilClosed();
    },
    async () => {
      const client = await RawClient.connect(proxy.port("main"));
      client.destroy();
      await client.untilClosed();
    },
    async () => {
      const client = await RawClient.connect(proxy.port("tcp"));
      client.send("echo");
      await client.untilText("echo");
      client.end();
      await client.untilClosed();
    },
  ];
  const total = 10_000;
  let next = 0;
  const crowd = Array.from({ length: 40 }, async () => {
    while (next < total) await fates[next++ % fates.length]!();
  });
  await Promise.all(crowd);
  await nothingIsGoingOn();
  const large = "x".repeat(1_000_000);
  answer = async (request, response) => void response.end(await bodyOf(request));
  const { text } = await get(proxy.port("main"), "/", { method: "POST", body: large });
  expect(text === large).toBe(true);
});
