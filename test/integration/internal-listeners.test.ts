import { afterEach, expect, test } from "vitest";
import { eventually, get, RawClient } from "./client.ts";
import {
  accessLog,
  cluster,
  direct,
  http,
  internal,
  listener,
  route,
  tcpProxy,
  throughInternalUpstream,
  towards,
} from "./config.ts";
import { InternalProxies, withInternal } from "./internal-proxies.ts";
import { httpUpstream } from "./upstream.ts";

const TYPE = "type.googleapis.com/envoy.extensions.";
const proxies = new InternalProxies();
afterEach(() => proxies.end());

test("a cluster's endpoint may be another listener's filter chain", async () => {
  const proxy = await proxies.start(
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
  proxies.endsWith(() => upstream.close());
  const proxy = await proxies.start(
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

  await proxies.readSlowly(proxy, BODY.length);
});

test("half-closes, ends and resets arrive at the other side", async () => {
  await proxies.passEnds(internal("inner", tcpProxy("origin")), towards("inside", "inner"));
});

test("no such listener is a connection that fails", async () => {
  const proxy = await proxies.start(
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
  const proxy = await proxies.start([main, inner("one")], clusters);
  const ask = async () => (await get(proxy.port("main"), "/")).text;
  expect(await ask()).toBe("one");
  proxy.reconfigure(withInternal([main, inner("two")], clusters));
  await eventually(ask, (text) => text === "two", "the new chain");
  proxy.reconfigure(withInternal([main], clusters));
  await eventually(
    async () => (await get(proxy.port("main"), "/")).status,
    (status) => status === 503,
    "nobody there",
  );
});

test("metadata of the endpoint and of the cluster is the accepted connection's", async () => {
  const proxy = await proxies.start(
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
