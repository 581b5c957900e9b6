import type { Chunk } from "./bytes.ts";
import type { Connection, DownstreamConnection } from "./network.ts";

/** What an X.509 certificate says. Distinguished names are written as in RFC 2253, the most specific part first. */
export interface Certificate {
  readonly subject: string;
  readonly issuer: string;
  readonly commonName: string;
  /** Lower-case hex, as the digests below. */
  readonly serial: string;
  readonly sha256: string;
  readonly sha1: string;
  /** Base64 of the SHA-256 of its public key (RFC 7469 §2.4). */
  readonly spki: string;
  /** Epoch milliseconds. */
  readonly notBefore: number;
  readonly notAfter: number;
  readonly names: readonly AlternativeName[];
  /** `rsa`, `ec`, `ed25519`, …. An `ec` key has a `curve` (`prime256v1`), an `rsa` key has `bits`. */
  readonly keyType: string;
  readonly curve: string;
  readonly bits: number;
  readonly pem: string;
  /** True: it may issue other certificates. */
  readonly authority?: boolean;
  /** RFC 5280 §4.2.1.3: `digitalSignature`, `keyCertSign`, …; undefined: it does not limit its use. */
  readonly usages?: readonly string[];
  /** RFC 7633: it may only be shown together with an OCSP response. */
  readonly mustStaple?: boolean;
}
/** A subject alternative name of a certificate. */
export interface AlternativeName {
  readonly type: "DNS" | "URI" | "IP_ADDRESS" | "EMAIL" | "OTHER_NAME";
  readonly value: string;
  /** What kind of OTHER_NAME, with dots. */
  readonly oid?: string;
}

/** What a TLS handshake has agreed on. */
export interface TlsInfo {
  /** `TLSv1.3` */
  readonly version: string;
  /** OpenSSL's name: `ECDHE-RSA-AES128-GCM-SHA256`. */
  readonly cipher: string;
  /** The group of the key exchange. OpenSSL does not tell a server: "" until the transport sets it. */
  curve: string;
  /** "" if none was agreed on. */
  readonly alpn: string;
  /** The name that the client asked for; "" if none. */
  readonly serverName: string;
  /** Hex; "" if there is none. */
  readonly sessionId: string;
  readonly resumed: boolean;
  readonly peer: Certificate | undefined;
  /** PEM of all certificates that the peer has sent, its own first. */
  readonly peerChain: readonly string[];
  /** What names the certificates of `peerChain`. */
  readonly peerChainMarks: readonly Pick<Certificate, "serial" | "sha256" | "sha1">[];
  /** OpenSSL's name for what is wrong with the peer's chain (`CERT_HAS_EXPIRED`); "" if nothing is, or nothing was checked. */
  readonly verifyError: string;
  /** Set by the transport: it has checked the peer's certificate and found it right. */
  peerValidated: boolean;
  /** The certificate that was shown to the peer. */
  local: Certificate | undefined;
}

/** Settings, certificates and keys of one side of TLS. Texts are PEM unless it says otherwise. */
export interface TlsContextOptions {
  readonly side: "server" | "client";
  readonly certificates: readonly {
    readonly chain: string;
    readonly key: string;
    readonly password?: string;
    /** The chain's file, for /certs. */
    readonly path?: string;
  }[];
  /** Certificate and key in a PKCS #12 bundle, in base64. */
  readonly pkcs12?: readonly { readonly bundle: string; readonly password?: string }[];
  readonly minVersion: TlsVersion;
  readonly maxVersion: TlsVersion;
  /** OpenSSL's list for TLS 1.2 and below; one that begins with suites of TLS 1.3 (`TLS_…`) replaces these as well. */
  readonly ciphers: string;
  readonly curves: string;
  readonly signatureAlgorithms?: string;
  /** Absent: the peer's chain is not verified. */
  readonly trustedCa?: string;
  readonly trustedCaPath?: string;
  readonly crl?: string;
  /** Only the peer's own certificate is looked for in `crl`, not those of the authorities above it. */
  readonly crlOfLeafOnly?: boolean;
  /** A chain that is right but for its dates has no `verifyError`. */
  readonly allowExpired?: boolean;
  /** Server: session tickets. */
  readonly tickets: boolean;
  /**
   * 80 bytes each, in base64, as Envoy has them: the first encrypts new tickets, all decrypt old ones. Absent: a key that only
   * this process has.
   */
  readonly ticketKeys?: readonly string[];
  /** Server: sessions of clients that get no ticket are kept here, for TLS 1.2 and below by their ids. */
  readonly keepsSessions?: boolean;
  /** Server: base64 of an OCSP response, which `TlsStart.staple` shows. */
  readonly ocspResponse?: string;
  /** Server: of the cipher suites that both know, the one that the client prefers is used. */
  readonly clientsOrder?: boolean;
  /** Server: a client that resumes a session always gets a new ticket. Absent: only if its ticket was made with an older key. */
  readonly renewsTickets?: boolean;
  /** Client: the server may begin another handshake (TLS 1.2 and below). */
  readonly renegotiation?: boolean;
  /** The file that `TlsStart.logsKeys` writes secrets to, as NSS and Wireshark read them. */
  readonly keyLog?: string;
  readonly sessionTimeoutS?: number;
  /** Sessions are resumed only where this is the same. */
  readonly sessionScope: string;
  /** Client: how many sessions are kept for resumption. */
  readonly maxSessions?: number;
}
/** As OpenSSL calls them. */
export type TlsVersion = "TLSv1" | "TLSv1.1" | "TLSv1.2" | "TLSv1.3";

/** An OpenSSL context of this worker. It ends with the generation that made it, or with `release`. */
export interface TlsContext {
  readonly id: number;
  /** The leaf of each certificate, in the order of the options. */
  readonly certificates: readonly Certificate[];
  readonly trusted: readonly Certificate[];
  release(): void;
}

/** TLS as core offers it to packages (`cx.tls`). */
export interface Tls {
  /** Throws with OpenSSL's reason if it refuses an option: text that is not PEM, a key that does not fit, an unknown cipher. */
  context(options: TlsContextOptions): TlsContext;
  /** Throws if the text holds no certificate. */
  certificates(pem: string): readonly Certificate[];
  /** Whether signatures lead from the first certificate of `chain` (PEM) to one of `authorities`; dates do not count. */
  leadsTo?(chain: readonly string[], authorities: string): boolean;
}

/** How TLS is begun on a connection. */
export interface TlsStart {
  readonly context: TlsContext;
  /** Server: the protocol that is chosen, or none. Client: all that are offered. */
  readonly alpn: readonly string[];
  /** Client: the name to ask for; "" asks for none. */
  readonly serverName: string;
  /** Server: whether the client is asked for a certificate, and refused without one. */
  readonly clientCertificate: "no" | "optional" | "required";
  /** Server: the context's `ocspResponse` is shown. */
  readonly staple?: boolean;
  /** The TLS version that the handshake will have, if that is known beforehand. */
  readonly version?: string;
  /** The connection's secrets go to the context's `keyLog`. */
  readonly logsKeys?: boolean;
}

/** A connection while its transport owns it: from accept or connect until it is ready for its handler. */
export interface TransportSocket {
  readonly connection: Connection;
  /** Set by the transport: the TLS version that logs tell of a connection that ends before its handshake has begun. */
  version?: string;
  /** Sends these bytes as they are, before anything else. Not after `startTls`. */
  write(bytes: Uint8Array): void;
  /** Begins TLS with the bytes that `onBytes` was shown and all that follow. */
  startTls(start: TlsStart): void;
  /** Hands the connection to its owner. Bytes that `onBytes` was shown are passed on, except the first `consumed`. */
  ready(consumed?: number): void;
  /**
   * Closes the connection. `reason`: %UPSTREAM_TRANSPORT_FAILURE_REASON%. `alert` (server, after the handshake): an alert of
   * RFC 8446 §6 for the client, sent if its version of TLS allows that; otherwise the connection just ends.
   */
  fail(reason: string, alert?: number): void;
  /** Towards an internal listener: adds to the metadata of the connection that it accepts. */
  passMetadata?(namespace: string, values: Readonly<Record<string, unknown>>): void;
}

/** A transport's work on one connection. It ends with `ready`, with `fail`, or when the connection closes. */
export interface Transport {
  /** The socket can be used: an accepted one at once, an upstream one when it is connected. */
  onConnected(): void;
  /** Before `startTls`: everything received so far. */
  onBytes?(bytes: Chunk): void;
  /** The handshake is done. */
  onSecured?(tls: TlsInfo): void;
  /** The handshake failed: OpenSSL's code and words (`ERR_SSL_WRONG_VERSION_NUMBER`). Answers the reason to report. */
  onTlsError?(code: string, message: string): string;
  /** The connection is gone before it was ready. */
  onClosed?(): void;
}

type Metadata = Readonly<Record<string, unknown>>;

/** What cluster, host and request say of an upstream connection's handshake. */
export interface TransportOptions {
  /** Name of the endpoint, if the config gives one. */
  readonly hostname?: string;
  /** `auto_sni`: replaces the configured name. */
  readonly serverName?: string;
  /** `auto_san_validation`: the certificate has to be of one of these names. */
  readonly subjectAltNames?: readonly string[];
  /** What the pool can speak; offered where the config lists nothing. */
  readonly alpn?: readonly string[];
  /** `filter_metadata` of the endpoint and of the cluster. */
  readonly hostMetadata?: Metadata | undefined;
  readonly clusterMetadata?: Metadata | undefined;
  /** Addresses of the client that the connection is made for: the PROXY protocol carries them. */
  readonly downstream?: Pick<DownstreamConnection, "remoteAddress" | "localAddress" | "metadata">;
}

/** What a transport package's setup returns. */
export interface TransportFactory {
  /** Its connections are encrypted. */
  readonly secure: boolean;
  /** Its connections begin with the client's addresses (`TransportOptions.downstream`), so that no two clients may share one. */
  readonly namesClients?: boolean;
  /** Undefined: bytes pass as they are. Absent: not for listeners. */
  accept?(socket: TransportSocket, connection: DownstreamConnection): Transport | undefined;
  /** Undefined: bytes pass as they are. Absent: not for clusters. */
  connect?(socket: TransportSocket, options: TransportOptions): Transport | undefined;
}
