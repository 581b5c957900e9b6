import {
  type Certificate,
  type Chunk,
  type ClientHello,
  ConfigError,
  type HelloError,
  helloError,
  readClientHello,
  type SetupContext,
  type TlsContext,
  type TlsContextOptions,
  type TlsInfo,
  type Transport,
  type TransportFactory,
  type TransportSocket,
} from "@tsproxy/sdk";
import { GroupChoice } from "./agreement.ts";
import { type Candidate, CertificateChoice, type Choice } from "./certificate-choice.ts";
import type { Config, ValidationContext } from "./config.ts";
import { failureReason, ILLEGAL_PARAMETER, refusalAlert } from "./failure.ts";
import { type KeyLogRule, keyLogRule } from "./key-log.ts";
import { type OcspResponse, readOcspResponse } from "./ocsp.ts";
import { checkParameters, type KeyPair, keyPairs, parametersOf } from "./parameters.ts";
import { withSecrets } from "./secret-file.ts";
import type { SecretFiles } from "./secret-stats.ts";
import { OrderedContexts, ServerContexts, type ServerOptions } from "./server-contexts.ts";
import { base64, Sources } from "./source.ts";
import { SpiffeValidation } from "./spiffe.ts";
import type { TlsStats } from "./stats.ts";
import { DefaultValidation, isKeyMisused, type Validation } from "./validation.ts";

/** Certificates and validation of a listener; made anew when one of their files changes. */
export class ServerSide {
  readonly validation: Validation | undefined;
  readonly files: ReadonlySet<string>;
  readonly secrets: SecretFiles;
  readonly groups: GroupChoice;
  readonly expiries: readonly Expiry[];
  readonly #minVersion: string;
  readonly #maxVersion: string;
  readonly #candidates: readonly Candidate[];
  readonly #choice: CertificateChoice;

  constructor(given: Config, cx: SetupContext) {
    const sources = new Sources(cx);
    const config = withSecrets(given, sources);
    const common = config.common_tls_context ?? {};
    const pairs = keyPairs(common, sources);
    if (pairs.length === 0)
      throw new ConfigError("common_tls_context", "a listener needs tls_certificates");
    const validation = common.validation_context;
    this.validation = validation && readValidation(validation, sources, cx);
    checkParameters(common, cx);
    const options = serverOptions(config, this.validation, sources);
    this.files = sources.files;
    this.secrets = sources.secrets;
    this.#minVersion = options.minVersion;
    this.#maxVersion = options.maxVersion;
    const candidates = candidatesOf(pairs, options, config, cx);
    this.#candidates = candidates;
    this.groups = new GroupChoice(options.curves, options.clientsOrder === true);
    this.expiries = candidates.flatMap(({ contexts, secret }) =>
      expiriesOf(contexts.first, secret, validation?.secret_name),
    );
    this.#choice = new CertificateChoice(candidates, {
      policy: config.ocsp_staple_policy,
      scansAll: config.full_scan_certs_on_sni_mismatch === true,
      maxVersion: options.maxVersion,
      ecdsaSuites: options.order.ecdsaSuites(),
    });
  }

  choose(hello: ClientHello, now: number): Choice {
    return this.#choice.choose(hello, now);
  }

  /** TLS version of the handshake with a client; TLSv1.2 without a valid ClientHello (as in BoringSSL) or a common version. */
  versionFor({ versions, legacyVersion }: ClientHello): string {
    if (this.#maxVersion === "TLSv1.3" && versions.includes(0x0304)) return "TLSv1.3";
    const known = this.#minVersion === "TLSv1.3" ? undefined : OLD_VERSIONS[legacyVersion];
    if (known === undefined || known < this.#minVersion) return "TLSv1.2";
    if (known > this.#maxVersion) return this.#maxVersion;
    return known;
  }

  release(): void {
    for (const { contexts } of this.#candidates) contexts.release();
  }
}

/** Name of a certificate's stat, and when the certificate expires. */
export interface Expiry {
  readonly name: string;
  /** Epoch milliseconds. */
  readonly notAfter: number;
}

/**
 * When a context's certificates and its first CA expire, under the names of their secrets. Without a secret the name is Envoy's
 * for unnamed ones; `e3b0c442` is the beginning of the SHA-256 of the empty string.
 */
export function expiriesOf(
  { certificates, trusted }: TlsContext,
  secret = "unnamed_cert_e3b0c442",
  caSecret = "unnamed_ca_cert_e3b0c442",
): readonly Expiry[] {
  const named = (name: string, list: readonly Certificate[]) =>
    list.map(({ notAfter }) => ({ name, notAfter }));
  return [...named(secret, certificates), ...named(caSecret, trusted.slice(0, 1))];
}

export function readValidation(
  config: ValidationContext,
  sources: Sources,
  cx: SetupContext,
): Validation {
  const path = "common_tls_context.validation_context";
  const custom = config.custom_validator_config?.typed_config;
  if (custom !== undefined) return new SpiffeValidation(config, custom, path, sources, cx);
  return new DefaultValidation(config, path, sources, cx);
}

/** The options of validation that OpenSSL needs to verify a peer's chain. */
export function validationOptions(
  validation: Validation | undefined,
): Pick<
  TlsContextOptions,
  "trustedCa" | "trustedCaPath" | "crl" | "crlOfLeafOnly" | "allowExpired"
> {
  const { trustedCa, trustedCaPath = "", crl, crlOfLeafOnly, allowExpired } = validation ?? {};
  return {
    ...(trustedCa !== undefined && { trustedCa, trustedCaPath }),
    ...(crl !== undefined && { crl }),
    ...(crlOfLeafOnly === true && { crlOfLeafOnly }),
    ...(allowExpired === true && { allowExpired }),
  };
}

type Shared = Omit<ServerOptions, "certificates">;

function serverOptions(
  config: Config,
  validation: Validation | undefined,
  sources: Sources,
): Shared {
  const { session_ticket_keys: _, ...rules } = config;
  const common = config.common_tls_context ?? {};
  const keys = ticketKeys(config, sources);
  const tickets = config.disable_stateless_session_resumption !== true;
  return {
    side: "server",
    ...parametersOf(common, "server"),
    ...validationOptions(validation),
    ...(config.prefer_client_ciphers === true && { clientsOrder: true }),
    ...(common.key_log !== undefined && { keyLog: common.key_log.path }),
    tickets,
    ...(!tickets && config.disable_stateful_session_resumption !== true && { keepsSessions: true }),
    ...(keys.length > 0 && { ticketKeys: keys }),
    ...(config.session_timeout !== undefined && {
      sessionTimeoutS: Math.floor(config.session_timeout / 1000),
    }),
    // A session keeps the result of verifying the client's certificate, so it is resumed only under the same config and the same
    // contents of its files.
    sessionScope: JSON.stringify([rules, validationOptions(validation)]),
  };
}

/** Size of a session ticket key in bytes, and in characters of base64. */
const TICKET_KEY = 80;
const TICKET_KEY_DIGITS = 4 * Math.ceil(TICKET_KEY / 3);

function ticketKeys({ session_ticket_keys: given }: Config, sources: Sources): string[] {
  return (given?.keys ?? []).map((source, k) => {
    const path = `session_ticket_keys.keys[${k}]`;
    const key = sources.base64OrText(source, path);
    const missing = /=*$/.exec(key)![0].length;
    const size = (key.length / 4) * 3 - missing;
    if (key.length !== TICKET_KEY_DIGITS || size !== TICKET_KEY)
      throw new ConfigError(
        path,
        `a key has ${TICKET_KEY} bytes, as \`openssl rand ${TICKET_KEY}\` makes them`,
      );
    return key;
  });
}

/** Creates the contexts of all certificates, or, if one is refused, none. */
function candidatesOf(
  pairs: readonly KeyPair[],
  shared: Shared,
  config: Config,
  cx: SetupContext,
): readonly Candidate[] {
  const made: TlsContext[] = [];
  const ordered = new OrderedContexts();
  const create = (options: ServerOptions, place: string): ServerContexts => {
    const contexts = new ServerContexts(options, ordered, (all) => make(cx, all, place));
    made.push(contexts.first);
    return contexts;
  };
  try {
    return pairs.map((pair) => candidateOf(pair, shared, config, cx, create));
  } catch (error) {
    for (const context of made) context.release();
    throw error;
  }
}

function candidateOf(
  pair: KeyPair,
  shared: Shared,
  config: Config,
  cx: SetupContext,
  create: (options: ServerOptions, place: string) => ServerContexts,
): Candidate {
  const ocsp = pair.ocsp === undefined ? undefined : stapleOf(pair.ocsp, pair.place);
  const options = {
    ...shared,
    ...(pair.ocsp !== undefined && { ocspResponse: base64(pair.ocsp) }),
  };
  // Reads the chain first, so that an error names its file rather than certificate and key together.
  const leaf = pair.chain === "" ? undefined : readLeaf(pair, cx);
  const contexts = create({ ...options, ...pair.material }, pair.place);
  const certificate = leaf ?? contexts.first.certificates[0]!;
  checkStaple(certificate, ocsp, config.ocsp_staple_policy, pair.place);
  return { contexts, secret: pair.secret, certificate, ocsp };
}

function stapleOf(bytes: Uint8Array, place: string): OcspResponse {
  const response = readOcspResponse(bytes);
  if (typeof response === "string") throw new ConfigError(`${place}.ocsp_staple`, response);
  return response;
}

function checkStaple(
  certificate: Certificate,
  ocsp: OcspResponse | undefined,
  policy: Config["ocsp_staple_policy"],
  place: string,
): void {
  if (ocsp === undefined) {
    if (certificate.mustStaple === true)
      throw new ConfigError(place, "this certificate is never shown without an ocsp_staple");
    if (policy === "MUST_STAPLE")
      throw new ConfigError(
        place,
        "ocsp_staple_policy is MUST_STAPLE, and there is no ocsp_staple",
      );
  } else if (ocsp.serial !== certificate.serial.replace(/^(00)+(?=..)/, ""))
    throw new ConfigError(`${place}.ocsp_staple`, "speaks of another certificate");
}

/** Creates an OpenSSL context; its errors become a ConfigError at `place`, that of its certificate. */
export function make(cx: SetupContext, options: TlsContextOptions, place: string): TlsContext {
  try {
    return cx.tls.context(options);
  } catch (error) {
    throw new ConfigError(place, (error as Error).message);
  }
}

function readLeaf(pair: KeyPair, cx: SetupContext): Certificate {
  try {
    return cx.tls.certificates(pair.chain)[0]!;
  } catch (error) {
    throw new ConfigError(`${pair.place}.certificate_chain`, (error as Error).message);
  }
}

/** TLS of a listener's filter chain: terminates the connections of clients. */
export class Downstream implements TransportFactory {
  readonly secure = true;
  readonly stats: TlsStats;
  readonly #alpn: readonly string[];
  readonly #requiresCertificate: boolean;
  readonly #logsKeys: KeyLogRule | undefined;
  readonly #cx: SetupContext;
  side: ServerSide;

  constructor(config: Config, side: ServerSide, stats: TlsStats, cx: SetupContext) {
    this.stats = stats;
    this.side = side;
    this.#cx = cx;
    this.#logsKeys = keyLogRule(config.common_tls_context ?? {});
    this.#alpn = config.common_tls_context?.alpn_protocols ?? [];
    this.#requiresCertificate = config.require_client_certificate === true;
  }

  accept(socket: TransportSocket): Transport {
    return new ServerHandshake(this, socket);
  }

  /** Chooses certificate and ALPN protocol and starts the handshake; false: the client is refused. */
  start(socket: TransportSocket, hello: ClientHello | "none", side: ServerSide): boolean {
    const known = hello === "none" ? NO_HELLO : hello;
    const now = this.#cx.now();
    const { candidate, staple } = side.choose(known, now);
    this.stats.onStaple(staple);
    if (staple === "fail") return false;
    const { localAddress, remoteAddress } = socket.connection;
    // As in Envoy, no client certificate is requested if nothing would validate it.
    const asks = side.validation?.asks ?? "no";
    // Without a common protocol the handshake continues without ALPN; RFC 7301 would send an alert.
    const chosen = this.#alpn.find((name) => known.alpn.includes(name));
    socket.startTls({
      context: candidate.contexts.of(known, now),
      alpn: chosen === undefined ? [] : [chosen],
      serverName: "",
      clientCertificate: this.#requiresCertificate && asks !== "no" ? "required" : asks,
      version: side.versionFor(known),
      ...(staple === "yes" && { staple: true }),
      ...(this.#logsKeys?.(localAddress, remoteAddress) === true && { logsKeys: true }),
    });
    return true;
  }
}

/** TLS versions by their number in a ClientHello. */
const OLD_VERSIONS: Readonly<Record<number, string>> = {
  769: "TLSv1",
  770: "TLSv1.1",
  771: "TLSv1.2",
};
const NO_HELLO: ClientHello = {
  serverName: "",
  alpn: [],
  cipherSuites: [],
  groups: [],
  signatureAlgorithms: [],
  versions: [],
  asksForStatus: false,
  keyShares: [],
  legacyVersion: 0,
  extensions: [],
  pointFormats: [],
};
/** A larger ClientHello is not parsed; OpenSSL refuses it. */
const MAX_HELLO = 16 * 1024;

/** One handshake: reads the ClientHello, starts TLS, then validates the client's certificate. */
class ServerHandshake implements Transport {
  readonly #tls: Downstream;
  readonly #socket: TransportSocket;
  /** The side that the handshake uses; set when it starts, since a reload before that would release it. */
  #side: ServerSide | undefined = undefined;
  #hello: ClientHello | undefined = undefined;

  constructor(tls: Downstream, socket: TransportSocket) {
    this.#tls = tls;
    this.#socket = socket;
    socket.version = tls.side.versionFor(NO_HELLO);
  }

  onConnected(): void {}

  onBytes(bytes: Chunk): void {
    if (this.#side !== undefined) return;
    const hello = readClientHello(bytes);
    if (hello === "more" && bytes.length < MAX_HELLO) return;
    if (hello === "none") {
      this.#refuse(helloError(bytes));
      return;
    }
    this.#side = this.#tls.side;
    if (hello !== "more") this.#hello = hello;
    if (!this.#tls.start(this.#socket, hello === "more" ? "none" : hello, this.#side)) {
      this.#tls.stats.connectionError.inc();
      this.#socket.fail("");
    }
  }

  /** Answers bytes that are not TLS as BoringSSL does. */
  #refuse(error: HelloError | undefined): void {
    if (error === undefined) return;
    const { reason, alert } = error;
    this.#tls.stats.connectionError.inc();
    if (alert !== undefined) this.#socket.write(Uint8Array.of(21, 3, 1, 0, 2, 2, alert));
    this.#socket.fail(failureReason(reason, "", error.code));
  }

  onSecured(info: TlsInfo): void {
    const { stats } = this.#tls;
    if (isKeyMisused(info, "server")) {
      stats.connectionError.inc();
      this.#socket.fail(failureReason("KEY_USAGE_BIT_INCORRECT", ""), ILLEGAL_PARAMETER);
      return;
    }
    const validation = this.#side?.validation;
    const refusal = validation?.refuse(info);
    if (refusal !== undefined) {
      stats.onRefused(refusal.stat);
      if (validation?.acceptsUntrusted !== true) {
        const reason = failureReason("CERTIFICATE_VERIFY_FAILED", refusal.details);
        this.#socket.fail(reason, refusalAlert(refusal));
        return;
      }
    }
    if (this.#hello !== undefined) info.curve = this.#side?.groups.of(this.#hello, info) ?? "";
    stats.onHandshake(info);
    this.#socket.ready();
  }

  onTlsError(code: string): string {
    if (code === "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE")
      this.#tls.stats.noClientCertificate.inc();
    else if (code.startsWith("ERR_SSL_")) this.#tls.stats.connectionError.inc();
    const reason = code.replace("ERR_SSL_", "");
    return failureReason(reason, MORE[reason] ?? "");
  }
}

/** Details that Envoy adds to a reason of BoringSSL. */
const MORE: Readonly<Record<string, string>> = {
  PEER_DID_NOT_RETURN_A_CERTIFICATE: "peer did not provide required client certificate",
};
