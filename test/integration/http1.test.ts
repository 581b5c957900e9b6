import http from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { deferred, get, RawClient } from "./client.ts";
import { bootstrap, cluster, http as httpFilter, listener, route } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { bodyOf, httpUpstream, type Upstream } from "./upstream.ts";

let upstream: Upstream<http.Server>;
let proxy: Proxy;
/** What the upstream does with the request of the test in hand. */
let answer: http.RequestListener = (_, response) => void response.end();

beforeAll(async () => {
  upstream = await httpUpstream((request, response) => answer(request, response));
  const trailers = { http_protocol_options: { enable_trailers: true } };
  const options = {
    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    explicit_http_config: trailers,
  };
  proxy = await Proxy.start({
    config: bootstrap(
      [
        listener("main", httpFilter([route("/", "origin")], trailers)),
        listener("interim", httpFilter([route("/", "origin")], { proxy_100_continue: true })),
      ],
      [
        cluster("origin", [upstream.port], {
          typed_extension_protocol_options: {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options,
          },
        }),
      ],
    ),
  });
});
afterAll(async () => {
  await proxy?.stop();
  await upstream?.close();
});

test("HEAD is answered with the length of the body and without the body", async () => {
  answer = (request, response) => {
    response.setHeader("content-length", 11);
    response.end(request.method === "HEAD" ? undefined : "hello world");
  };
  const client = await RawClient.connect(proxy.port("main"));
  client.send(
    "HEAD / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
  );
  await client.untilClosed();
  const [head, full, ...rest] = client.text.split("HTTP/1.1 200 OK\r\n").slice(1);
  expect(rest).toEqual([]);
  expect(head).toMatch(/content-length: 11\r\n[^]*\r\n\r\n$/);
  expect(full).toMatch(/\r\n\r\nhello world$/);
});

test("chunked bodies pass in both directions, piece by piece", async () => {
  const sawFirst = deferred();
  answer = (request, response) => {
    response.flushHeaders();
    request.on("data", (piece: Buffer) => {
      if (piece.toString().includes("first")) sawFirst.resolve();
      response.write(piece.toString().toUpperCase());
    });
    request.on("end", () => response.end());
  };
  const client = await RawClient.connect(proxy.port("main"));
  client.send("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
  await sawFirst.promise;
  await client.untilText("FIRST");
  expect(client.text).toContain("transfer-encoding: chunked");
  client.send("6;ext=1\r\nsecond\r\n0\r\n\r\n");
  await client.untilText("\r\n0\r\n\r\n");
  expect(client.text).toContain("SECOND");
  client.destroy();
});

test("trailers pass in both directions", async () => {
  answer = async (request, response) => {
    await bodyOf(request);
    response.writeHead(200, { trailer: "x-sum", "x-got": String(request.trailers["x-count"]) });
    response.write("body");
    response.addTrailers({ "x-sum": "42" });
    response.end();
  };
  const client = await RawClient.connect(proxy.port("main"));
  client.send(
    "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntrailer: x-count\r\n\r\n" +
      "2\r\nab\r\n0\r\nx-count: 7\r\n\r\n",
  );
  await client.untilText("x-sum: 42\r\n\r\n");
  expect(client.text).toContain("x-got: 7");
  client.destroy();
});

test("100-continue: the body is asked for before it is sent", async () => {
  answer = async (request, response) => void response.end((await bodyOf(request)).toString());
  const client = await RawClient.connect(proxy.port("main"));
  client.send("POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
  await client.untilText("HTTP/1.1 100 Continue\r\n\r\n");
  client.send("hello");
  await client.untilText("\r\n\r\nhello");
  expect(client.text).toContain("HTTP/1.1 200 OK");
  client.destroy();
});

test("with proxy_100_continue an interim response passes before the final one is there", async () => {
  const seen = deferred();
  answer = (_, response) => {
    response.writeEarlyHints({ link: "</style.css>; rel=preload" });
    seen.promise.then(() => response.end("done"));
  };
  const client = await RawClient.connect(proxy.port("interim"));
  client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
  await client.untilText("HTTP/1.1 103 Unknown\r\n");
  await client.untilText("link: </style.css>; rel=preload\r\n");
  expect(client.text).not.toContain("HTTP/1.1 200");
  seen.resolve();
  await client.untilText("\r\n\r\ndone");
  client.destroy();
});

test("without it the client sees the final response alone, as behind Envoy", async () => {
  answer = (_, response) => {
    response.writeEarlyHints({ link: "</style.css>; rel=preload" });
    response.end("done");
  };
  const client = await RawClient.connect(proxy.port("main"));
  client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
  await client.untilText("\r\n\r\ndone");
  expect(client.text).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
  client.destroy();
});

test("one connection serves request after request, and so does the one upstream", async () => {
  answer = (request, response) => void response.end(request.url);
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  await get(proxy.port("main"), "/warm", { agent });
  const before = upstream.accepted();
  const connections = await proxy.stat("http.test.downstream_cx_total");
  for (let n = 0; n < 50; n++)
    expect((await get(proxy.port("main"), `/${n}`, { agent })).text).toBe(`/${n}`);
  expect(upstream.accepted()).toBe(before);
  expect(await proxy.stat("http.test.downstream_cx_total")).toBe(connections);
  agent.destroy();
});

test("a request of HTTP/1.0 is told to upgrade, and its connection is closed", async () => {
  const client = await RawClient.connect(proxy.port("main"));
  client.send("GET / HTTP/1.0\r\nhost: x\r\n\r\n");
  await client.untilClosed();
  expect(client.text).toMatch(/^HTTP\/1\.1 426 Upgrade Required\r\n/);
});

test("1,000 pipelined requests in pieces of 7 bytes are answered in order", async () => {
  answer = async (request, response) => {
    const body = await bodyOf(request);
    response.end(`<${request.url} ${body}>`);
  };
  const requests: string[] = [];
  const expected: string[] = [];
  for (let n = 0; n < 1000; n++) {
    const body = n % 3 === 0 ? `body ${n}` : "";
    const framing =
      n % 6 === 0
        ? `transfer-encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`
        : `content-length: ${body.length}\r\n\r\n${body}`;
    requests.push(`POST /${n} HTTP/1.1\r\nhost: x\r\n${framing}`);
    expected.push(`</${n} ${body}>`);
  }
  const bytes = requests.join("");
  const client = await RawClient.connect(proxy.port("main"));
  for (let at = 0; at < bytes.length; at += 7) {
    // A piece a turn, so that pieces also arrive one by one.
    if (at % 700 === 0) await new Promise((resolve) => setImmediate(resolve));
    client.send(bytes.slice(at, at + 7));
  }
  await client.untilText(expected.at(-1)!);
  expect([...client.text.matchAll(/<\/[^>]*>/g)].map(String)).toEqual(expected);
  client.destroy();
});
