import { X509Certificate } from "node:crypto";
import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import https from "node:https";
import path from "node:path";
import tls from "node:tls";
import { afterAll, afterEach, expect, test } from "vitest";
import { Authority, type Pair } from "./certificates.ts";
import { eventually, get } from "./client.ts";
import { bootstrap, cluster, direct, http, type Json, listener, route } from "./config.ts";
import { Proxy, StartFailure } from "./proxy.ts";
import {
  a,
  aRsa,
  ask,
  b,
  certificate,
  client,
  disposeAuthorities,
  downstreamTls,
  ends,
  endTest,
  handshake,
  hello,
  ours,
  secure,
  source,
  start,
  stranger,
  strangers,
  TYPE,
  upstreamTls,
} from "./tls-proxy.ts";
import { tcpUpstream } from "./upstream.ts";

afterEach(endTest);
afterAll(disposeAuthorities);

test("serves the certificate of the name that was asked for, and of the key that can be verified", async () => {
  const tlsSocket = downstreamTls([aRsa, a, b], { alpn_protocols: ["http/1.1"] });
  const proxy = await start({
    config: bootstrap([{ ...listener("main", hello), filter_chains: [secure(hello, tlsSocket)] }]),
  });
  const port = proxy.port("main");
  expect(await ask(port)).toBe("200 hello\n");
  expect(await handshake(port, { servername: "b.test" })).toMatchObject({ name: "b.test" });
  expect(await handshake(port, { servername: "x.a.test" })).toMatchObject({ keyType: "ec" });
  const rsa = {
    servername: "a.test",
    maxVersion: "TLSv1.2",
    ciphers: "ECDHE-RSA-AES128-GCM-SHA256",
  };
  expect(await handshake(port, rsa as tls.ConnectionOptions)).toMatchObject({
    keyType: "rsa",
    version: "TLSv1.2",
  });
  const others = { ALPNProtocols: ["bogus"], servername: "a.test" };
  expect(await handshake(port, others)).toMatchObject({ alpn: false, version: "TLSv1.3" });
  const stats = await proxy.stats();
  const prefix = `listener.127.0.0.1_0.ssl.`;
  expect(stats(`${prefix}handshake`)).toBe(5);
  expect(stats(`${prefix}versions.TLSv1.2`)).toBe(1);
  expect(stats("http.test.downstream_cx_ssl_total")).toBe(5);
});

test("asks clients for a certificate, and looks at whose it is", async () => {
  const validation_context = {
    trusted_ca: source(ours.root.certificate),
    match_typed_subject_alt_names: [{ san_type: "URI", matcher: { prefix: "spiffe://test/" } }],
  };
  const required = downstreamTls([a], { validation_context }, { require_client_certificate: true });
  const optional = downstreamTls([a], {
    validation_context: { trusted_ca: source(ours.root.certificate) },
  });
  const proxy = await start({
    config: bootstrap([
      { ...listener("must", hello), filter_chains: [secure(hello, required)], stat_prefix: "must" },
      { ...listener("may", hello), filter_chains: [secure(hello, optional)], stat_prefix: "may" },
    ]),
  });
  const identity = { key: client.keyPem, cert: client.pem };
  const false_ = { key: stranger.keyPem, cert: stranger.pem };
  expect(await ask(proxy.port("must"), identity)).toBe("200 hello\n");
  await expect(ask(proxy.port("must"))).rejects.toThrow();
  await expect(ask(proxy.port("must"), false_)).rejects.toThrow();
  const nameless = { key: b.keyPem, cert: b.pem };
  await expect(ask(proxy.port("must"), nameless)).rejects.toThrow();
  expect(await ask(proxy.port("may"))).toBe("200 hello\n");
  await expect(ask(proxy.port("may"), false_)).rejects.toThrow();
  await proxy.untilStat("listener.may.ssl.fail_verify_error", 1);
  const stats = await proxy.stats();
  expect(stats("listener.must.ssl.fail_verify_no_cert")).toBe(1);
  expect(stats("listener.must.ssl.fail_verify_error")).toBe(1);
  expect(stats("listener.must.ssl.fail_verify_san")).toBe(1);
  expect(stats("listener.must.ssl.handshake")).toBe(1);
});

test("names all certificates that a client has sent", async () => {
  const validation_context = { trusted_ca: source(ours.root.certificate) };
  const value = "%DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256%";
  const route = {
    ...direct("/", "hello\n"),
    response_headers_to_add: [{ header: { key: "x-chain", value } }],
  };
  const chain = secure(http([route]), downstreamTls([a], { validation_context }));
  const proxy = await start({
    config: bootstrap([{ ...listener("main", hello), filter_chains: [chain] }]),
  });
  const sent = await new Promise((resolve, reject) => {
    const to = { port: proxy.port("main"), host: "127.0.0.1", servername: "a.test" };
    const cert = `${client.pem}\n${ours.root.pem}`;
    const request = https.get({ ...to, ca: ours.root.pem, key: client.keyPem, cert });
    request.on("response", ({ headers }) => resolve(headers["x-chain"])).on("error", reject);
  });
  const marks = [client.pem, ours.root.pem].map((pem) =>
    new X509Certificate(pem).fingerprint256.replaceAll(":", "").toLowerCase(),
  );
  expect(sent).toBe(marks.join(","));
});

test("a client that is turned away is told why, and sees no reset", async () => {
  const validation_context = {
    trusted_ca: source(ours.root.certificate),
    match_typed_subject_alt_names: [{ san_type: "URI", matcher: { prefix: "spiffe://test/" } }],
  };
  const required = downstreamTls([a], { validation_context }, { require_client_certificate: true });
  const pinned = downstreamTls([a], {
    validation_context: { verify_certificate_hash: ["ab".repeat(32)] },
  });
  const proxy = await start({
    config: bootstrap([
      { ...listener("must", hello), filter_chains: [secure(hello, required)] },
      { ...listener("pinned", hello), filter_chains: [secure(hello, pinned)] },
    ]),
  });
  const refusal = (identity: Pair, more: tls.ConnectionOptions) =>
    new Promise<string>((resolve) => {
      const { keyPem: key, pem: cert } = identity;
      const options = { port: proxy.port("must"), host: "127.0.0.1", key, cert, ...more };
      const socket = tls.connect({ ...options, servername: "a.test", ca: ours.root.pem });
      let when = "in the handshake";
      socket.on("secureConnect", () => {
        when = "after it";
        // What is under way when the answer comes must not turn it into a reset.
        socket.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
      });
      socket.on("error", ({ message }) => resolve(`${message} ${when}`));
      socket.on("end", () => resolve("end"));
      socket.resume();
    });
  for (const ciphers of [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
  ])
    expect(await refusal(stranger, { ciphers })).toMatch(/alert unknown ca/i);
  expect(await refusal(b, {})).toMatch(/alert certificate unknown/i);
  const old = { maxVersion: "TLSv1.2" } as const;
  expect(await refusal(stranger, old)).toMatch(/alert unknown ca.* in the handshake/is);
  expect(await refusal(b, old)).toMatch(/alert certificate unknown.* in the handshake/is);
  expect(await refusal(client, { ...old, port: proxy.port("pinned") })).toMatch(/hash value/i);
});

test("takes changed files for new connections while old ones go on", async () => {
  const dir = ours.dir;
  const live = { ...a, certificate: path.join(dir, "live.pem"), key: path.join(dir, "live.key") };
  const put = (from: Pair) => {
    copyFileSync(from.certificate, live.certificate);
    copyFileSync(from.key, live.key);
  };
  put(a);
  const proxy = await start({
    config: bootstrap([
      { ...listener("main", hello), filter_chains: [secure(hello, downstreamTls([live]))] },
    ]),
  });
  const port = proxy.port("main");
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1 });
  ends.push(() => agent.destroy());
  expect(await ask(port, { agent })).toBe("200 hello\n");
  put(b);
  await eventually(
    () => handshake(port, { servername: "b.test", rejectUnauthorized: false }),
    ({ name }) => name === "b.test",
    "the new certificate",
  );
  expect(await ask(port, { agent })).toBe("200 hello\n");
  expect(await proxy.stat("http.test.downstream_cx_total")).toBeGreaterThan(1);
  expect((await proxy.stats())("listener.127.0.0.1_0.ssl.connection_error")).toBe(0);
});

test("takes secrets by name, from the config and from a file that changes", async () => {
  const file = path.join(path.dirname(a.key), "secrets.json");
  const write = (pair: Pair) =>
    writeFileSync(
      file,
      JSON.stringify({ resources: [{ name: "theirs", tls_certificate: certificate(pair) }] }),
    );
  write(a);
  const theirs = { name: "theirs", sds_config: { path_config_source: { path: file } } };
  const chain = (serverName: string, references: Json[], common: Json = {}): Json =>
    secure(
      hello,
      downstreamTls([], { tls_certificate_sds_secret_configs: references, ...common }),
      { filter_chain_match: { server_names: [serverName] } },
    );
  const inspector = {
    name: "tls",
    typed_config: { "@type": `${TYPE}filters.listener.tls_inspector.v3.TlsInspector` },
  };
  const config = bootstrap([
    {
      ...listener("main", hello),
      listener_filters: [inspector],
      filter_chains: [
        chain("file.test", [theirs]),
        chain("config.test", [{ name: "ours" }], {
          validation_context_sds_secret_config: { name: "authority" },
        }),
      ],
    },
  ]);
  Object.assign(config.static_resources as Json, {
    secrets: [
      { name: "ours", tls_certificate: certificate(b) },
      {
        name: "authority",
        validation_context: { trusted_ca: source(ours.root.certificate) },
      },
    ],
  });
  const proxy = await start({ config });
  const port = proxy.port("main");
  const seen = async (servername: string, more: tls.ConnectionOptions = {}) =>
    (await handshake(port, { servername, checkServerIdentity: () => undefined, ...more })).name;
  expect(await seen("file.test")).toBe("a.test");
  expect(await seen("config.test", { key: client.keyPem, cert: client.pem })).toBe("b.test");
  expect(await proxy.stat("http.test.downstream_cx_ssl_total")).toBe(2);
  write(b);
  await eventually(
    () => seen("file.test"),
    (name) => name === "b.test",
    "the new certificate",
  );
});

test("shows the word of a certificate's issuer to those who ask for it", async () => {
  const strict = ours.issue("strict", "strict.test", "DNS:strict.test", {
    more: "1.3.6.1.5.5.7.1.24=DER:30:03:02:01:05",
  });
  const stapled = { ...certificate(strict), ocsp_staple: source(ours.ocspResponse(strict)) };
  const tlsSocket = downstreamTls([], { tls_certificates: [stapled, certificate(a)] });
  const proxy = await start({
    config: bootstrap([{ ...listener("main", hello), filter_chains: [secure(hello, tlsSocket)] }]),
  });
  const port = proxy.port("main");
  const staple = (servername: string, requestOCSP: boolean) =>
    new Promise<number>((resolve, reject) => {
      const options = { port, host: "127.0.0.1", ca: ours.root.pem, servername, requestOCSP };
      let size = 0;
      const socket = tls.connect(options, () => socket.end().resume());
      socket.on("OCSPResponse", (response: Buffer | null) => (size = response?.length ?? 0));
      socket.on("error", reject);
      socket.on("close", () => resolve(size));
    });
  expect(await staple("strict.test", true)).toBeGreaterThan(100);
  expect(await staple("a.test", true)).toBe(0);
  expect(await staple("strict.test", false)).toBe(0);
  const stats = await proxy.stats();
  const counted = ["requests", "responses", "omitted", "failed"].map((name) =>
    stats(`listener.127.0.0.1_0.ssl.ocsp_staple_${name}`),
  );
  expect(counted).toEqual([2, 1, 1, 0]);
});

test("turns away what an authority has revoked, in the whole chain or at its end", async () => {
  const revoked = ours.issue("revoked", "revoked", "DNS:revoked.test");
  const crl = source(ours.revocationList(revoked));
  const other = new Authority("other");
  const lists = [other.revocationList(), crl.filename as string];
  const joined = lists.map((file) => readFileSync(file, "utf8")).join("");
  other.dispose();
  const trusted = { trusted_ca: source(ours.root.certificate), crl };
  const both = {
    trusted_ca: {
      inline_string:
        readFileSync(ours.root.certificate, "utf8") + readFileSync(crl.filename as string, "utf8"),
    },
  };
  const contexts: Record<string, Json> = {
    whole: trusted,
    leaf: { ...trusted, only_verify_leaf_cert_crl: true },
    beside: both,
    joined: { ...trusted, crl: { inline_string: joined } },
  };
  const chain = (validation_context: Json) =>
    secure(hello, downstreamTls([a], { validation_context }, { require_client_certificate: true }));
  const proxy = await start({
    config: bootstrap(
      Object.entries(contexts).map(([name, context]) => ({
        ...listener(name, hello),
        stat_prefix: name,
        filter_chains: [chain(context)],
      })),
    ),
  });
  for (const name of Object.keys(contexts)) {
    const port = proxy.port(name);
    expect(await ask(port, { key: client.keyPem, cert: client.pem }), name).toBe("200 hello\n");
    await expect(ask(port, { key: revoked.keyPem, cert: revoked.pem }), name).rejects.toThrow();
    await proxy.untilStat(`listener.${name}.ssl.fail_verify_error`, 1);
  }
});

test("tells a client whose authority is not known so, whatever revocation lists say of its certificate", async () => {
  const revoked = ours.issue("revoked-there", "revoked", "DNS:revoked.test");
  const crl = source(ours.revocationList(revoked));
  const validation_context = { trusted_ca: source(strangers.root.certificate), crl };
  const chain = secure(hello, downstreamTls([a], { validation_context }));
  const proxy = await start({
    config: bootstrap([{ ...listener("main", hello), filter_chains: [chain] }]),
  });
  const asked = ask(proxy.port("main"), { key: revoked.keyPem, cert: revoked.pem });
  await expect(asked).rejects.toMatchObject({ code: "ERR_SSL_TLSV1_ALERT_UNKNOWN_CA" });
});

test("logs the secrets of connections for those who have to look inside", async () => {
  const file = path.join(ours.dir, "keys.log");
  const chain = (key_log: Json) => secure(hello, downstreamTls([a], { key_log }));
  const elsewhere = [{ address_prefix: "10.0.0.0", prefix_len: 8 }];
  const proxy = await start({
    config: bootstrap([
      { ...listener("logs", hello), filter_chains: [chain({ path: file })] },
      {
        ...listener("quiet", hello),
        filter_chains: [chain({ path: file, remote_address_range: elsewhere })],
      },
    ]),
  });
  await ask(proxy.port("quiet"));
  await ask(proxy.port("logs"));
  const lines = await eventually(
    async () => (existsSync(file) ? readFileSync(file, "latin1").trim().split("\n") : []),
    (all) => all.some((line) => line.startsWith("SERVER_TRAFFIC_SECRET_0 ")),
    "secrets",
  );
  const clients = new Set(lines.map((line) => line.split(" ")[1]));
  expect(clients.size).toBe(1);
});

test("keeps to what a policy of ciphers and curves allows", async () => {
  const tls_params = { compliance_policies: ["FIPS_202205"] };
  const proxy = await start({
    config: bootstrap([
      {
        ...listener("main", hello),
        filter_chains: [secure(hello, downstreamTls([a], { tls_params }))],
      },
    ]),
  });
  const port = proxy.port("main");
  const refused = (options: tls.ConnectionOptions) =>
    expect(handshake(port, { servername: "a.test", ...options })).rejects.toThrow();
  await refused({ ecdhCurve: "X25519" });
  await refused({ ciphers: "TLS_CHACHA20_POLY1305_SHA256" });
  expect(await handshake(port, { servername: "a.test" })).toMatchObject({ version: "TLSv1.3" });
});

test("a server that ends the connection within the handshake is no failure of the transport, one that resets it is", async () => {
  const ending = await tcpUpstream((socket) => socket.once("data", () => socket.end()));
  const resetting = await tcpUpstream((socket) =>
    socket.once("data", () => socket.resetAndDestroy()),
  );
  ends.push(ending.close, resetting.close);
  const told = { header: { key: "x-why", value: "[%UPSTREAM_TRANSPORT_FAILURE_REASON%]" } };
  const to = (name: string) => route(`/${name}`, name);
  const routes = ["ending", "resetting"].map((name) => ({
    ...to(name),
    response_headers_to_add: [told],
  }));
  const proxy = await start({
    config: bootstrap(
      [listener("main", http(routes))],
      [
        cluster("ending", [ending.port], { transport_socket: upstreamTls({}) }),
        cluster("resetting", [resetting.port], { transport_socket: upstreamTls({}) }),
      ],
    ),
  });
  const why = async (where: string) => {
    const { status, headers } = await get(proxy.port("main"), where);
    return [status, headers["x-why"]];
  };
  expect(await why("/ending")).toEqual([503, "[]"]);
  expect(await why("/resetting")).toEqual([
    503,
    "[TLS_error:|33554536:system_library:OPENSSL_internal:Connection_reset_by_peer:TLS_error_end]",
  ]);
});

test("a key of another certificate, a missing file and an unknown cipher refuse the config at their place", async () => {
  const refuse = async (transport: Json) => {
    const failure = await Proxy.start({
      config: bootstrap([
        { ...listener("main", hello), filter_chains: [secure(hello, transport)] },
      ]),
    }).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(StartFailure);
    return (failure as StartFailure).output;
  };
  const notIts =
    /tls_certificates\[0\]: private_key is not the key of certificate_chain; give the one/;
  expect(await refuse(downstreamTls([{ ...a, key: b.key }]))).toMatch(notIts);
  expect(await refuse(downstreamTls([{ ...a, key: "/none/such.key" }]))).toMatch(
    /private_key\.filename: cannot read "\/none\/such\.key": no such file or directory/,
  );
  const crl = {
    validation_context: { trusted_ca: source(ours.root.certificate), crl: { inline_string: "x" } },
  };
  expect(await refuse(downstreamTls([a], crl))).toMatch(
    /validation_context\.crl: holds no revocation list in PEM form/,
  );
  const known = "ECDHE-ECDSA-AES128-GCM-SHA256";
  const params = { cipher_suites: [known, `[${known}|NO-SUCH]`], ecdh_curves: ["P-256", "P-999"] };
  expect(await refuse(downstreamTls([a], { tls_params: params }))).toMatch(
    /tls_params\.cipher_suites\[1\]: OpenSSL knows no cipher suite "NO-SUCH"; leave it out/,
  );
  const { ecdh_curves } = params;
  expect(await refuse(downstreamTls([a], { tls_params: { ecdh_curves } }))).toMatch(
    /tls_params\.ecdh_curves\[1\]: OpenSSL knows no curve "P-999"; leave it out/,
  );
});
