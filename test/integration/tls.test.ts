import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import https from "node:https";
import type { AddressInfo } from "node:net";
import path from "node:path";
import tls from "node:tls";
import { afterAll, afterEach, expect, test } from "vitest";
import { Authority, type Pair } from "./certificates.ts";
import { eventually, get } from "./client.ts";
import {
  bootstrap,
  cluster,
  direct,
  http,
  type Json,
  listener,
  route,
  tcpProxy,
} from "./config.ts";
import { Proxy, type ProxyOptions, StartFailure } from "./proxy.ts";
import { tcpUpstream } from "./upstream.ts";

const ours = new Authority("ours");
const strangers = new Authority("strangers");
const a = ours.issue("a", "a.test", "DNS:a.test,DNS:*.a.test");
const aRsa = ours.issue("a-rsa", "a.test", "DNS:a.test", { rsa: true });
const b = ours.issue("b", "b.test", "DNS:b.test");
const client = ours.issue("client", "client", "URI:spiffe://test/client,DNS:client.test");
const stranger = strangers.issue("stranger", "stranger", "URI:spiffe://test/client");
afterAll(() => {
  ours.dispose();
  strangers.dispose();
});

const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function start(options: ProxyOptions): Promise<Proxy> {
  const proxy = await Proxy.start(options);
  ends.push(() => proxy.stop());
  return proxy;
}

const TYPE = "type.googleapis.com/envoy.extensions.";
const source = (filename: string): Json => ({ filename });
const certificate = ({ certificate: chain, key }: Pair): Json => ({
  certificate_chain: source(chain),
  private_key: source(key),
});
function downstreamTls(pairs: readonly Pair[], common: Json = {}, more: Json = {}): Json {
  return {
    name: "tls",
    typed_config: {
      "@type": `${TYPE}transport_sockets.tls.v3.DownstreamTlsContext`,
      common_tls_context: { tls_certificates: pairs.map(certificate), ...common },
      ...more,
    },
  };
}
function upstreamTls(common: Json, more: Json = {}): Json {
  return {
    name: "tls",
    typed_config: {
      "@type": `${TYPE}transport_sockets.tls.v3.UpstreamTlsContext`,
      common_tls_context: common,
      ...more,
    },
  };
}
const secure = (filter: Json, transport_socket: Json, more: Json = {}): Json => ({
  filters: [filter],
  transport_socket,
  ...more,
});
const hello = http([direct("/", "hello\n")]);

interface Seen {
  readonly name: string;
  readonly version: string | null;
  readonly alpn: string | false | null;
  readonly keyType: string | undefined;
  readonly resumed: boolean;
}
/** The first certificate that a server shows, and what else was agreed on. */
function handshake(port: number, options: tls.ConnectionOptions = {}): Promise<Seen> {
  return new Promise((resolve, reject) => {
    let seen: Seen;
    const socket = tls.connect({ port, host: "127.0.0.1", ca: ours.root.pem, ...options }, () => {
      seen = {
        name: String(socket.getPeerCertificate().subject?.CN),
        version: socket.getProtocol(),
        alpn: socket.alpnProtocol,
        keyType: socket.getPeerX509Certificate()?.publicKey.asymmetricKeyType,
        resumed: socket.isSessionReused(),
      };
      socket.end().resume();
    });
    socket.on("error", reject);
    socket.on("close", () => resolve(seen));
  });
}

/** A session that a client may resume. */
function sessionAt(port: number, maxVersion?: tls.SecureVersion): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = tls.connect({
      port,
      host: "127.0.0.1",
      ca: ours.root.pem,
      servername: "a.test",
      ...(maxVersion !== undefined && { maxVersion }),
    });
    socket.on("error", reject).once("session", (session: Buffer) => {
      resolve(session);
      socket.destroy();
    });
  });
}

function ask(port: number, options: https.RequestOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const all = { port, host: "127.0.0.1", ca: ours.root.pem, servername: "a.test", agent: false };
    const request = https.get({ ...all, ...options }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (piece: string) => (text += piece));
      response.on("end", () => resolve(`${response.statusCode} ${text}`));
    });
    request.on("error", reject);
  });
}

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

test.each(["with tickets", "with sessions by id"])(
  "a client of TLS 1.2 whose certificate is accepted goes on, and resumes its session %s",
  async (how) => {
    const validation_context = { trusted_ca: source(ours.root.certificate) };
    const disable_stateless_session_resumption = how !== "with tickets";
    const optional = downstreamTls(
      [a],
      { validation_context },
      { disable_stateless_session_resumption },
    );
    const proxy = await start({
      config: bootstrap([{ ...listener("may", hello), filter_chains: [secure(hello, optional)] }]),
      concurrency: 1,
    });
    const port = proxy.port("may");
    for (const identity of [{}, { key: b.keyPem, cert: b.pem }]) {
      const old = { ...identity, maxVersion: "TLSv1.2", servername: "a.test" } as const;
      expect(await ask(port, old)).toBe("200 hello\n");
      const session = await new Promise<Buffer>((resolve, reject) => {
        const socket = tls.connect({ port, host: "127.0.0.1", ca: ours.root.pem, ...old });
        socket.on("error", reject).once("secureConnect", () => {
          resolve(socket.getSession()!);
          socket.destroy();
        });
      });
      const { resumed, version } = await handshake(port, { ...old, session });
      expect([resumed, version]).toEqual([true, "TLSv1.2"]);
    }
  },
);

test("resumes sessions by ticket, on whichever worker", async () => {
  const proxy = await start({
    config: bootstrap([
      { ...listener("main", hello), filter_chains: [secure(hello, downstreamTls([a]))] },
    ]),
    concurrency: 2,
  });
  const session = await sessionAt(proxy.port("main"));
  for (let k = 0; k < 8; k++) {
    const { resumed } = await handshake(proxy.port("main"), { servername: "a.test", session });
    expect(resumed).toBe(true);
  }
});

test.each(["TLSv1.2", "TLSv1.3"] as const)(
  "a ticket of %s that another process has made begins a new session",
  async (maxVersion) => {
    const config = bootstrap([
      { ...listener("main", hello), filter_chains: [secure(hello, downstreamTls([a]))] },
    ]);
    const [before, after] = [await start({ config }), await start({ config })];
    const session = await sessionAt(before.port("main"), maxVersion);
    for (let k = 0; k < 2; k++) {
      const seen = handshake(after.port("main"), { servername: "a.test", maxVersion, session });
      expect(await seen).toMatchObject({ name: "a.test", version: maxVersion, resumed: false });
    }
  },
);

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

test("opens tickets with older keys, and seals new ones with the first", async () => {
  const keys = ["x", "y"].map((letter) => ({ inline_string: letter.repeat(80) }));
  const site = async (first: number) => {
    const tlsSocket = downstreamTls(
      [a],
      {},
      {
        session_ticket_keys: { keys: first === 0 ? keys : keys.toReversed() },
      },
    );
    // The rules for clients are the same, so the sessions of one are good at the other.
    return start({
      config: bootstrap([
        { ...listener("main", hello), filter_chains: [secure(hello, tlsSocket)] },
      ]),
    });
  };
  const [old, current] = [await site(1), await site(0)];
  const ticket = async (proxy: Proxy, session?: Buffer) =>
    new Promise<{ session: Buffer; name: string; resumed: boolean }>((resolve, reject) => {
      const options = { host: "127.0.0.1", ca: ours.root.pem, servername: "a.test" };
      const socket = tls.connect({
        ...options,
        port: proxy.port("main"),
        maxVersion: "TLSv1.2",
        ...(session !== undefined && { session }),
      });
      socket.on("error", reject).once("secureConnect", () => {
        const name = socket.getTLSTicket()!.toString("latin1", 0, 16);
        resolve({ session: socket.getSession()!, name, resumed: socket.isSessionReused() });
        socket.destroy();
      });
    });
  const before = await ticket(old);
  expect(before.name).toBe("y".repeat(16));
  const renewed = await ticket(current, before.session);
  expect(renewed).toMatchObject({ resumed: true, name: "x".repeat(16) });
  expect(await ticket(current, renewed.session)).toMatchObject({ resumed: true });
});

test("sessions without tickets are kept, unless the config says otherwise", async () => {
  const plain = { disable_stateless_session_resumption: true };
  const body_format = { text_format_source: { inline_string: "%DOWNSTREAM_TLS_SESSION_ID%" } };
  const named = http([direct("/", "")], { local_reply_config: { body_format } });
  const chain = (more: Json) => secure(named, downstreamTls([a], {}, more));
  const proxy = await start({
    config: bootstrap([
      { ...listener("keeps", hello), filter_chains: [chain(plain)] },
      {
        ...listener("forgets", hello),
        filter_chains: [chain({ ...plain, disable_stateful_session_resumption: true })],
      },
    ]),
    concurrency: 1,
  });
  const resumes = async (name: string) => {
    const options = {
      port: proxy.port(name),
      host: "127.0.0.1",
      ca: ours.root.pem,
      servername: "a.test",
      maxVersion: "TLSv1.2",
    } as const;
    const session = await new Promise<Buffer>((resolve, reject) => {
      const socket = tls.connect(options);
      socket.on("error", reject).once("secureConnect", () => {
        resolve(socket.getSession()!);
        socket.destroy();
      });
    });
    return (await handshake(options.port, { ...options, session })).resumed;
  };
  expect(await resumes("keeps")).toBe(true);
  expect(await resumes("forgets")).toBe(false);
  // Only a session that may be resumed has an id to tell of; those of TLS 1.3 have none.
  const old = { maxVersion: "TLSv1.2" } as const;
  expect(await ask(proxy.port("keeps"), old)).toMatch(/^200 [0-9a-f]{64}$/);
  expect(await ask(proxy.port("keeps"))).toBe("200 -");
  expect(await ask(proxy.port("forgets"), old)).toBe("200 -");
});

test("turns away what an authority has revoked, in the whole chain or at its end", async () => {
  const revoked = ours.issue("revoked", "revoked", "DNS:revoked.test");
  const crl = source(ours.revocationList(revoked));
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
  expect(await refuse(downstreamTls([{ ...a, key: b.key }]))).toMatch(/key values mismatch/i);
  expect(await refuse(downstreamTls([{ ...a, key: "/none/such.key" }]))).toMatch(
    /private_key\.filename: cannot read "\/none\/such\.key": there is no such file/,
  );
  const ciphers = { tls_params: { cipher_suites: ["NO-SUCH-CIPHER"] } };
  expect(await refuse(downstreamTls([a], ciphers))).toMatch(/cipher/);
});
