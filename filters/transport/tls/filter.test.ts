import type {
  Certificate,
  ClientHello,
  TlsContext,
  TlsContextOptions,
  TlsInfo,
  TlsStart,
  Transport,
  TransportOptions,
  TransportSocket,
} from "@tsproxy/sdk";
import { LentChunk, TestConnection, TestContext } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import type { ServerSide } from "./downstream.ts";
import { failureReason } from "./failure.ts";
import tlsTransport from "./filter.ts";
import { readOcspResponse } from "./ocsp.ts";
import { isDnsMatch } from "./validation.ts";

/** A certificate whose PEM text is its name. */
function certificate(pem: string, dns: readonly string[], keyType = "ec"): Certificate {
  return {
    subject: `CN=${pem}`,
    issuer: "CN=ca",
    commonName: pem,
    serial: pem === "a" ? "1000" : "01",
    sha256: "ab".repeat(32),
    sha1: "",
    spki: `${"a".repeat(43)}=`,
    notBefore: 0,
    notAfter: 0,
    names: dns.map((value) => ({ type: "DNS", value })),
    keyType,
    curve: keyType === "ec" ? "prime256v1" : "",
    bits: 0,
    pem,
  };
}
/** What `openssl ocsp` said of certificate 1000, good until 2036. */
const STAPLE = {
  inline_bytes:
    "MIIBDgoBAKCCAQcwggEDBgkrBgEFBQcwAQEEgfUwgfIwgZihHjAcMQ0wCwYDVQQKDARUZXN0MQswCQYDVQQDDAJjYRgPMjAyNjExMjExODI2MDVaMGUwYzA7MAkGBSsOAwIaBQAEFEs006X+PePy6r0QeBPBq/VyzyRRBBQAG0Xn/fsaeLCHoLF5sesTGq+cvgICEACAABgPMjAyNjExMjExODI2MDVaoBEYDzIwMzYxMTE4MTgyNjA1WjAKBggqhkjOPQQDAgNJADBGAiEAxbUvOEUaJgS2mieSJAJSwvF/8nL0hl9zfUTdSJIUwBwCIQDuVsXEfQAH76xVc5QE96DtRXBWowMSM1uhFVZBzCcZdA==",
};
const GOOD = Date.UTC(2030, 0);
const OVER = Date.UTC(2040, 0);

const HELLO: ClientHello = {
  serverName: "",
  alpn: [],
  cipherSuites: [],
  groups: [],
  signatureAlgorithms: [],
  versions: [0x0304],
  asksForStatus: false,
  keyShares: [],
  legacyVersion: 0x0303,
  extensions: [],
  pointFormats: [],
};

/** The beginning of a ClientHello that is larger than any. */
const ENDLESS = `\x16\x03\x01\x40\x00\x01\x00\xff\xff${"x".repeat(16_380)}`;

const known = new Map([
  ["a", certificate("a", ["a.test", "*.a.test"])],
  ["a-rsa", certificate("a-rsa", ["a.test"], "rsa")],
  ["b", certificate("b", ["b.test"])],
  ["old", certificate("old", [])],
  ["ca", certificate("ca", [])],
]);

function begin(statPrefix: string) {
  const cx = new TestContext();
  cx.statPrefix = statPrefix;
  const made: (TlsContextOptions & { released: boolean })[] = [];
  cx.tls = {
    certificates: (pem) => {
      const found = known.get(pem);
      if (found === undefined) throw new Error("holds no certificate in PEM form");
      return [found];
    },
    context: (options): TlsContext => {
      const entry = { ...options, released: false };
      const id = made.push(entry) - 1;
      const release = () => {
        entry.released = true;
      };
      return { id, certificates: [], trusted: [], release };
    },
  };
  return { cx, made };
}

/** Plays core's part: what the transport asks for is noted. */
class TestSocket implements TransportSocket {
  readonly connection = new TestConnection();
  started: TlsStart | undefined = undefined;
  outcome = "";
  version = "";
  written: readonly number[] = [];
  alert: number | undefined = undefined;
  write(bytes: Uint8Array): void {
    this.written = [...bytes];
  }
  startTls(start: TlsStart): void {
    this.started = start;
  }
  ready(): void {
    this.outcome = "ready";
  }
  fail(reason: string, alert?: number): void {
    this.outcome = `failed ${reason}`;
    this.alert = alert;
  }
}

const info = (changes: Partial<TlsInfo> = {}): TlsInfo => ({
  version: "TLSv1.3",
  cipher: "TLS_AES_128_GCM_SHA256",
  curve: "X25519",
  alpn: "",
  serverName: "",
  sessionId: "",
  resumed: false,
  peer: undefined,
  peerChain: [],
  peerChainMarks: [],
  verifyError: "",
  peerValidated: false,
  local: undefined,
  ...changes,
});

const text = (inline_string: string) => ({ inline_string });
const pairs = (...names: string[]) =>
  names.map((name) => ({ certificate_chain: text(name), private_key: text(`${name} key`) }));

describe("a listener's", () => {
  const PREFIX = "listener.127.0.0.1_443.";
  const ECDSA = 0x0403;
  const RSA = 0x0804;
  /** The certificate that a client gets who asks for `serverName` and verifies what it knows. */
  function shown(config: object, serverName: string, signatureAlgorithms = [ECDSA, RSA]): string {
    const { cx, made } = begin(PREFIX);
    const { side } = cx.setup(tlsTransport, config) as unknown as { side: ServerSide };
    const hello = { ...HELLO, serverName, signatureAlgorithms };
    return made[side.choose(hello, 0).candidate.contexts.first.id]!.certificates[0]!.chain;
  }
  const several = { common_tls_context: { tls_certificates: pairs("a-rsa", "a", "b", "old") } };

  it("certificate is of the name that was asked for, and of a key that the client can verify", () => {
    expect(shown(several, "a.test")).toBe("a");
    expect(shown(several, "a.test", [RSA])).toBe("a-rsa");
    expect(shown(several, "x.a.test")).toBe("a");
    expect(shown(several, "b.test")).toBe("b");
    expect(shown(several, "old")).toBe("old");
  });

  it("certificate for others is the first, or the best of all", () => {
    expect(shown(several, "x.y.a.test")).toBe("a-rsa");
    expect(shown(several, "")).toBe("a");
    expect(shown(several, "b.test", [RSA])).toBe("a-rsa");
    const scan = { ...several, full_scan_certs_on_sni_mismatch: true };
    expect(shown(scan, "none.test")).toBe("a");
    expect(shown(scan, "none.test", [RSA])).toBe("a-rsa");
  });

  it("certificate with an elliptic key goes to clients of TLS 1.2 by their suites and curves", () => {
    const { cx, made } = begin(PREFIX);
    const { side } = cx.setup(tlsTransport, several) as unknown as { side: ServerSide };
    const chosen = (cipherSuites: number[], groups: number[]) => {
      const hello = { ...HELLO, serverName: "a.test", versions: [], cipherSuites, groups };
      return made[side.choose(hello, 0).candidate.contexts.first.id]!.certificates[0]!.chain;
    };
    expect(chosen([0xc02f, 0xc02b], [29, 23])).toBe("a");
    expect(chosen([0xc02f], [29, 23])).toBe("a-rsa");
    expect(chosen([0xc02b], [29])).toBe("a-rsa");
  });

  it("staple is shown while it is good; its policy says what becomes of others", () => {
    const stapled = (policy: string, more: object = {}) => {
      const { cx } = begin(PREFIX);
      const tls_certificates = [{ ...pairs("a")[0], ocsp_staple: STAPLE, ...more }];
      const config = { common_tls_context: { tls_certificates }, ocsp_staple_policy: policy };
      const { side } = cx.setup(tlsTransport, config) as unknown as { side: ServerSide };
      return (asksForStatus: boolean, now: number) =>
        side.choose({ ...HELLO, asksForStatus }, now).staple;
    };
    const lenient = stapled("LENIENT_STAPLING");
    expect(lenient(true, GOOD)).toBe("yes");
    expect(lenient(false, GOOD)).toBe("unasked");
    expect(lenient(true, OVER)).toBe("omitted");
    for (const policy of ["STRICT_STAPLING", "MUST_STAPLE"]) {
      expect(stapled(policy)(true, OVER)).toBe("fail");
      expect(stapled(policy)(false, OVER)).toBe("unasked");
    }
    const none = { ocsp_staple: undefined };
    expect(stapled("STRICT_STAPLING", none)(true, GOOD)).toBe("omitted");
    expect(() => stapled("MUST_STAPLE", none)).toThrow(/there is no ocsp_staple/);
    const other = { ...pairs("b")[0], ocsp_staple: STAPLE };
    expect(() => stapled("LENIENT_STAPLING", other)).toThrow(/another certificate/);
    const broken = { ocsp_staple: { inline_bytes: "MAA=" } };
    expect(() => stapled("LENIENT_STAPLING", broken)).toThrow(/is no OCSP response/);
  });

  it("clients are asked for a certificate where one has to be of some name or digest", () => {
    const asked = (validation_context: object, more: object = {}) => {
      const { cx } = begin(PREFIX);
      const common = { tls_certificates: pairs("a"), validation_context };
      const factory = cx.setup(tlsTransport, { common_tls_context: common, ...more });
      const socket = new TestSocket();
      factory.accept!(socket, {} as never)!.onBytes!(new LentChunk(ENDLESS));
      return socket.started?.clientCertificate;
    };
    const ca = { trusted_ca: text("ca") };
    const names = {
      match_typed_subject_alt_names: [{ san_type: "URI", matcher: { prefix: "x" } }],
    };
    expect(asked({})).toBe("no");
    expect(asked(ca)).toBe("optional");
    expect(asked(ca, { require_client_certificate: true })).toBe("required");
    expect(asked({ ...ca, ...names })).toBe("required");
    expect(asked({ verify_certificate_hash: ["ab".repeat(32)] })).toBe("required");
    const lax = { trust_chain_verification: "ACCEPT_UNTRUSTED" };
    expect(asked({ ...ca, ...names, ...lax })).toBe("optional");
    expect(asked(lax)).toBe("optional");
  });

  it("clients are told why their certificates are refused", () => {
    const told = (more: object, changes: Partial<TlsInfo>) => {
      const context = { trusted_ca: text("ca"), max_verify_depth: 100, ...more };
      const factory = begin(PREFIX).cx.setup(tlsTransport, {
        common_tls_context: { tls_certificates: pairs("a"), validation_context: context },
      });
      const socket = new TestSocket();
      const transport = factory.accept!(socket, {} as never)!;
      transport.onBytes!(new LentChunk(ENDLESS));
      transport.onSecured!(info({ peer: known.get("b")!, peerChain: ["b"], ...changes }));
      return socket.alert;
    };
    expect(told({}, {})).toBe(undefined);
    expect(told({}, { verifyError: "CERT_HAS_EXPIRED" })).toBe(45);
    expect(told({ max_verify_depth: 0 }, { peerChain: ["b", "i"] })).toBe(48);
    expect(told({ verify_certificate_hash: ["cd".repeat(32)] }, {})).toBe(114);
  });

  it("clients are believed by the authorities of the trust domain that they name", () => {
    const { cx } = begin(PREFIX);
    const leads: string[] = [];
    cx.tls.leadsTo = (chain, authorities) => {
      leads.push(`${chain[0]} ${authorities}`);
      return authorities === "ca";
    };
    const trust_domains = [
      { name: "one", trust_bundle: text("ca") },
      { name: "two", trust_bundle: text("old") },
    ];
    const validator = {
      name: "spiffe",
      typed_config: {
        "@type": "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
        trust_domains,
      },
    };
    const validation_context = { custom_validator_config: validator };
    const common = { tls_certificates: pairs("a"), validation_context };
    const factory = cx.setup(tlsTransport, { common_tls_context: common });
    const outcome = (uri: string, changes: Partial<Certificate> = {}) => {
      const socket = new TestSocket();
      const transport = factory.accept!(socket, {} as never)!;
      transport.onBytes!(new LentChunk(ENDLESS));
      const peer = {
        ...known.get("b")!,
        names: [{ type: "URI", value: uri } as const],
        ...changes,
      };
      transport.onSecured!(info({ peer, peerChain: ["b"] }));
      return socket.outcome.replace(/^.*verify cert failed: |:TLS_error_end$/g, "");
    };
    expect(outcome("spiffe://one/x")).toBe("ready");
    expect(outcome("spiffe://two/x")).toMatch(/unable to get local issuer/);
    expect(outcome("spiffe://three/x")).toBe("no trust bundle store");
    expect(outcome("https://one/x")).toBe("no trust bundle store");
    expect(outcome("spiffe://one/x", { authority: true })).toBe("cert precheck");
    expect(outcome("spiffe://one/x", { usages: ["digitalSignature", "keyCertSign"] })).toBe(
      "cert precheck",
    );
    expect(leads).toEqual(["b ca", "b old"]);
    expect(cx.stats.value(`${PREFIX}ssl.fail_verify_error`)).toBe(5);
  });

  it("keys of tickets have 80 bytes each", () => {
    const keyed = (bytes: number) => {
      const { cx, made } = begin(PREFIX);
      const keys = [text("k".repeat(80)), { inline_bytes: btoa("k".repeat(bytes)) }];
      const common_tls_context = { tls_certificates: pairs("a") };
      cx.setup(tlsTransport, { common_tls_context, session_ticket_keys: { keys } });
      return made[0]!.ticketKeys;
    };
    expect(keyed(80)).toEqual([btoa("k".repeat(80)), btoa("k".repeat(80))]);
    for (const bytes of [48, 79, 81]) expect(() => keyed(bytes)).toThrow(/a key has 80 bytes/);
  });

  it("answer to those who do not speak TLS is BoringSSL's", () => {
    const { cx } = begin(PREFIX);
    const common_tls_context = { tls_certificates: pairs("a") };
    const factory = cx.setup(tlsTransport, { common_tls_context });
    const answered = (text: string) => {
      const socket = new TestSocket();
      factory.accept!(socket, {} as never)!.onBytes!(new LentChunk(text));
      expect(socket.started).toBeUndefined();
      expect(socket.version).toBe("TLSv1.2");
      return [socket.outcome.split(":")[4] ?? "", ...socket.written];
    };
    const alert = (number: number) => [21, 3, 1, 0, 2, 2, number];
    expect(answered("GET / HTTP/1.1\r\n")).toEqual(["HTTP_REQUEST"]);
    expect(answered("hello there")).toEqual(["WRONG_VERSION_NUMBER", ...alert(70)]);
    expect(answered("\x15\x03\x01\x00\x02\x02\x28")).toEqual(["SSLV3_ALERT_HANDSHAKE_FAILURE"]);
    expect(answered("\x17\x03\x01\x00\x02\x02\x28")).toEqual(["UNEXPECTED_RECORD", ...alert(10)]);
    expect(answered("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")).toEqual([
      "CLIENTHELLO_PARSE_FAILED",
      ...alert(50),
    ]);
    expect(answered("hey")).toEqual([""]);
    expect(cx.stats.value(`${PREFIX}ssl.connection_error`)).toBe(5);
  });

  it("versions, ciphers and curves are Envoy's where the config says nothing", () => {
    const { cx, made } = begin(PREFIX);
    cx.setup(tlsTransport, { common_tls_context: { tls_certificates: pairs("a") } });
    expect(made[0]).toMatchObject({ minVersion: "TLSv1.2", maxVersion: "TLSv1.3", tickets: true });
    expect(made[0]!.ciphers).toMatch(/^TLS_AES_128_.*_SHA256:ECDHE-ECDSA-AES128-GCM-SHA256:/);
    expect(made[0]!.curves).toBe("X25519MLKEM768/X25519/P-256");
    const params = { cipher_suites: ["[A|B]", "C"], tls_minimum_protocol_version: "TLSv1_3" };
    const own = { tls_certificates: pairs("a"), tls_params: params };
    cx.setup(tlsTransport, { common_tls_context: own });
    expect(made.at(-1)).toMatchObject({ minVersion: "TLSv1.3" });
    expect(made.at(-1)!.ciphers).toMatch(/:A:B:C$/);
  });

  it("a session of TLS 1.3 lasts two days, an older one as long as session_timeout says", () => {
    const { cx, made } = begin(PREFIX);
    const config = { common_tls_context: { tls_certificates: pairs("a") }, session_timeout: 5000 };
    const { side } = cx.setup(tlsTransport, config) as unknown as { side: ServerSide };
    const { contexts } = side.choose(HELLO, 0).candidate;
    const lasts = (versions: number[]) =>
      made[contexts.of({ ...HELLO, versions }, 0).id]!.sessionTimeoutS;
    expect(lasts([0x0304])).toBe(172_800);
    expect(lasts([])).toBe(5);
  });

  it("equal ciphers are in the client's order, with a context for each order that came", () => {
    const { cx, made } = begin(PREFIX);
    const config = { common_tls_context: { tls_certificates: pairs("a") } };
    const { side } = cx.setup(tlsTransport, config) as unknown as { side: ServerSide };
    const { contexts } = side.choose(HELLO, 0).candidate;
    const of = (cipherSuites: number[], versions: number[]) =>
      made[contexts.of({ ...HELLO, cipherSuites, versions }, 0).id]!;
    const [AES_128, AES_256, CHACHA] = [0x1301, 0x1302, 0x1303];
    const now = of([AES_256, CHACHA, AES_128, 0xcca9], [0x0304]);
    expect(now.ciphers).toMatch(
      /^TLS_AES_256_.*:TLS_CHACHA20_.*:TLS_AES_128_.*:ECDHE-ECDSA-AES128/,
    );
    expect(now.renewsTickets).toBe(true);
    const old = of([0xcca9, 0xc02b], []);
    expect(old.ciphers).toMatch(/:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256:/);
    expect(old.renewsTickets).toBe(false);
    const count = made.length;
    expect(of([AES_256, CHACHA, AES_128, 0xc02b], [0x0304])).toBe(now);
    expect(made.length).toBe(count);
    for (const first of [AES_128, AES_256, CHACHA])
      for (const second of [AES_128, AES_256, CHACHA])
        for (const suites of [[0xcca8, 0xcca9], [0xcca9], [0xcca8], [0xc02b]]) {
          of([first, second], [0x0304]);
          of(suites, []);
        }
    expect(made.length).toBeLessThanOrEqual(12);
    side.release();
    expect(made.every(({ released }) => released)).toBe(true);
  });

  it("contexts for clients' orders are few, and the one that nobody has used for long makes room", () => {
    const { cx, made } = begin(PREFIX);
    const groups = ["ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA", "AES128-SHA", "AES256-SHA"];
    const tls_params = { cipher_suites: [`[${groups.join("|")}]`] };
    const config = { common_tls_context: { tls_certificates: pairs("a", "b"), tls_params } };
    const { side } = cx.setup(tlsTransport, config) as unknown as { side: ServerSide };
    const numbers = [0xc009, 0xc00a, 0x002f, 0x0035];
    const orders = numbers.flatMap((first) =>
      numbers.flatMap((second) =>
        numbers
          .filter((third) => new Set([first, second, third]).size === 3)
          .map((third) => [first, second, third]),
      ),
    );
    const open = () => made.filter(({ released }) => !released).length;
    const ask = (serverName: string, cipherSuites: number[], now: number) => {
      const hello = { ...HELLO, versions: [], groups: [23], serverName, cipherSuites };
      const { contexts } = side.choose(hello, now).candidate;
      return {
        ...made[contexts.of(hello, now).id]!,
        isFirst: contexts.of(hello, now) === contexts.first,
      };
    };
    for (const name of ["a.test", "b.test"]) for (const order of orders) ask(name, order, 1000);
    expect(open()).toBe(2 + 32);
    expect(ask("b.test", orders.at(-1)!, 1000).isFirst).toBe(true);
    ask("a.test", orders[0]!, 5000);
    expect(ask("b.test", orders.at(-1)!, 12_000).isFirst).toBe(false);
    expect(open()).toBe(2 + 32);
    const count = made.length;
    ask("a.test", orders[0]!, 12_000);
    expect(made.length).toBe(count);
    ask("a.test", orders[1]!, 12_000);
    expect(made.length).toBe(count + 1);
    side.release();
    expect(open()).toBe(0);
  });

  it("certificates that do not fit leave no context behind", () => {
    const { cx, made } = begin(PREFIX);
    const stapled = { ...pairs("b")[0], ocsp_staple: STAPLE };
    const common_tls_context = { tls_certificates: [...pairs("a"), stapled] };
    expect(() => cx.setup(tlsTransport, { common_tls_context })).toThrow(/another certificate/);
    expect(made.length).toBe(2);
    expect(made.every(({ released }) => released)).toBe(true);
  });

  it("version is known from the client's first message on", () => {
    const { cx } = begin(PREFIX);
    const version = (tls_params: object, changes: Partial<ClientHello>) => {
      const common_tls_context = { tls_certificates: pairs("a"), tls_params };
      const set = cx.setup(tlsTransport, { common_tls_context }) as unknown as { side: ServerSide };
      return set.side.versionFor({ ...HELLO, ...changes });
    };
    const old = { versions: [], legacyVersion: 0x0301 };
    expect(version({}, {})).toBe("TLSv1.3");
    expect(version({}, { versions: [] })).toBe("TLSv1.2");
    expect(version({ tls_maximum_protocol_version: "TLSv1_2" }, {})).toBe("TLSv1.2");
    expect(version({ tls_minimum_protocol_version: "TLSv1_0" }, old)).toBe("TLSv1");
    // Refused ones, and what is no ClientHello.
    expect(version({}, old)).toBe("TLSv1.2");
    expect(version({}, { versions: [], legacyVersion: 0 })).toBe("TLSv1.2");
  });

  it("without a certificate, or with half of one, the config is refused", () => {
    const { cx } = begin(PREFIX);
    expect(() => cx.setup(tlsTransport, {})).toThrow(/tls_certificates/);
    const half = { tls_certificates: [{ certificate_chain: text("a") }] };
    expect(() => cx.setup(tlsTransport, { common_tls_context: half })).toThrow(/private_key/);
    const none = { tls_certificates: pairs("nonsense") };
    expect(() => cx.setup(tlsTransport, { common_tls_context: none })).toThrow(/no certificate/);
  });

  it("changed files are read again; what does not fit is left", () => {
    const { cx, made } = begin(PREFIX);
    cx.readable.set("x.pem", "a");
    cx.readable.set("x.key", "key");
    const pair = { certificate_chain: { filename: "x.pem" }, private_key: { filename: "x.key" } };
    cx.setup(tlsTransport, { common_tls_context: { tls_certificates: [pair] } });
    expect(cx.changeFile("x.pem", "b")).toBe(true);
    expect(made.map(({ released }) => released)).toEqual([true, false]);
    expect(made[1]!.certificates[0]!.chain).toBe("b");
    expect(cx.changeFile("x.pem", "nonsense")).toBe(false);
    expect(made.map(({ released }) => released)).toEqual([true, false]);
    expect(cx.logged.at(-1)?.level).toBe("warn");
  });
});

describe("a cluster's", () => {
  function connect(config: object, options: TransportOptions = {}) {
    const { cx, made } = begin("cluster.up.");
    const factory = cx.setup(tlsTransport, config);
    const socket = new TestSocket();
    const transport = factory.connect!(socket, options) as Transport;
    transport.onConnected();
    return { cx, made, socket, transport };
  }
  const trusted = { trusted_ca: text("ca"), max_verify_depth: 100 };
  const validating = (more: object) => ({
    common_tls_context: {
      validation_context: {
        allow_expired_certificate: false,
        trust_chain_verification: "VERIFY_TRUST_CHAIN",
        max_verify_depth: 100,
        ...more,
      },
    },
  });

  it("server name is the config's, the host's or the request's, never an address", () => {
    const name = (config: object, options?: TransportOptions) =>
      connect(config, options).socket.started?.serverName;
    expect(name({ sni: "a.test" })).toBe("a.test");
    expect(name({})).toBe("");
    expect(name({ sni: "a.test", auto_host_sni: true }, { hostname: "h.test" })).toBe("h.test");
    expect(name({ sni: "a.test" }, { serverName: "r.test" })).toBe("r.test");
    expect(name({ sni: "10.0.0.1" })).toBe("");
    expect(name({ sni: "::1" })).toBe("");
  });

  it("protocols are the config's, or what the pool speaks", () => {
    const alpn = (config: object, options?: TransportOptions) =>
      connect(config, options).socket.started?.alpn;
    expect(alpn({}, { alpn: ["h2"] })).toEqual(["h2"]);
    const own = { common_tls_context: { alpn_protocols: ["x"] } };
    expect(alpn(own, { alpn: ["h2"] })).toEqual(["x"]);
    expect(alpn({})).toEqual([]);
  });

  it("peer is refused for its chain, its names, its digest", () => {
    const judged = (more: object, changes: Partial<TlsInfo>, options?: TransportOptions) => {
      const { cx, socket, transport } = connect(validating(more), options);
      transport.onSecured!(info({ peer: known.get("a")!, peerChain: ["a"], ...changes }));
      const counted = [...cx.stats.values].filter(([name, n]) => n > 0 && /fail_/.test(name));
      return `${socket.outcome.slice(0, 6)} ${counted.map(([name]) => name.split(".").at(-1))}`;
    };
    expect(judged(trusted, {})).toBe("ready ");
    const error = { verifyError: "CERT_HAS_EXPIRED" };
    expect(judged(trusted, error)).toBe("failed fail_verify_error");
    const depth = (max_verify_depth: number, ...peerChain: string[]) =>
      judged({ ...trusted, max_verify_depth }, { peerChain });
    expect(depth(0, "a")).toBe("ready ");
    expect(depth(0, "a", "c\na")).toBe("ready ");
    expect(depth(0, "a", "i")).toBe("failed fail_verify_error");
    expect(depth(1, "a", "c\na")).toBe("ready ");
    expect(depth(1, "a", "i", "ca")).toBe("failed fail_verify_error");
    expect(depth(2, "a", "i", "ca")).toBe("ready ");
    expect(depth(2, "a", "i", "j")).toBe("failed fail_verify_error");
    const lax = { ...trusted, trust_chain_verification: "ACCEPT_UNTRUSTED" };
    expect(judged(lax, error)).toBe("ready fail_verify_error");
    const named = (exact: string) => ({
      ...trusted,
      match_typed_subject_alt_names: [{ san_type: "DNS", matcher: { exact, ignore_case: false } }],
    });
    expect(judged(named("x.a.test"), {})).toBe("ready ");
    expect(judged(named("b.test"), {})).toBe("failed fail_verify_san");
    expect(judged(trusted, {}, { subjectAltNames: ["b.test"] })).toBe("failed fail_verify_san");
    const upn = {
      san_type: "OTHER_NAME",
      matcher: { exact: "me", ignore_case: false },
      oid: "1.2.3",
    };
    const otherName = (oid: string) => ({
      peer: { ...known.get("a")!, names: [{ type: "OTHER_NAME", oid, value: "me" } as const] },
    });
    const withUpn = { ...trusted, match_typed_subject_alt_names: [upn] };
    expect(judged(withUpn, otherName("1.2.3"))).toBe("ready ");
    expect(judged(withUpn, otherName("1.2.4"))).toBe("failed fail_verify_san");
    expect(judged({ verify_certificate_hash: [`${"ab:".repeat(31)}ab`] }, {})).toBe("ready ");
    const other = { verify_certificate_hash: ["cd".repeat(32)] };
    expect(judged(other, {})).toBe("failed fail_verify_cert_hash");
    const key = { usages: ["keyEncipherment"] };
    expect(judged({}, { peer: { ...known.get("a")!, ...key } })).toBe("failed ");
    const old = { version: "TLSv1.2", cipher: "AES128-GCM-SHA256" };
    expect(judged({}, { ...old, peer: { ...known.get("a")!, ...key } })).toBe("ready ");
    const spki = { ...other, verify_certificate_spki: [`${"a".repeat(43)}=`] };
    expect(judged(spki, {})).toBe("ready ");
  });

  it("names are not looked at where nobody vouches for them", () => {
    const { cx } = begin("cluster.up.");
    const names = [{ san_type: "DNS", matcher: { exact: "a.test", ignore_case: false } }];
    const config = validating({ match_typed_subject_alt_names: names });
    expect(() => cx.setup(tlsTransport, config)).toThrow(/add trusted_ca/);
    const dates = { validation_context: { allow_expired_certificate: true } };
    expect(() => cx.setup(tlsTransport, { common_tls_context: dates })).toThrow(/no dates/);
  });

  it("failures have Envoy's words", () => {
    const { cx, transport } = connect({});
    expect(transport.onTlsError!("ERR_SSL_WRONG_VERSION_NUMBER", "")).toBe(
      "TLS_error:|268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end",
    );
    expect(cx.stats.value("cluster.up.ssl.connection_error")).toBe(1);
    expect(transport.onTlsError!("", "")).toBe("");
    expect(transport.onTlsError!("EPIPE", "")).toBe("");
    expect(transport.onTlsError!("ECONNRESET", "")).toBe(
      "TLS_error:|33554536:system library:OPENSSL_internal:Connection reset by peer:TLS_error_end",
    );
    expect(transport.onTlsError!("ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE", "")).toContain(
      "|268436496:SSL routines:OPENSSL_internal:SSLV3_ALERT_HANDSHAKE_FAILURE:",
    );
    expect(failureReason("TLSV1_ALERT_PROTOCOL_VERSION", "")).toContain("|268436526:");
  });
});

describe("secrets in files", () => {
  const SDS = { sds_config: { path_config_source: { path: "sds.yaml" } } };
  const secrets = (certificate: string) => `
resources:
  - "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
    name: mine
    tlsCertificate:
      certificate_chain: { filename: ${certificate}.pem }
      private_key: { inline_string: key }
  - name: authority
    validation_context:
      trusted_ca: { inline_string: ca }
      match_typed_subject_alt_names: [{ san_type: DNS, matcher: { exact: a.test } }]
`;
  const config = {
    common_tls_context: {
      tls_certificate_sds_secret_configs: [{ name: "mine", ...SDS }],
      combined_validation_context: {
        default_validation_context: {
          allow_expired_certificate: true,
          match_typed_subject_alt_names: [{ san_type: "DNS", matcher: { exact: "b.test" } }],
        },
        validation_context_sds_secret_config: { name: "authority", ...SDS },
      },
    },
  };
  function files(text: string) {
    const { cx, made } = begin("listener.x.");
    cx.readable.set("sds.yaml", text).set("a.pem", "a").set("b.pem", "b");
    return { cx, made };
  }

  it("stand where the config names them, merged into its own", () => {
    const { cx, made } = files(secrets("a"));
    const factory = cx.setup(tlsTransport, config);
    expect(made[0]).toMatchObject({ trustedCa: "ca", allowExpired: true });
    expect(made[0]!.certificates[0]).toMatchObject({ chain: "a", key: "key", path: "a.pem" });
    for (const [peer, outcome] of [
      ["a", "ready"],
      ["b", "ready"],
      ["old", "failed"],
    ] as const) {
      const socket = new TestSocket();
      const transport = factory.accept!(socket, {} as never)!;
      transport.onBytes!(new LentChunk(ENDLESS));
      transport.onSecured!(info({ peer: known.get(peer)!, peerChain: [peer] }));
      expect(socket.outcome.split(" ")[0]).toBe(outcome);
    }
  });

  it("are followed, and so are files that they name only later", () => {
    const { cx, made } = files(secrets("a"));
    cx.setup(tlsTransport, config);
    cx.changeFile("sds.yaml", secrets("b"));
    expect(made.at(-1)!.certificates[0]!.chain).toBe("b");
    cx.changeFile("b.pem", "a");
    expect(made.at(-1)!.certificates[0]!.chain).toBe("a");
    cx.changeFile("sds.yaml", "resources: 7");
    cx.changeFile("sds.yaml", "resources: []");
    expect([made.length, made.at(-1)!.released]).toEqual([3, false]);
    const stats = [
      "sds.mine.update_attempt",
      "sds.mine.update_success",
      "sds.authority.update_rejected",
      "sds.mine.update_failure",
      "listener.x.server_ssl_socket_factory.ssl_context_update_by_sds",
    ];
    // The context is updated for each of the two secrets, twice, and for the file that one of them names.
    expect(stats.map((name) => cx.stats.value(name))).toEqual([4, 2, 1, 1, 5]);
  });

  it("are refused for what is not theirs to say", () => {
    for (const [text, reason] of [
      ["[1,", /sds.yaml: /],
      ["resources: []", /has no secret "mine" with tls_certificate/],
      [secrets("a").replace("private_key", "privat_key"), /privat_key is unknown/],
      [secrets("a").replace("{ inline_string: key }", "7"), /private_key: a map belongs here/],
      [secrets("a").replace("san_type: DNS", "san_type: X"), /"X" is none of DNS, /],
      [secrets("a").replace("san_type: DNS, ", ""), /san_type is missing/],
    ] as const)
      expect(() => files(text).cx.setup(tlsTransport, config), text).toThrow(reason);
  });
});

it("a wildcard stands for one whole label", () => {
  expect(isDnsMatch("*.a.test", "X.A.test")).toBe(true);
  for (const name of ["a.test", "x.y.a.test", ".a.test", "xa.test"])
    expect(isDnsMatch("*.a.test", name), name).toBe(false);
  expect(isDnsMatch("f*.a.test", "foo.a.test")).toBe(false);
});

it("an OCSP response whose bytes were changed never makes it throw", () => {
  const bytes = Uint8Array.from(atob(STAPLE.inline_bytes), (c) => c.charCodeAt(0));
  expect(readOcspResponse(bytes)).toMatchObject({ serial: "1000" });
  let seed = 1;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return seed % below;
  };
  for (let round = 0; round < 20_000; round++) {
    const changed = bytes.slice(0, random(bytes.length + 1));
    for (let k = random(4); k >= 0 && changed.length > 0; k--)
      changed[random(changed.length)] = random(256);
    expect(readOcspResponse(changed)).toBeDefined();
  }
});
