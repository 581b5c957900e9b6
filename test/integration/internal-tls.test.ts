import http2 from "node:http2";
import type net from "node:net";
import tls from "node:tls";
import { afterAll, afterEach, expect, test } from "vitest";
import { Authority } from "./certificates.ts";
import { get } from "./client.ts";
import {
  accessLog,
  cluster,
  direct,
  downstreamTls,
  http,
  internal,
  type Json,
  listener,
  route,
  tcpProxy,
  throughInternalUpstream,
  towards,
} from "./config.ts";
import { InternalProxies } from "./internal-proxies.ts";
import { bodyOf, httpUpstream } from "./upstream.ts";

const TYPE = "type.googleapis.com/envoy.extensions.";
const authority = new Authority();
const a = authority.issue("a", "a.test", "DNS:a.test");
afterAll(() => authority.dispose());
const proxies = new InternalProxies();
afterEach(() => proxies.end());

const toA: Json = {
  name: "tls",
  typed_config: {
    "@type": `${TYPE}transport_sockets.tls.v3.UpstreamTlsContext`,
    sni: "a.test",
    common_tls_context: {
      validation_context: {
        trusted_ca: { filename: authority.root.certificate },
        match_typed_subject_alt_names: [{ san_type: "DNS", matcher: { exact: "a.test" } }],
      },
    },
  },
};
const secured = (filter: Json, more: Json = {}): Json => ({
  filter_chains: [{ filters: [filter], transport_socket: downstreamTls(a), ...more }],
});

test("TLS from a cluster to an internal listener carries bodies of any size, and a slow reader slows the writer down", async () => {
  const BODY = Buffer.alloc(32 << 20, "x");
  const upstream = await httpUpstream(async (request, response) => {
    const { length } = await bodyOf(request);
    response.end(request.method === "POST" ? String(length) : BODY);
  });
  proxies.endsWith(() => upstream.close());
  const proxy = await proxies.start(
    [
      listener("main", http([route("/", "inside")])),
      {
        ...internal("inner", http([route("/", "origin")])),
        ...secured(http([route("/", "origin")])),
      },
    ],
    [towards("inside", "inner", { transport_socket: toA }), cluster("origin", [upstream.port])],
  );
  const port = proxy.port("main");
  expect((await get(port, "/")).body.equals(BODY)).toBe(true);
  expect((await get(port, "/", { method: "POST", body: BODY })).text).toBe(String(BODY.length));
  expect(await proxy.stat("listener.envoy_internal_inner.ssl.handshake")).toBe(1);
  expect(await proxy.stat("cluster.inside.ssl.handshake")).toBe(1);

  await proxies.readSlowly(proxy, BODY.length);
});

test("internal_upstream passes metadata on around TLS, and HTTP/2 is agreed on inside", async () => {
  const inner = http([direct("/", "inside\n")], { stat_prefix: "inner" });
  const log = accessLog(
    "/dev/stdout",
    "inner %DYNAMIC_METADATA(tunnel:to)% %DOWNSTREAM_TLS_VERSION%\n",
  );
  const proxy = await proxies.start(
    [
      listener("main", http([route("/", "inside")])),
      { ...internal("inner", inner), ...secured(inner), access_log: [log] },
    ],
    [
      towards(
        "inside",
        "inner",
        {
          transport_socket: throughInternalUpstream(toA, [{ kind: { host: {} }, name: "tunnel" }]),
          typed_extension_protocol_options: {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
              "@type": `${TYPE}upstreams.http.v3.HttpProtocolOptions`,
              auto_config: {},
              // Then it closes, and is logged.
              common_http_protocol_options: { max_requests_per_connection: 3 },
            },
          },
        },
        { metadata: { filter_metadata: { tunnel: { to: "there" } } } },
      ),
    ],
  );
  for (let n = 0; n < 3; n++) expect((await get(proxy.port("main"), "/")).text).toBe("inside\n");
  expect(await proxy.stat("http.inner.downstream_cx_http2_total")).toBe(1);
  await proxy.untilStat("listener.envoy_internal_inner.downstream_cx_active", 0);
  proxy.signal("SIGUSR1");
  await proxy.untilStdout((text) => text.includes("inner there TLSv1.2\n"));
});

test("an internal listener may leave the TLS of its clients to the upstream behind it", async () => {
  const server = http2.createSecureServer({ cert: a.pem, key: a.keyPem, allowHTTP1: true });
  server.on("request", (_request, response) => response.end("from the origin\n"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  proxies.endsWith(() => server.close());
  const { port } = server.address() as net.AddressInfo;
  const proxy = await proxies.start(
    [listener("main", http([route("/", "inside")])), internal("inner", tcpProxy("origin"))],
    [towards("inside", "inner", { transport_socket: toA }), cluster("origin", [port])],
  );
  expect((await get(proxy.port("main"), "/")).text).toBe("from the origin\n");
});

test("an internal listener may decrypt what a client outside encrypts, chosen by its server name", async () => {
  const inspector = {
    name: "envoy.filters.listener.tls_inspector",
    typed_config: { "@type": `${TYPE}filters.listener.tls_inspector.v3.TlsInspector` },
  };
  const proxy = await proxies.start(
    [
      listener("main", tcpProxy("inside")),
      {
        ...internal("inner", http([direct("/", "decrypted\n")])),
        ...secured(http([direct("/", "decrypted\n")]), {
          filter_chain_match: { server_names: ["a.test"] },
        }),
        listener_filters: [inspector],
      },
    ],
    [towards("inside", "inner")],
  );
  const port = proxy.port("main");
  const ask = (servername: string) =>
    new Promise<string>((resolve) => {
      let text = "";
      const client = tls.connect({ port, host: "127.0.0.1", servername, ca: authority.root.pem });
      client.on("secureConnect", () =>
        client.write("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"),
      );
      client.on("data", (piece: Buffer) => (text += piece));
      client.on("error", () => {});
      client.on("close", () => resolve(text));
    });
  expect(await ask("a.test")).toContain("decrypted\n");
  expect(await ask("b.test")).toBe("");
  expect(await proxy.stat("listener.envoy_internal_inner.no_filter_chain_match")).toBe(1);
});

test("half-closes, ends and resets arrive at the other side of an internal connection with TLS", async () => {
  await proxies.passEnds(
    { ...internal("inner", tcpProxy("origin")), ...secured(tcpProxy("origin")) },
    towards("inside", "inner", { transport_socket: toA }),
  );
});

test("TLS at one end of an internal connection alone is an error of that end, as on a socket", async () => {
  const inner = http([direct("/", "inside\n")]);
  const proxy = await proxies.start(
    [
      listener("main", http([route("/plain", "plain"), route("/other", "other")])),
      { ...internal("inner", inner), ...secured(inner) },
      internal("open", inner),
    ],
    [towards("plain", "inner"), towards("other", "open", { transport_socket: toA })],
  );
  const port = proxy.port("main");
  expect((await get(port, "/plain")).status).toBe(503);
  expect(await proxy.stat("listener.envoy_internal_inner.ssl.connection_error")).toBe(1);
  expect((await get(port, "/other")).status).toBe(503);
  expect(await proxy.stat("cluster.other.ssl.connection_error")).toBe(1);
});
