import net from "node:net";
import { afterEach, expect, test } from "vitest";
import { deferred, eventually, get, RawClient } from "./client.ts";
import {
  accessLog,
  bootstrap,
  cluster,
  direct,
  http,
  INTERNAL_LISTENERS,
  internal,
  type Json,
  listener,
  route,
  tcpProxy,
  throughInternalUpstream,
  towards,
} from "./config.ts";
import { Proxy } from "./proxy.ts";
import { httpUpstream, tcpUpstream } from "./upstream.ts";

const TYPE = "type.googleapis.com/envoy.extensions.";
const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function start(listeners: readonly Json[], clusters: readonly Json[]): Promise<Proxy> {
  const config = { bootstrap_extensions: [INTERNAL_LISTENERS], ...bootstrap(listeners, clusters) };
  const proxy = await Proxy.start({ config });
  ends.push(() => proxy.stop());
  return proxy;
}

test("a cluster's endpoint may be another listener's filter chain", async () => {
  const proxy = await start(
    [
      listener("main", http([route("/", "inside")])),
      internal("inner", http([direct("/", "from inside\n")], { stat_prefix: "inner" })),
    ],
    [towards("inside", "inner")],
  );
  for (let n = 0; n < 3; n++)
    expect(await get(proxy.port("main"), "/")).toMatchObject({
      status: 200,
      text: "from inside\n",
    });
  const stat = await proxy.stats();
  expect(stat("listener.envoy_internal_inner.downstream_cx_total")).toBe(1);
  expect(stat("http.inner.downstream_rq_2xx")).toBe(3);
  expect(await proxy.admin("/listeners")).toContain("inner::envoy://inner/\n");
  expect(await proxy.admin("/clusters")).toContain("inside::envoy://inner/one::rq_success::3");
});

test("large bodies pass in both directions, and a slow reader slows the writer down", async () => {
  const BODY = Buffer.alloc(32 << 20, "x");
  const upstream = await httpUpstream((request, response) => {
    let bytes = 0;
    request.on("data", (piece: Buffer) => (bytes += piece.length));
    request.on("end", () => response.end(request.method === "POST" ? String(bytes) : BODY));
  });
  ends.push(() => upstream.close());
  const proxy = await start(
    [
      listener("main", http([route("/", "inside")])),
      internal("inner", tcpProxy("more")),
      internal("innermost", tcpProxy("origin")),
    ],
    [towards("inside", "inner"), towards("more", "innermost"), cluster("origin", [upstream.port])],
  );
  const port = proxy.port("main");
  const got = await get(port, "/");
  expect(got.text.length).toBe(BODY.length);
  const posted = await get(port, "/", { method: "POST", body: BODY });
  expect(posted.text).toBe(String(BODY.length));

  const slow = net.connect(port, "127.0.0.1");
  ends.push(async () => slow.destroy());
  slow.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
  await new Promise((resolve) => slow.once("readable", resolve));
  // Each hop holds what its watermarks allow, and the upstream is told to wait before it has sent all.
  await eventually(
    () => proxy.stat("cluster.origin.upstream_flow_control_paused_reading_total"),
    (paused) => paused > 0,
    "the upstream is paused",
  );
  let bytes = 0;
  slow.on("data", (piece: Buffer) => (bytes += piece.length));
  await eventually(
    async () => bytes,
    (n) => n > BODY.length,
    "all of it in the end",
  );
});

test("half-closes, ends and resets arrive at the other side", async () => {
  const seen = deferred<string>();
  const closed = deferred<void>();
  const upstream = await tcpUpstream((socket) => {
    let text = "";
    socket.on("data", (piece: Buffer) => (text += piece));
    socket.on("end", () => {
      seen.resolve(text);
      socket.end("after your end\n");
    });
    socket.on("close", () => closed.resolve());
  });
  ends.push(() => upstream.close());
  const proxy = await start(
    [listener("main", tcpProxy("inside")), internal("inner", tcpProxy("origin"))],
    [towards("inside", "inner"), cluster("origin", [upstream.port])],
  );
  const client = net.connect({ port: proxy.port("main"), host: "127.0.0.1", allowHalfOpen: true });
  client.end("before\n");
  expect(await seen.promise).toBe("before\n");
  let answer = "";
  for await (const piece of client) answer += piece;
  expect(answer).toBe("after your end\n");
  await closed.promise;
  await proxy.untilStat("listener.envoy_internal_inner.downstream_cx_active", 0);
  await proxy.untilStat("cluster.inside.upstream_cx_active", 0);

  const other = net.connect(proxy.port("main"), "127.0.0.1");
  await eventually(
    () => proxy.stat("cluster.origin.upstream_cx_active"),
    (n) => n === 1,
    "connected",
  );
  other.resetAndDestroy();
  await proxy.untilStat("listener.envoy_internal_inner.downstream_cx_active", 0);
  await proxy.untilStat("cluster.origin.upstream_cx_active", 0);
});

test("no such listener is a connection that fails", async () => {
  const proxy = await start(
    [listener("main", http([route("/", "inside")]))],
    [towards("inside", "nobody")],
  );
  const { status, text } = await get(proxy.port("main"), "/");
  expect(status).toBe(503);
  expect(text).toContain("remote connection failure");
  expect(await proxy.stat("cluster.inside.upstream_cx_connect_fail")).toBe(1);
});

test("an edit replaces an internal listener's chain; one that takes it away leaves connections that fail", async () => {
  const main = listener("main", http([route("/", "inside")]));
  // A kept connection would serve on for as long as the drain takes.
  const clusters = [towards("inside", "inner", { max_requests_per_connection: 1 })];
  const inner = (text: string) => internal("inner", http([direct("/", text)]));
  const proxy = await start([main, inner("one")], clusters);
  const ask = async () => (await get(proxy.port("main"), "/")).text;
  expect(await ask()).toBe("one");
  proxy.reconfigure({
    bootstrap_extensions: [INTERNAL_LISTENERS],
    ...bootstrap([main, inner("two")], clusters),
  });
  await eventually(ask, (text) => text === "two", "the new chain");
  proxy.reconfigure({ bootstrap_extensions: [INTERNAL_LISTENERS], ...bootstrap([main], clusters) });
  await eventually(
    async () => (await get(proxy.port("main"), "/")).status,
    (status) => status === 503,
    "nobody there",
  );
});

test("metadata of the endpoint and of the cluster is the accepted connection's", async () => {
  const proxy = await start(
    [
      listener("main", tcpProxy("inside")),
      internal(
        "inner",
        {
          name: "envoy.filters.network.echo",
          typed_config: { "@type": `${TYPE}filters.network.echo.v3.Echo` },
        },
        {
          access_log: [
            accessLog(
              "/dev/stdout",
              "%DYNAMIC_METADATA(of-host:to)% %DYNAMIC_METADATA(of-cluster)% %DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID%\n",
            ),
          ],
        },
      ),
    ],
    [
      towards(
        "inside",
        "inner",
        {
          metadata: { filter_metadata: { "of-cluster": { a: 1 } } },
          transport_socket: throughInternalUpstream(
            {
              name: "envoy.transport_sockets.raw_buffer",
              typed_config: { "@type": `${TYPE}transport_sockets.raw_buffer.v3.RawBuffer` },
            },
            [
              { kind: { host: {} }, name: "of-host" },
              { kind: { cluster: {} }, name: "of-cluster" },
              { kind: { host: {} }, name: "of-nobody" },
            ],
          ),
        },
        { metadata: { filter_metadata: { "of-host": { to: "there" } } } },
      ),
    ],
  );
  const client = await RawClient.connect(proxy.port("main"));
  client.send("ping");
  await client.untilText("ping");
  client.destroy();
  await proxy.untilStat("listener.envoy_internal_inner.downstream_cx_active", 0);
  expect(await proxy.stat("cluster.inside.internal_upstream.no_metadata")).toBe(1);
  proxy.signal("SIGUSR1");
  await proxy.untilStdout((text) =>
    text.includes('there {"a":1} envoy://internal_client_address/ envoy://inner/one one\n'),
  );
});
