import { type Certificate, type Log, type TlsInfo, utf8Decode } from "@tsproxy/sdk";
import { kind, LuaTable, type Method, Userdata } from "@tsproxy/sdk/lua";
import { partsOfPem } from "./certificate.ts";
import type { InfoKinds, Lender } from "./info.ts";
import { waitFor } from "./run.ts";
import { toUtf8 } from "./values.ts";

/** What `connection():ssl()` and `streamInfo():downstreamSslConnection()` return. */
export class TlsData extends Userdata {
  readonly tls: TlsInfo;
  readonly kinds: InfoKinds;

  constructor({ kinds, scope }: Lender, tls: TlsInfo) {
    super(kinds.tls, scope);
    this.tls = tls;
    this.kinds = kinds;
  }
}

/** What `parsedSubjectPeerCertificate()` returns. */
export class CertificateData extends Userdata {
  readonly certificate: Certificate;

  constructor({ kinds, scope }: TlsData, certificate: Certificate) {
    super(kinds.certificate, scope);
    this.certificate = certificate;
  }
}

export function certificateKind(log: Log): LuaTable {
  return kind(log, "Filters.Common.Lua.ParsedX509NameWrapper", CertificateData, {
    commonName: ({ certificate }) => toUtf8(namesIn(certificate.subject, "CN").at(-1) ?? ""),
    // The subject is in RFC 2253's order, the reverse of the certificate's.
    organizationName: ({ certificate }) => list(namesIn(certificate.subject, "O").reverse()),
  });
}

function list(values: readonly string[]): LuaTable {
  const table = new LuaTable();
  values.forEach((value, k) => {
    table.set(k + 1, toUtf8(value));
  });
  return table;
}

/** Values of one attribute type in a subject such as `CN=a,O=b`. */
function namesIn(subject: string, type: string): string[] {
  const parts = subject.matchAll(/(?:^|[,+])\s*(\w+)=((?:\\.|[^,+\\])*)/g);
  return [...parts].filter((part) => part[1] === type).map((part) => unescaped(part[2]!));
}

/** Undoes RFC 2253's escapes: those of bytes, in hexadecimal, and those of characters that would mean something else. */
const unescaped = (text: string): string =>
  text.replace(/((?:\\[0-9A-F]{2})+)|\\(.)/g, (_, bytes: string | undefined, char: string) => {
    if (bytes === undefined) return char;
    const all = Uint8Array.from(bytes.slice(1).split("\\"), (byte) => Number.parseInt(byte, 16));
    return utf8Decode(all, 0, all.length);
  });

export function tlsKind(log: Log): LuaTable {
  const names = (certificate: Certificate | undefined, type: string): LuaTable =>
    list((certificate?.names ?? []).filter((name) => name.type === type).map((name) => name.value));
  const oids = (certificate: Certificate | undefined): LuaTable =>
    list(certificate === undefined ? [] : partsOfPem(certificate.pem).extensions);
  const reads: Readonly<Record<string, (tls: TlsInfo) => unknown>> = {
    peerCertificatePresented: ({ peer }) => peer !== undefined,
    peerCertificateValidated: ({ peerValidated }) => peerValidated,
    uriSanLocalCertificate: ({ local }) => names(local, "URI"),
    dnsSansLocalCertificate: ({ local }) => names(local, "DNS"),
    uriSanPeerCertificate: ({ peer }) => names(peer, "URI"),
    dnsSansPeerCertificate: ({ peer }) => names(peer, "DNS"),
    oidsLocalCertificate: ({ local }) => oids(local),
    oidsPeerCertificate: ({ peer }) => oids(peer),
    subjectLocalCertificate: ({ local }) => toUtf8(local?.subject ?? ""),
    subjectPeerCertificate: ({ peer }) => toUtf8(peer?.subject ?? ""),
    issuerPeerCertificate: ({ peer }) => toUtf8(peer?.issuer ?? ""),
    serialNumberPeerCertificate: ({ peer }) => peer?.serial ?? "",
    serialNumberPeerCertificateIssuer: (tls) => partsOfPem(issuerOf(tls)).serial,
    sha256PeerCertificateDigest: ({ peer }) => peer?.sha256 ?? "",
    sha256PeerCertificateIssuerDigest: (tls) => sha256(partsOfPem(issuerOf(tls)).der),
    urlEncodedPemEncodedPeerCertificate: ({ peer }) =>
      peer === undefined ? "" : encodeURIComponent(peer.pem),
    urlEncodedPemEncodedPeerCertificateChain: ({ peerChain }) =>
      encodeURIComponent(peerChain.join("")),
    sessionId: (tls) => tls.sessionId,
    ciphersuiteId: ({ cipher }) => CIPHERS[cipher] ?? "0xffff",
    ciphersuiteString: ({ cipher }) => cipher,
    tlsVersion: ({ version }) => version,
    validFromPeerCertificate: ({ peer }) => seconds(peer?.notBefore ?? 0),
    expirationPeerCertificate: ({ peer }) => seconds(peer?.notAfter ?? 0),
  };
  const methods: Record<string, Method<TlsData>> = {
    parsedSubjectPeerCertificate: (self) =>
      self.tls.peer && new CertificateData(self, self.tls.peer),
  };
  for (const [name, read] of Object.entries(reads)) methods[name] = (self) => read(self.tls);
  return kind(log, "Filters.Common.Lua.SslConnectionWrapper", TlsData, methods);
}

const seconds = (time: number): number => Math.floor(time / 1000);

/** PEM of the certificate that signed the peer's; "": the peer has not sent it. */
const issuerOf = ({ peerChain }: TlsInfo): string => peerChain[1] ?? "";

interface Digests {
  digest(algorithm: "SHA-256", data: Uint8Array): Promise<ArrayBuffer>;
}
declare const crypto: { readonly subtle: Digests };

function sha256(bytes: Uint8Array): unknown {
  if (bytes.length === 0) return "";
  const digest = crypto.subtle.digest("SHA-256", bytes);
  return waitFor(
    digest.then((made) =>
      Array.from(new Uint8Array(made), (byte) => byte.toString(16).padStart(2, "0")).join(""),
    ),
    true,
  );
}

/** IANA's numbers of the TLS cipher suites that BoringSSL, Envoy's library, has; keys are OpenSSL's names. */
const CIPHERS: Readonly<Record<string, string>> = {
  TLS_AES_128_GCM_SHA256: "0x1301",
  TLS_AES_256_GCM_SHA384: "0x1302",
  TLS_CHACHA20_POLY1305_SHA256: "0x1303",
  "ECDHE-ECDSA-AES128-GCM-SHA256": "0xc02b",
  "ECDHE-ECDSA-AES256-GCM-SHA384": "0xc02c",
  "ECDHE-RSA-AES128-GCM-SHA256": "0xc02f",
  "ECDHE-RSA-AES256-GCM-SHA384": "0xc030",
  "ECDHE-RSA-CHACHA20-POLY1305": "0xcca8",
  "ECDHE-ECDSA-CHACHA20-POLY1305": "0xcca9",
  "ECDHE-ECDSA-AES128-SHA": "0xc009",
  "ECDHE-ECDSA-AES256-SHA": "0xc00a",
  "ECDHE-RSA-AES128-SHA": "0xc013",
  "ECDHE-RSA-AES256-SHA": "0xc014",
  "AES128-GCM-SHA256": "0x009c",
  "AES256-GCM-SHA384": "0x009d",
  "AES128-SHA": "0x002f",
  "AES256-SHA": "0x0035",
};
