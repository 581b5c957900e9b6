import type {
  Certificate,
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
import { failureReason } from "./failure.ts";
import tlsTransport from "./filter.ts";
import { isDnsMatch } from "./validation.ts";

/** A certificate whose PEM text is its name. */
function certificate(pem: string, dns: readonly string[], keyType = "ec"): Certificate {
  return {
    subject: `CN=${pem}`,
    issuer: "CN=ca",
    commonName: pem,
    serial: "01",
    sha256: "ab".repeat(32),
    sha1: "",
    spki: `${"a".repeat(43)}=`,
    notBefore: 0,
    notAfter: 0,
    names: dns.map((value) => ({ type: "DNS", value })),
    keyType,
    curve: "",
    bits: 0,
    pem,
  };
}
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
  write(): void {}
  startTls(start: TlsStart): void {
    this.started = start;
  }
  ready(): void {
    this.outcome = "ready";
  }
  fail(reason: string): void {
    this.outcome = `failed ${reason}`;
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
  /** The names of the certificates that a client gets who asks for `serverName`. */
  function shown(config: object, serverName: string): string[] {
    const { cx, made } = begin(PREFIX);
    const factory = cx.setup(tlsTransport, config) as unknown as {
      side: { choose(name: string): TlsContext };
    };
    return made[factory.side.choose(serverName).id]!.certificates.map(({ chain }) => chain);
  }
  const several = { common_tls_context: { tls_certificates: pairs("a-rsa", "a", "b", "old") } };

  it("certificate is of the name that was asked for, one of each kind of key", () => {
    expect(shown(several, "a.test")).toEqual(["a-rsa", "a"]);
    expect(shown(several, "x.a.test")).toEqual(["a"]);
    expect(shown(several, "b.test")).toEqual(["b"]);
    expect(shown(several, "old")).toEqual(["old"]);
  });

  it("certificate for others is the first, or the best of all", () => {
    expect(shown(several, "x.y.a.test")).toEqual(["a-rsa"]);
    expect(shown(several, "")).toEqual(["a-rsa", "a"]);
    const scan = { ...several, full_scan_certs_on_sni_mismatch: true };
    expect(shown(scan, "none.test")).toEqual(["a-rsa", "a"]);
  });

  it("versions, ciphers and curves are Envoy's where the config says nothing", () => {
    const { cx, made } = begin(PREFIX);
    cx.setup(tlsTransport, { common_tls_context: { tls_certificates: pairs("a") } });
    expect(made[0]).toMatchObject({ minVersion: "TLSv1.2", maxVersion: "TLSv1.3", tickets: true });
    expect(made[0]!.ciphers).toMatch(/^ECDHE-ECDSA-AES128-GCM-SHA256:/);
    expect(made[0]!.curves).toBe("X25519:P-256");
    const params = { cipher_suites: ["[A|B]", "C"], tls_minimum_protocol_version: "TLSv1_3" };
    const own = { tls_certificates: pairs("a"), tls_params: params };
    cx.setup(tlsTransport, { common_tls_context: own });
    expect(made[1]).toMatchObject({ ciphers: "A:B:C", minVersion: "TLSv1.3" });
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
    cx.changeFile("x.pem", "b");
    expect(made.map(({ released }) => released)).toEqual([true, false]);
    expect(made[1]!.certificates[0]!.chain).toBe("b");
    cx.changeFile("x.pem", "nonsense");
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
    const lax = { ...trusted, trust_chain_verification: "ACCEPT_UNTRUSTED" };
    expect(judged(lax, error)).toBe("ready ");
    const named = (exact: string) => ({
      ...trusted,
      match_typed_subject_alt_names: [{ san_type: "DNS", matcher: { exact, ignore_case: false } }],
    });
    expect(judged(named("x.a.test"), {})).toBe("ready ");
    expect(judged(named("b.test"), {})).toBe("failed fail_verify_san");
    expect(judged(trusted, {}, { subjectAltNames: ["b.test"] })).toBe("failed fail_verify_san");
    expect(judged({ verify_certificate_hash: [`${"ab:".repeat(31)}ab`] }, {})).toBe("ready ");
    const other = { verify_certificate_hash: ["cd".repeat(32)] };
    expect(judged(other, {})).toBe("failed fail_verify_cert_hash");
    const spki = { ...other, verify_certificate_spki: [`${"a".repeat(43)}=`] };
    expect(judged(spki, {})).toBe("ready ");
  });

  it("names are not looked at where nobody vouches for them", () => {
    const { cx } = begin("cluster.up.");
    const names = [{ san_type: "DNS", matcher: { exact: "a.test", ignore_case: false } }];
    const config = validating({ match_typed_subject_alt_names: names });
    expect(() => cx.setup(tlsTransport, config)).toThrow(/add trusted_ca/);
  });

  it("failures have Envoy's words", () => {
    const { cx, transport } = connect({});
    expect(transport.onTlsError!("ERR_SSL_WRONG_VERSION_NUMBER", "")).toBe(
      "TLS_error:|268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end",
    );
    expect(cx.stats.value("cluster.up.ssl.connection_error")).toBe(1);
    expect(transport.onTlsError!("ECONNRESET", "")).toBe("");
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
      transport.onBytes!(new LentChunk("\x16no hello".repeat(2000)));
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
    expect([made.length, made.at(-1)!.released]).toEqual([3, false]);
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
