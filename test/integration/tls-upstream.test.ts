import { readFileSync } from "node:fs";
import https from "node:https";
import type { AddressInfo } from "node:net";
import tls from "node:tls";
import { afterAll, afterEach, expect, test } from "vitest";
import { get, RawClient } from "./client.ts";
import { bootstrap, cluster, http, type Json, listener, route, tcpProxy } from "./config.ts";
import {
  a,
  disposeAuthorities,
  downstreamTls,
  ends,
  endTest,
  ours,
  secure,
  source,
  start,
  strangers,
  TYPE,
  upstreamTls,
} from "./tls-proxy.ts";
import { tcpUpstream } from "./upstream.ts";

afterEach(endTest);
afterAll(disposeAuthorities);

test("large bodies pass TLS on both sides, whatever the size of the pieces", async () => {
  const origin = tls.createServer({ key: a.keyPem, cert: a.pem }, (socket) => {
    socket.on("error", () => socket.destroy());
    socket.pipe(socket);
  });
  await new Promise<void>((resolve) => origin.listen(0, "127.0.0.1", resolve));
  ends.push(() => origin.close());
  const { port: originPort } = origin.address() as { port: number };
  const echo = cluster("origin", [originPort], {
    transport_socket: upstreamTls(
      { validation_context: { trusted_ca: source(ours.root.certificate) } },
      { sni: "a.test" },
    ),
  });
  const forward = tcpProxy("origin");
  const proxy = await start({
    config: bootstrap(
      [{ ...listener("main", forward), filter_chains: [secure(forward, downstreamTls([a]))] }],
      [echo],
    ),
    env: { TSPROXY_RING: "8,8,3,2" },
  });
  const round = (mark: number) =>
    new Promise<void>((resolve, reject) => {
      const size = 3_000_000 + mark;
      const socket = tls.connect(
        { port: proxy.port("main"), host: "127.0.0.1", ca: ours.root.pem, servername: "a.test" },
        () => socket.end(Buffer.alloc(size, mark)),
      );
      let got = 0;
      socket.on("data", (bytes: Buffer) => {
        if (bytes.some((byte: number) => byte !== mark))
          reject(new Error("another client's bytes"));
        got += bytes.length;
      });
      socket.on("end", () => (got === size ? resolve() : reject(new Error(`${got} of ${size}`))));
      socket.on("error", reject);
    });
  await Promise.all([1, 2, 3, 4, 5, 6].map(round));
});

test("verifies upstreams by authority, name and pin, and says in the log why it refused one", async () => {
  const origin = https.createServer({ key: a.keyPem, cert: a.pem }, (_, response) =>
    response.end("origin\n"),
  );
  await new Promise<void>((resolve) => origin.listen(0, "127.0.0.1", resolve));
  ends.push(() => origin.close());
  const { port: originPort } = origin.address() as { port: number };
  const trusted = { trusted_ca: source(ours.root.certificate) };
  const dns = (exact: string) => ({ san_type: "DNS", matcher: { exact } });
  const cases: Record<string, Json> = {
    ok: { ...trusted, match_typed_subject_alt_names: [dns("any.a.test")] },
    authority: { trusted_ca: source(strangers.root.certificate) },
    san: { ...trusted, match_typed_subject_alt_names: [dns("b.test")] },
    hash: { verify_certificate_hash: ["ab".repeat(32)] },
    lax: {
      trusted_ca: source(strangers.root.certificate),
      trust_chain_verification: "ACCEPT_UNTRUSTED",
    },
  };
  const clusters = Object.entries(cases).map(([name, validation_context]) =>
    cluster(name, [originPort], { transport_socket: upstreamTls({ validation_context }) }),
  );
  clusters.push(cluster("unverified", [originPort], { transport_socket: upstreamTls({}) }));
  const names = [...Object.keys(cases), "unverified"];
  const proxy = await start({
    config: bootstrap(
      [listener("main", http(names.map((name) => route(`/${name}`, name))))],
      clusters,
    ),
  });
  const status = async (name: string) => (await get(proxy.port("main"), `/${name}`)).status;
  expect(await status("ok")).toBe(200);
  expect(await status("lax")).toBe(200);
  expect(await status("unverified")).toBe(200);
  // Again, on the session of the connection that was refused.
  for (const name of ["authority", "san", "hash"])
    for (const _ of [1, 2]) expect(await status(name)).toBe(503);
  const stats = await proxy.stats();
  expect(stats("cluster.authority.ssl.fail_verify_error")).toBe(2);
  expect(stats("cluster.san.ssl.fail_verify_san")).toBe(2);
  expect(stats("cluster.hash.ssl.fail_verify_cert_hash")).toBe(2);
  expect(stats("cluster.ok.ssl.handshake")).toBe(1);
  expect(stats("cluster.hash.upstream_cx_connect_fail")).toBe(2);
});

test("a session of TLS 1.2 is resumed again and again", async () => {
  const resumed: boolean[] = [];
  const origin = tls.createServer({ key: a.keyPem, cert: a.pem, maxVersion: "TLSv1.2" });
  origin.on("secureConnection", (socket) => {
    resumed.push(socket.isSessionReused());
    socket.on("error", () => socket.destroy()).end("hello");
  });
  await new Promise<void>((resolve) => origin.listen(0, "127.0.0.1", resolve));
  ends.push(() => origin.close());
  const { port } = origin.address() as AddressInfo;
  const greeter = cluster("origin", [port], { transport_socket: upstreamTls({}) });
  const config = bootstrap([listener("main", tcpProxy("origin"))], [greeter]);
  const proxy = await start({ config });
  for (let k = 0; k < 4; k++) {
    const client = await RawClient.connect(proxy.port("main"));
    await client.until(({ text }) => text === "hello");
    client.destroy();
  }
  expect(resumed).toEqual([false, true, true, true]);
});

test("requests name the upstream that their connection asks for, and whose certificate it has to show", async () => {
  const seen: string[] = [];
  const origin = https.createServer(
    { key: readFileSync(a.key), cert: readFileSync(a.certificate) },
    (request, response) => {
      seen.push(`${(request.socket as tls.TLSSocket).servername} ${request.headers.host}`);
      response.end("ok");
    },
  );
  await new Promise<void>((resolve) => origin.listen(0, "127.0.0.1", resolve));
  ends.push(() => origin.close().closeAllConnections());
  const validation_context = { trusted_ca: source(ours.root.certificate) };
  const named = (name: string, context: Json, options: Json): Json =>
    cluster(name, [(origin.address() as AddressInfo).port], {
      transport_socket: upstreamTls(context, { sni: "config.test" }),
      typed_extension_protocol_options: {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
          "@type": `${TYPE}upstreams.http.v3.HttpProtocolOptions`,
          explicit_http_config: { http_protocol_options: {} },
          upstream_http_protocol_options: options,
        },
      },
    });
  const both = { auto_sni: true, auto_san_validation: true };
  const routes = [
    route("/asks", "asks"),
    route("/verifies", "verifies"),
    route("/blind", "blind"),
    { match: { prefix: "/" }, route: { cluster: "verifies", host_rewrite_literal: "x.a.test" } },
  ];
  const proxy = await start({
    config: bootstrap(
      [listener("main", http(routes))],
      [
        named("asks", {}, { auto_sni: true }),
        named("verifies", { validation_context }, both),
        named("blind", {}, both),
      ],
    ),
  });
  const status = async (url: string, host: string) =>
    (await get(proxy.port("main"), url, { headers: { host } })).status;
  expect(await status("/asks", "any.test")).toBe(200);
  expect(await status("/asks", "10.0.0.1")).toBe(200);
  expect(await status("/verifies", "a.test")).toBe(200);
  expect(await status("/verifies", "b.test")).toBe(503);
  expect(await status("/verifies", "a.test")).toBe(200);
  expect(await status("/rewritten", "b.test")).toBe(200);
  expect(await status("/blind", "a.test")).toBe(503);
  expect(seen).toEqual([
    "any.test any.test",
    "config.test 10.0.0.1",
    "a.test a.test",
    "a.test a.test",
    "x.a.test x.a.test",
  ]);
  const stats = await proxy.stats();
  expect(stats("cluster.verifies.ssl.fail_verify_san")).toBe(1);
  expect(stats("cluster.verifies.upstream_cx_total")).toBe(3);
});

test("an upstream that never speaks TLS is given up when the connect timeout is over", async () => {
  const silent = await tcpUpstream(() => {});
  ends.push(() => silent.close());
  const proxy = await start({
    config: bootstrap(
      [listener("main", http([route("/", "silent")]))],
      [
        cluster("silent", [silent.port], {
          connect_timeout: "0.3s",
          transport_socket: upstreamTls({}),
        }),
      ],
    ),
  });
  const { status, text } = await get(proxy.port("main"), "/");
  expect(status).toBe(503);
  expect(text).toMatch(/connection timeout$/);
});
