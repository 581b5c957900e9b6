import { createHash, hkdfSync, randomBytes, X509Certificate } from "node:crypto";
import tls from "node:tls";
import type { Certificate, TlsContextOptions, TlsInfo } from "@tsproxy/sdk";
import { certificatesOf, describeCertificate, isTrustedChain, marksOf } from "./certificate.ts";
import { checkKeyPair } from "./key-pair.ts";
import { listsApart, type RevocationList, revocationError, revocationLists } from "./revocation.ts";
import type { SessionStore } from "./secure-socket.ts";

/** Most sessions that a context keeps, whatever the config says. */
const MAX_SESSIONS = 1024;
/** Most certificates of a peer's chain that are looked at. */
const MAX_CHAIN = 10;
/** The cipher suites of TLS 1.3. As in Envoy, the config cannot choose among them. */
const TLS13 = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

/** What is known of a peer. OpenSSL does not give a client this again for a resumed session, but the peer is judged each time. */
type PeerFacts = Pick<TlsInfo, "peer" | "peerChain" | "peerChainMarks" | "verifyError">;

/** A client's session, with what its peer has shown. */
export interface KeptSession {
  readonly session: Buffer;
  /** A ticket of TLS 1.3, which should be used once (RFC 8446 appendix C.4); older sessions are resumed again and again. */
  readonly once: boolean;
  readonly facts: PeerFacts;
}

/** One OpenSSL context, and what belongs to it. */
export class Context {
  readonly options: TlsContextOptions;
  readonly secure: tls.SecureContext;
  readonly certificates: readonly Certificate[];
  readonly trusted: readonly X509Certificate[];
  /** Revocation lists that are checked here instead of by OpenSSL (`crlOfLeafOnly`). */
  readonly revoked: readonly RevocationList[];
  readonly ocspResponse: Buffer | undefined;
  /** A server's sessions by id, for clients without tickets. Undefined: none are kept. */
  readonly keptById: SessionStore | undefined;
  /** A client's sessions by server name and ALPN protocols; the latest last. */
  readonly #sessions = new Map<string, KeptSession[]>();
  readonly #alpn = new Map<string, Uint8Array>();
  #kept = 0;

  constructor(options: TlsContextOptions, secret: string) {
    this.options = options;
    const { certificates, pkcs12 = [], trustedCa, crl, crlOfLeafOnly, ocspResponse } = options;
    this.trusted = trustedCa === undefined ? [] : certificatesOf(trustedCa);
    this.revoked = crl !== undefined && crlOfLeafOnly === true ? revocationLists(crl) : [];
    this.ocspResponse =
      ocspResponse === undefined ? undefined : Buffer.from(ocspResponse, "base64");
    this.keptById = options.keepsSessions === true ? new SessionsById() : undefined;
    const keys = options.side === "server" && options.tickets ? ticketKeys(options, secret) : [];
    for (const pair of certificates) checkKeyPair(pair);
    this.secure = create(secureOptions(options, keys));
    const inner = this.secure.context as unknown as InnerContext;
    const renews = options.renewsTickets === true;
    if (keys.length > 1 || (renews && keys.length > 0)) chooseTicketKeys(inner, keys, renews);
    const leaves = certificates.map(({ chain }) => certificatesOf(chain)[0]!);
    // The leaf of a PKCS#12 bundle is known only once OpenSSL has opened the bundle.
    if (pkcs12.length > 0) leaves.push(new X509Certificate(inner.getCertificate()));
    this.certificates = leaves.map(describeCertificate);
  }

  /** The protocol as ALPN writes it, its length first (RFC 7301 §3.1). Cached: a config names few. */
  alpn(protocol: string): Uint8Array {
    let bytes = this.#alpn.get(protocol);
    if (bytes === undefined) {
      bytes = Buffer.from(`${String.fromCharCode(protocol.length)}${protocol}`, "latin1");
      this.#alpn.set(protocol, bytes);
    }
    return bytes;
  }

  /** Returns a session to resume, and drops it here if it can be used once. */
  takeSession(key: string): KeptSession | undefined {
    const list = this.#sessions.get(key);
    const session = list?.at(-1);
    if (session?.once !== true) return session;
    list!.pop();
    this.#kept--;
    if (list!.length === 0) this.#sessions.delete(key);
    return session;
  }

  /** Keeps a session to be resumed. Beyond `maxSessions` an old one is dropped. */
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

/** A server's sessions by id; the oldest is dropped first. OpenSSL itself refuses expired ones. */
class SessionsById implements SessionStore {
  readonly #sessions = new Map<string, Buffer>();

  find(id: string): Buffer | undefined {
    return this.#sessions.get(id);
  }

  keep(id: string, session: Buffer): void {
    if (this.#sessions.size >= MAX_SESSIONS) {
      for (const oldest of this.#sessions.keys()) {
        this.#sessions.delete(oldest);
        break;
      }
    }
    this.#sessions.set(id, session);
  }
}

/** Internals of Node's SecureContext. */
interface InnerContext {
  getCertificate(): Buffer;
  enableTicketKeyCallback(): void;
  onticketkeycallback: (name: Buffer, iv: Buffer, encrypt: boolean) => TicketAnswer;
}
/**
 * [0: the ticket's key is unknown, 1: it is known, or 2: the client is to get a new ticket; HMAC key; AES key; to encrypt: name, IV].
 * Node wants both keys in any case: without them it ends the process.
 */
type TicketAnswer = [found: 0 | 1 | 2, hmac: Buffer, aes: Buffer, ...toEncrypt: Buffer[]];

interface TicketKey {
  readonly name: Buffer;
  readonly hmac: Buffer;
  readonly aes: Buffer;
}

/**
 * Makes Node ask this callback for ticket keys: the first encrypts, all decrypt. A single key that is not to be renewed needs no
 * callback: OpenSSL has it. `renews`: a client gets a new ticket whenever it uses one; otherwise only for one of an older key.
 */
function chooseTicketKeys(inner: InnerContext, keys: readonly TicketKey[], renews: boolean): void {
  inner.onticketkeycallback = (name, _iv, encrypt) => {
    const first = keys[0]!;
    if (encrypt) return [1, first.hmac, first.aes, first.name, randomBytes(16)];
    const k = keys.findIndex((key) => key.name.equals(name));
    const { hmac, aes } = keys[k] ?? first;
    return [k < 0 ? 0 : renews || k > 0 ? 2 : 1, hmac, aes];
  };
  inner.enableTicketKeyCallback();
}

/** The config's ticket keys, or one made of `secret`. Node's HMAC and AES keys are the first 16 bytes of Envoy's 32. */
function ticketKeys(
  { ticketKeys: given, sessionScope }: TlsContextOptions,
  secret: string,
): TicketKey[] {
  const keys = given?.map((key) => Buffer.from(key, "base64")) ?? [
    Buffer.from(hkdfSync("sha256", Buffer.from(secret, "base64"), scopeOf(sessionScope), "", 80)),
  ];
  return keys.map((key) => ({
    name: key.subarray(0, 16),
    hmac: key.subarray(16, 32),
    aes: key.subarray(48, 64),
  }));
}

function scopeOf(sessionScope: string): Buffer {
  return createHash("sha256").update(sessionScope).digest();
}

function create(options: tls.SecureContextOptions): tls.SecureContext {
  try {
    return tls.createSecureContext(options);
  } catch (error) {
    if ((error as Error).message !== "mac verify failure") throw error;
    throw new Error("password does not open pkcs12");
  }
}

function secureOptions(
  options: TlsContextOptions,
  keys: readonly TicketKey[],
): tls.SecureContextOptions {
  const { certificates, pkcs12 = [], side, sessionScope } = options;
  const [key] = keys;
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
    ...(options.crl !== undefined &&
      options.crlOfLeafOnly !== true && { crl: listsApart(options.crl) }),
    minVersion: options.minVersion,
    maxVersion: options.maxVersion,
    ciphers: cipherList(options.ciphers),
    ecdhCurve: options.curves,
    ...(options.signatureAlgorithms !== undefined && { sigalgs: options.signatureAlgorithms }),
    ...(options.sessionTimeoutS !== undefined && { sessionTimeout: options.sessionTimeoutS }),
    allowPartialTrustChain: true,
    honorCipherOrder: side === "server" && options.clientsOrder !== true,
    secureOptions:
      (options.renegotiation === true ? 0 : SSL_OP_NO_RENEGOTIATION) |
      (options.tickets ? 0 : SSL_OP_NO_TICKET),
    ...(key !== undefined && { ticketKeys: Buffer.concat([key.name, key.hmac, key.aes]) }),
    sessionIdContext: scopeOf(sessionScope).toString("hex").slice(0, 32),
  } as tls.SecureContextOptions;
}

function cipherList(ciphers: string): string {
  if (ciphers === "") return TLS13;
  return ciphers.startsWith("TLS_") ? ciphers : `${TLS13}:${ciphers}`;
}

const SSL_OP_NO_RENEGOTIATION = 1 << 30;
const SSL_OP_NO_TICKET = 1 << 14;

const INLINE = "<inline>";

/** A certificate as /certs shows it. */
type ShownCertificate = Pick<Certificate, "serial" | "names" | "notBefore" | "notAfter"> & {
  /** The file, or `<inline>`. */
  readonly path: string;
};
/** The certificates that all TLS contexts of one config have loaded. */
export interface ContextCertificates {
  readonly trusted: readonly ShownCertificate[];
  readonly chains: readonly ShownCertificate[];
}

function shown(
  { serial, names, notBefore, notAfter }: Certificate,
  path: string,
): ShownCertificate {
  return { path, serial, names, notBefore, notAfter };
}

/** All TLS contexts of one worker, by number. */
export class Contexts {
  readonly #secret: string;
  readonly #byId = new Map<number, Context>();
  #next = 1;
  /** Called when a context was created or released. */
  onChanged: () => void = () => {};
  /** Called with the path of a key log file, and a line for it. */
  onKeyLog: (path: string, line: string) => void = () => {};

  /** `secret`: base64, the same on all workers, so that a ticket of one is good at the others. */
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

  /** What /certs shows: one entry for each config, although each of its certificates may have a context of its own. */
  describe(): readonly ContextCertificates[] {
    const byScope = new Map<
      string,
      { trusted: ShownCertificate[]; chains: Map<string, ShownCertificate> }
    >();
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

  /** Drops a context, one turn later, since commands on their way may still name it. */
  release(id: number): void {
    setImmediate(() => {
      this.#byId.delete(id);
      this.onChanged();
    });
  }
}

/** TlsInfo with `local` as the index of the certificate that we have shown; -1: none. */
export type Described = Omit<TlsInfo, "local"> & { readonly local: number };

/** What is read of a TLSSocket or a SecureSocket after its handshake. */
export interface Handshaken
  extends Pick<tls.TLSSocket, "getPeerX509Certificate" | "getX509Certificate" | "isSessionReused"> {
  readonly alpnProtocol: string | false | null;
  readonly servername?: string | false | null;
  getProtocol(): string | null;
  getCipher(): { readonly name: string } | undefined;
  getSession(): Buffer | undefined;
  getEphemeralKeyInfo?: () => object | null;
}

/** Describes a finished handshake. `kept`: the session that was offered to the server. */
export function describeHandshake(
  socket: Handshaken,
  context: Context,
  kept?: KeptSession,
): Described {
  const { side } = context.options;
  const version = socket.getProtocol() ?? "";
  const ephemeral = side === "client" ? socket.getEphemeralKeyInfo?.() : undefined;
  const session = namesSession(version, context) ? socket.getSession() : undefined;
  return {
    version,
    cipher: socket.getCipher()?.name ?? "",
    curve: (ephemeral as { name?: string } | undefined)?.name ?? "",
    alpn: socket.alpnProtocol || "",
    serverName: socket.servername || "",
    sessionId: session === undefined ? "" : sessionId(session),
    resumed: socket.isSessionReused(),
    ...(kept !== undefined && socket.isSessionReused() ? kept.facts : peerFacts(socket, context)),
    peerValidated: false,
    local: shownCertificate(socket, context),
  };
}

function peerFacts(socket: Handshaken, context: Context): PeerFacts {
  const peer = socket.getPeerX509Certificate();
  if (peer === undefined)
    return { peer: undefined, peerChain: [], peerChainMarks: [], verifyError: "" };
  const chain = presentedChain(peer);
  const isJudged = context.options.trustedCa !== undefined;
  return {
    peer: describeCertificate(peer),
    peerChain: chain.map((certificate) => certificate.toString()),
    peerChainMarks: chain.map(marksOf),
    verifyError: isJudged ? verifyError(socket, context, chain) : "",
  };
}

function shownCertificate(socket: Handshaken, { certificates }: Context): number {
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

/** OpenSSL looks at revocation lists once it has built the chain, whatever it found until then. */
const REVOCATION: ReadonlySet<string> = new Set([
  "UNABLE_TO_GET_CRL",
  "UNABLE_TO_DECRYPT_CRL_SIGNATURE",
  "CRL_SIGNATURE_FAILURE",
  "CRL_NOT_YET_VALID",
  "CRL_HAS_EXPIRED",
  "CERT_REVOKED",
]);

function verifyError(
  socket: Handshaken,
  context: Context,
  chain: readonly X509Certificate[],
): string {
  const handle = (socket as unknown as { _handle: Verified | null })._handle;
  const last = handle?.verifyError()?.code ?? "";
  // Of several errors OpenSSL tells the last, Envoy the first: that the chain is not trusted rather than what its lists say.
  if (REVOCATION.has(last) && !isTrustedChain(chain, context.trusted))
    return isSelfSigned(chain[0]!)
      ? "DEPTH_ZERO_SELF_SIGNED_CERT"
      : "UNABLE_TO_GET_ISSUER_CERT_LOCALLY";
  const code = withoutDates(last, context, chain);
  if (code !== "" || context.options.crlOfLeafOnly !== true) return code;
  return revocationError(chain[0]!, [...context.trusted, ...chain.slice(1)], context.revoked);
}

function isSelfSigned(certificate: X509Certificate): boolean {
  return certificate.checkIssued(certificate);
}

/** With `allowExpired`, ignores an error of dates if the chain is trusted otherwise. */
function withoutDates(code: string, context: Context, chain: readonly X509Certificate[]): string {
  const isDate = code === "CERT_HAS_EXPIRED" || code === "CERT_NOT_YET_VALID";
  if (context.options.allowExpired !== true || !isDate) return code;
  return isTrustedChain(chain, context.trusted) ? "" : "UNABLE_TO_GET_ISSUER_CERT_LOCALLY";
}

/** OpenSSL invents an id for every session. As in Envoy, a server tells only of one by which a client may come back. */
function namesSession(version: string, { options, keptById }: Context): boolean {
  if (options.side === "client") return true;
  return version !== "TLSv1.3" && (options.tickets || keptById !== undefined);
}

/** The id in a session's DER form, as hex: SEQUENCE { version, ssl version, cipher, session id, … }. */
function sessionId(session: Buffer): string {
  let at = session[1]! < 0x80 ? 2 : 2 + (session[1]! & 0x7f);
  for (let k = 0; k < 3 && at + 1 < session.length; k++) at += 2 + session[at + 1]!;
  return session[at] === 4 ? session.toString("hex", at + 2, at + 2 + session[at + 1]!) : "";
}
