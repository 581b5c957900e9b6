import {
  type Certificate,
  type Chunk,
  type ClientHello,
  ConfigError,
  readClientHello,
  type SetupContext,
  type TlsContext,
  type TlsContextOptions,
  type TlsInfo,
  type Transport,
  type TransportFactory,
  type TransportSocket,
} from "@tsproxy/sdk";
import type { Config, ValidationContext } from "./config.ts";
import { failureReason } from "./failure.ts";
import { type KeyPair, keyPairs, parametersOf } from "./parameters.ts";
import { withSecrets } from "./secret-file.ts";
import { Sources } from "./source.ts";
import type { TlsStats } from "./stats.ts";
import { Validation } from "./validation.ts";

/** Everything that stands on files: made anew when one of them changes. */
export class ServerSide {
  readonly validation: Validation | undefined;
  readonly files: ReadonlySet<string>;
  readonly contexts: readonly TlsContext[];
  readonly #fallback: TlsContext;
  /** For a client that names no server. */
  readonly #nameless: TlsContext;
  readonly #byName = new Map<string, TlsContext>();

  constructor(given: Config, cx: SetupContext) {
    const sources = new Sources(cx);
    const config = withSecrets(given, sources);
    const common = config.common_tls_context ?? {};
    const { pairs, bundles } = keyPairs(common, sources);
    const validation = common.validation_context;
    this.validation = validation && readValidation(validation, sources, cx);
    const options = { ...serverOptions(config, this.validation, sources), pkcs12: bundles };
    this.files = sources.files;
    if (pairs.length === 0) {
      if (bundles.length === 0)
        throw new ConfigError("common_tls_context", "a listener needs tls_certificates");
      this.#fallback = this.#nameless = make(cx, { ...options, certificates: [] });
      this.contexts = [this.#fallback];
      return;
    }
    const certificates = pairs.map((pair, k) => leaf(pair, k, cx));
    const made = new Map<string, TlsContext>();
    const contextOf = (indices: readonly number[]): TlsContext => {
      const chosen = oneOfEachKeyType(indices, certificates);
      const key = chosen.join(",");
      const known = made.get(key);
      if (known !== undefined) return known;
      const context = make(cx, { ...options, certificates: chosen.map((k) => pairs[k]!) });
      made.set(key, context);
      return context;
    };
    const all = pairs.map((_, k) => k);
    this.#nameless = contextOf(all);
    this.#fallback =
      config.full_scan_certs_on_sni_mismatch === true ? this.#nameless : contextOf([0]);
    for (const [name, indices] of indicesByName(certificates))
      this.#byName.set(name, contextOf(indices));
    this.contexts = [...made.values()];
  }

  /** The exact name, then a wildcard for its first label, then the first certificate. */
  choose(serverName: string): TlsContext {
    if (serverName === "") return this.#nameless;
    const dot = serverName.indexOf(".");
    return (
      this.#byName.get(serverName) ??
      (dot > 0 ? this.#byName.get(`*${serverName.slice(dot)}`) : undefined) ??
      this.#fallback
    );
  }

  release(): void {
    for (const context of this.contexts) context.release();
  }
}

export function readValidation(
  config: ValidationContext,
  sources: Sources,
  cx: SetupContext,
): Validation {
  return new Validation(config, "common_tls_context.validation_context", sources, cx);
}

function serverOptions(
  config: Config,
  validation: Validation | undefined,
  sources: Sources,
): Omit<TlsContextOptions, "certificates"> {
  const keys = config.session_ticket_keys?.keys ?? [];
  const secrets = keys.map((key, k) => sources.base64OrText(key, `session_ticket_keys.keys[${k}]`));
  return {
    side: "server",
    ...parametersOf(config.common_tls_context ?? {}, "server"),
    ...(validation?.trustedCa !== undefined && {
      trustedCa: validation.trustedCa,
      trustedCaPath: validation.trustedCaPath,
    }),
    ...(validation?.crl !== undefined && { crl: validation.crl }),
    ...(validation?.allowExpired === true && { allowExpired: true }),
    tickets: config.disable_stateless_session_resumption !== true,
    ...(secrets.length > 0 && { ticketSecret: secrets[0]! }),
    ...(config.session_timeout !== undefined && {
      sessionTimeoutS: Math.floor(config.session_timeout / 1000),
    }),
    // What was verified for one set of rules must not open the door of another.
    sessionScope: JSON.stringify(config),
  };
}

/** Core's word of what OpenSSL does not like becomes a refusal of the config. */
export function make(cx: SetupContext, options: TlsContextOptions): TlsContext {
  try {
    return cx.tls.context(options);
  } catch (error) {
    throw new ConfigError("common_tls_context", (error as Error).message);
  }
}

function leaf(pair: KeyPair, k: number, cx: SetupContext): Certificate {
  try {
    return cx.tls.certificates(pair.chain)[0]!;
  } catch (error) {
    const path = `common_tls_context.tls_certificates[${k}].certificate_chain`;
    throw new ConfigError(path, (error as Error).message);
  }
}

/** OpenSSL picks among key types by what the client can verify; of one type it can hold one certificate. */
function oneOfEachKeyType(
  indices: readonly number[],
  certificates: readonly Certificate[],
): number[] {
  const seen = new Set<string>();
  return indices.filter((k) => {
    const { keyType } = certificates[k]!;
    if (seen.has(keyType)) return false;
    seen.add(keyType);
    return true;
  });
}

/** DNS names of each certificate, or its common name if it has none. */
function indicesByName(certificates: readonly Certificate[]): Map<string, number[]> {
  const byName = new Map<string, number[]>();
  for (const [k, { names, commonName }] of certificates.entries()) {
    const dns = names.filter(({ type }) => type === "DNS").map(({ value }) => value);
    for (const name of dns.length > 0 ? dns : [commonName]) {
      const key = name.toLowerCase();
      if (key !== "") byName.set(key, [...(byName.get(key) ?? []), k]);
    }
  }
  return byName;
}

/** TLS of a filter chain: terminates what clients send. */
export class Downstream implements TransportFactory {
  readonly secure = true;
  readonly stats: TlsStats;
  readonly #alpn: readonly string[];
  readonly #clientCertificate: "no" | "optional" | "required";
  readonly #requireSni: boolean;
  side: ServerSide;

  constructor(config: Config, side: ServerSide, stats: TlsStats) {
    this.stats = stats;
    this.side = side;
    this.#alpn = config.common_tls_context?.alpn_protocols ?? [];
    this.#requireSni = config.require_sni ?? false;
    const required = config.require_client_certificate === true || side.validation?.needs === true;
    this.#clientCertificate = required ? "required" : side.validation?.asks ? "optional" : "no";
  }

  accept(socket: TransportSocket): Transport {
    return new ServerHandshake(this, socket);
  }

  /** False: the client is not served. */
  start(socket: TransportSocket, hello: ClientHello | "none", side: ServerSide): boolean {
    const { serverName, alpn } = hello === "none" ? NO_HELLO : hello;
    if (this.#requireSni && serverName === "") return false;
    // What nobody speaks is passed over, not refused: the client goes on without (RFC 7301 would have an alert).
    const chosen = this.#alpn.find((name) => alpn.includes(name));
    socket.startTls({
      context: side.choose(serverName),
      alpn: chosen === undefined ? [] : [chosen],
      serverName: "",
      clientCertificate: this.#clientCertificate,
    });
    return true;
  }
}

const NO_HELLO: ClientHello = { serverName: "", alpn: [] };
/** A ClientHello beyond this is left to OpenSSL, which refuses it. */
const MAX_HELLO = 16 * 1024;

class ServerHandshake implements Transport {
  readonly #tls: Downstream;
  readonly #socket: TransportSocket;
  /** What the handshake began with. Until then files may change, and what was there before is released. */
  #side: ServerSide | undefined = undefined;

  constructor(tls: Downstream, socket: TransportSocket) {
    this.#tls = tls;
    this.#socket = socket;
  }

  onConnected(): void {}

  onBytes(bytes: Chunk): void {
    if (this.#side !== undefined) return;
    const hello = readClientHello(bytes);
    if (hello === "more" && bytes.length < MAX_HELLO) return;
    this.#side = this.#tls.side;
    if (!this.#tls.start(this.#socket, hello === "more" ? "none" : hello, this.#side)) {
      this.#tls.stats.connectionError.inc();
      this.#socket.fail("");
    }
  }

  onSecured(info: TlsInfo): void {
    const refusal = this.#side?.validation?.refuse(info);
    if (refusal !== undefined) {
      this.#tls.stats.onRefused(refusal.stat);
      this.#socket.fail(failureReason("CERTIFICATE_VERIFY_FAILED", refusal.details));
      return;
    }
    this.#tls.stats.onHandshake(info);
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

/** What Envoy adds to BoringSSL's reason. */
const MORE: Readonly<Record<string, string>> = {
  PEER_DID_NOT_RETURN_A_CERTIFICATE: "peer did not provide required client certificate",
};
