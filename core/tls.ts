import { createHash, hkdfSync, type X509Certificate } from "node:crypto";
import tls from "node:tls";
import type { Certificate, TlsContextOptions, TlsInfo } from "@tsproxy/sdk";
import { certificatesOf, describeCertificate, isTrustedChain } from "./certificate.ts";

/** Sessions of one client context, however many its config asks for. */
const MAX_SESSIONS = 1024;
/** What a peer may make us carry of its chain. */
const MAX_CHAIN = 10;
/** TLS 1.3 has its own suites, and Envoy lets nobody choose among them. */
const TLS13 = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

/** What is known of a peer; OpenSSL does not tell it again to a client that resumes a session, and it is judged each time. */
type PeerFacts = Pick<TlsInfo, "peer" | "peerChain" | "verifyError">;

export interface KeptSession {
  readonly session: Buffer;
  readonly facts: PeerFacts;
}

/** One OpenSSL context, and what belongs to it. */
export class Context {
  readonly options: TlsContextOptions;
  readonly secure: tls.SecureContext;
  readonly certificates: readonly Certificate[];
  readonly trusted: readonly X509Certificate[];
  /** Tickets of servers, by the name that was asked for; the latest last. */
  readonly #sessions = new Map<string, KeptSession[]>();
  #kept = 0;

  constructor(options: TlsContextOptions, secret: string) {
    this.options = options;
    this.certificates = options.certificates.map(({ chain }) =>
      describeCertificate(certificatesOf(chain)[0]!),
    );
    this.trusted = options.trustedCa === undefined ? [] : certificatesOf(options.trustedCa);
    this.secure = tls.createSecureContext(secureOptions(options, secret));
  }

  /** Takes a session that may be resumed. Tickets of TLS 1.3 serve once (RFC 8446 appendix C.4), so none is kept here. */
  takeSession(key: string): KeptSession | undefined {
    const list = this.#sessions.get(key);
    const session = list?.pop();
    if (session !== undefined) this.#kept--;
    if (list?.length === 0) this.#sessions.delete(key);
    return session;
  }

  keepSession(key: string, session: KeptSession): void {
    const most = Math.min(this.options.maxSessions ?? 1, MAX_SESSIONS);
    if (most === 0) return;
    const list = this.#sessions.get(key) ?? [];
    if (list.length === 0) this.#sessions.set(key, list);
    list.push(session);
    if (++this.#kept <= most) return;
    for (const [other, sessions] of this.#sessions) {
      if (sessions.length > 0) {
        sessions.shift();
        this.#kept--;
        if (sessions.length === 0) this.#sessions.delete(other);
        return;
      }
    }
  }
}

function secureOptions(options: TlsContextOptions, secret: string): tls.SecureContextOptions {
  const { certificates, pkcs12 = [], side, sessionScope } = options;
  const scope = createHash("sha256").update(sessionScope).digest();
  return {
    cert: certificates.map(({ chain }) => chain),
    key: certificates.map(({ key, password }) =>
      password === undefined ? { pem: key } : { pem: key, passphrase: password },
    ),
    ...(pkcs12.length > 0 && {
      pfx: pkcs12.map(({ bundle, password }) => ({
        buf: Buffer.from(bundle, "base64"),
        ...(password !== undefined && { passphrase: password }),
      })) as never,
    }),
    // Without this Node fills in the roots of the public web, which Envoy trusts only where the config says so.
    ca: options.trustedCa ?? [],
    ...(options.crl !== undefined && { crl: options.crl }),
    minVersion: options.minVersion,
    maxVersion: options.maxVersion,
    ciphers: options.ciphers === "" ? TLS13 : `${TLS13}:${options.ciphers}`,
    ecdhCurve: options.curves,
    ...(options.signatureAlgorithms !== undefined && { sigalgs: options.signatureAlgorithms }),
    ...(options.sessionTimeoutS !== undefined && { sessionTimeout: options.sessionTimeoutS }),
    allowPartialTrustChain: true,
    honorCipherOrder: side === "server",
    // SSL_OP_NO_TICKET; renegotiation of a client is refused by Node unless a server counts it.
    secureOptions: options.tickets ? SSL_OP_NO_RENEGOTIATION : SSL_OP_NO_RENEGOTIATION | NO_TICKET,
    sessionIdContext: scope.toString("hex").slice(0, 32),
    ...(side === "server" && {
      ticketKeys: Buffer.from(
        hkdfSync("sha256", Buffer.from(options.ticketSecret ?? secret, "base64"), scope, "", 48),
      ),
    }),
  } as tls.SecureContextOptions;
}
const SSL_OP_NO_RENEGOTIATION = 1 << 30;
const NO_TICKET = 1 << 14;

const INLINE = "<inline>";

function shown({ serial, names, notBefore, notAfter }: Certificate, path: string): unknown {
  return { path, serial, names, notBefore, notAfter };
}

/** All TLS contexts of one worker, by number. */
export class Contexts {
  readonly #secret: string;
  readonly #byId = new Map<number, Context>();
  #next = 1;
  /** Called, later, when the list has changed. */
  onChanged: () => void = () => {};

  /** `secret`, base64: of the process, so that a ticket of one worker is good at the others. */
  constructor(secret: string) {
    this.#secret = secret;
  }

  get(id: number): Context | undefined {
    return this.#byId.get(id);
  }
  all(): IterableIterator<Context> {
    return this.#byId.values();
  }

  create(options: TlsContextOptions): unknown {
    const context = new Context(options, this.#secret);
    const id = this.#next++;
    this.#byId.set(id, context);
    this.onChanged();
    return {
      id,
      certificates: context.certificates,
      trusted: context.trusted.map(describeCertificate),
    };
  }

  /** What /certs shows. Contexts of one config are one entry, however many its certificates made. */
  describe(): unknown {
    const byScope = new Map<string, { trusted: unknown[]; chains: Map<string, unknown> }>();
    for (const { options, trusted, certificates } of this.#byId.values()) {
      const key = `${options.side} ${options.sessionScope}`;
      let entry = byScope.get(key);
      if (entry === undefined) {
        const path = options.trustedCaPath || INLINE;
        const first = trusted.slice(0, 1).map((ca) => shown(describeCertificate(ca), path));
        byScope.set(key, (entry = { trusted: first, chains: new Map() }));
      }
      for (const [k, certificate] of certificates.entries())
        entry.chains.set(
          certificate.sha256,
          shown(certificate, options.certificates[k]?.path ?? INLINE),
        );
    }
    return [...byScope.values()].map(({ trusted, chains }) => ({
      trusted,
      chains: [...chains.values()],
    }));
  }

  /** A command that has been given already may still name it. */
  release(id: number): void {
    setImmediate(() => {
      this.#byId.delete(id);
      this.onChanged();
    });
  }
}

/** `local` is the index of the certificate that was shown, or -1. */
export type Described = Omit<TlsInfo, "local"> & { readonly local: number };

/** What a finished handshake came to. `kept`: the session that was offered to the server. */
export function describeHandshake(
  socket: tls.TLSSocket,
  context: Context,
  kept?: KeptSession,
): Described {
  const { side } = context.options;
  const ephemeral = side === "client" ? socket.getEphemeralKeyInfo() : undefined;
  const session = socket.getSession();
  return {
    version: socket.getProtocol() ?? "",
    cipher: socket.getCipher()?.name ?? "",
    curve: (ephemeral as { name?: string } | undefined)?.name ?? "",
    alpn: socket.alpnProtocol || "",
    serverName: (socket as { servername?: string | false }).servername || "",
    sessionId: session === undefined ? "" : sessionId(session),
    resumed: socket.isSessionReused(),
    ...(kept !== undefined && socket.isSessionReused() ? kept.facts : peerFacts(socket, context)),
    peerValidated: false,
    local: shownCertificate(socket, context),
  };
}

function peerFacts(socket: tls.TLSSocket, context: Context): PeerFacts {
  const peer = socket.getPeerX509Certificate();
  if (peer === undefined) return { peer: undefined, peerChain: [], verifyError: "" };
  const chain = presentedChain(peer);
  const isJudged = context.options.trustedCa !== undefined;
  return {
    peer: describeCertificate(peer),
    peerChain: chain.map((certificate) => certificate.toString()),
    verifyError: isJudged ? verifyError(socket, context, chain) : "",
  };
}

function shownCertificate(socket: tls.TLSSocket, { certificates }: Context): number {
  if (certificates.length < 2) return certificates.length - 1;
  const shown = socket.getX509Certificate()?.fingerprint256.replaceAll(":", "").toLowerCase();
  return certificates.findIndex(({ sha256 }) => sha256 === shown);
}

function presentedChain(peer: X509Certificate): X509Certificate[] {
  const chain = [peer];
  for (let next = peer.issuerCertificate; next !== undefined && chain.length < MAX_CHAIN; ) {
    if (chain.some((known) => known.raw.equals(next!.raw))) break;
    chain.push(next);
    next = next.issuerCertificate;
  }
  return chain;
}

interface Verified {
  verifyError(): (Error & { code?: string }) | null;
}

function verifyError(
  socket: tls.TLSSocket,
  context: Context,
  chain: readonly X509Certificate[],
): string {
  const handle = (socket as unknown as { _handle: Verified | null })._handle;
  const code = handle?.verifyError()?.code ?? "";
  const isDate = code === "CERT_HAS_EXPIRED" || code === "CERT_NOT_YET_VALID";
  if (context.options.allowExpired !== true || !isDate) return code;
  return isTrustedChain(chain, context.trusted) ? "" : "UNABLE_TO_GET_ISSUER_CERT_LOCALLY";
}

/** The session's id out of its DER form: SEQUENCE { version, ssl version, cipher, session id, … }. */
function sessionId(session: Buffer): string {
  let at = session[1]! < 0x80 ? 2 : 2 + (session[1]! & 0x7f);
  for (let k = 0; k < 3 && at + 1 < session.length; k++) at += 2 + session[at + 1]!;
  return session[at] === 4 ? session.toString("hex", at + 2, at + 2 + session[at + 1]!) : "";
}
