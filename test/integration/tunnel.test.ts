import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, RawClient } from "./client.ts";
import { accessLog, bootstrap, cluster, http, type Json, listener, tcpProxy } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { tcpUpstream, type Upstream } from "./upstream.ts";

let echo: Upstream;
/** Ends CONNECT requests in connections to the echo. */
let inner: Proxy;
/** Puts its clients' bytes into CONNECT requests to the other. */
let outer: Proxy;
const folder = mkdtempSync(path.join(os.tmpdir(), "tsproxy-tunnel-"));
const log = path.join(folder, "access.log");

const OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const speaks = (protocol: string) => ({
  typed_extension_protocol_options: {
    [OPTIONS]: {
      "@type": `type.googleapis.com/${OPTIONS}`,
      explicit_http_config: { [protocol]: {} },
    },
  },
});

const tunnel = (name: string, tunneling_config: Json) => {
  const filter = tcpProxy(name) as { typed_config: Json };
  return { ...filter, typed_config: { ...filter.typed_config, tunneling_config } };
};

beforeAll(async () => {
  echo = await tcpUpstream((socket) => socket.pipe(socket));
  const ending = (connect_config: Json) => ({
    cluster: "echo",
    upgrade_configs: [{ upgrade_type: "CONNECT", connect_config }],
  });
  const route = (hop: string, connect_config: Json = {}) => ({
    match: { connect_matcher: {}, headers: [{ name: "x-hop", string_match: { exact: hop } }] },
    route: ending(connect_config),
  });
  const posts = { match: { prefix: "/" }, route: ending({ allow_post: true }) };
  const named = route("named", { proxy_protocol_config: { version: "V1" } });
  const options = {
    access_log: [
      accessLog(log, "%UPSTREAM_WIRE_BYTES_SENT% %UPSTREAM_WIRE_BYTES_RECEIVED% %REQ(X-HOP)%\n"),
    ],
    upgrade_configs: [{ upgrade_type: "CONNECT" }],
    http2_protocol_options: { allow_connect: true },
  };
  inner = await Proxy.start({
    args: ["--file-flush-interval-msec", "100"],
    config: bootstrap(
      [listener("connect", http([route("one"), route("two"), named, posts], options))],
      [cluster("echo", [echo.port])],
    ),
  });
  const ports = [inner.port("connect")];
  const says = (value: string) => ({
    hostname: "echo.example:7",
    headers_to_add: [{ header: { key: "x-hop", value } }],
  });
  outer = await Proxy.start({
    config: bootstrap(
      [
        listener("one", tunnel("http1", says("one"))),
        listener("two", tunnel("http2", says("two"))),
        listener("refused", tunnel("http1", says("three"))),
      ],
      [
        cluster("http1", ports, speaks("http_protocol_options")),
        cluster("http2", ports, speaks("http2_protocol_options")),
      ],
    ),
  });
});

afterAll(async () => {
  await outer?.stop();
  await inner?.stop();
  await echo?.close();
  rmSync(folder, { recursive: true, force: true });
});

// Over HTTP/1.1 the client's end cuts off what is still to come.
test.each([
  ["one", false],
  ["two", true],
])("carries a connection through CONNECT: %s", async (name, endsEarly) => {
  const client = await RawClient.connect(outer.port(name));
  client.send("ping");
  await client.until(({ text }) => text === "ping");
  client.send(`${"x".repeat(300_000)}end`);
  if (!endsEarly) await client.until(({ text }) => text.length === 300_007);
  client.end();
  await client.until(({ ended }) => ended);
  expect(client.text.length).toBe(300_007);
  await eventually(
    () => (existsSync(log) ? readFileSync(log, "utf8") : ""),
    (lines) => lines.includes(`300007 300007 ${name}\n`),
    "the bytes in the log",
  );
});

test("carries the body of a POST as bare bytes where the route allows it", async () => {
  const client = await RawClient.connect(inner.port("connect"));
  client.send("POST /any HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nping\r\n");
  await client.until(({ text }) => text.endsWith("4\r\nping\r\n"));
  client.send("0\r\n\r\n");
  await client.until(({ text }) => text.endsWith("0\r\n\r\n"));
  expect(client.text).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
  client.destroy();
});

test("sends a PROXY header that names the client ahead of the bytes of a CONNECT", async () => {
  const client = await RawClient.connect(inner.port("connect"));
  client.send("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\nx-hop: named\r\n\r\nping");
  await client.until(({ text }) => text.endsWith("ping"));
  const port = inner.port("connect");
  expect(client.text).toMatch(
    new RegExp(`\r\n\r\nPROXY TCP4 127\\.0\\.0\\.1 127\\.0\\.0\\.1 \\d+ ${port}\r\nping$`),
  );
  client.destroy();
});

test("ends the client's connection when the other proxy has no route", async () => {
  const client = await RawClient.connect(outer.port("refused"));
  await client.until(({ closed }) => closed);
  expect(client.text).toBe("");
});
