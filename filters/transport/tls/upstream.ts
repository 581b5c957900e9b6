import {
  ConfigError,
  type SetupContext,
  type TlsContext,
  type TlsContextOptions,
  type TlsInfo,
  type Transport,
  type TransportFactory,
  type TransportOptions,
  type TransportSocket,
} from "@tsproxy/sdk";
import type { Config } from "./config.ts";
import { type Expiry, expiriesOf, make, readValidation, validationOptions } from "./downstream.ts";
import { failureReason } from "./failure.ts";
import { type KeyLogRule, keyLogRule } from "./key-log.ts";
import { checkParameters, keyPairs, parametersOf } from "./parameters.ts";
import { withSecrets } from "./secret-file.ts";
import type { SecretFiles } from "./secret-stats.ts";
import { Sources } from "./source.ts";
import type { TlsStats } from "./stats.ts";
import { isKeyMisused, type Refusal, type Validation } from "./validation.ts";

/** Certificate and validation of a cluster; made anew when one of their files changes. */
export class ClientSide {
  readonly validation: Validation | undefined;
  readonly files: ReadonlySet<string>;
  readonly secrets: SecretFiles;
  readonly context: TlsContext;
  readonly expiries: readonly Expiry[];

  constructor(given: Config, cx: SetupContext) {
    const sources = new Sources(cx);
    const config = withSecrets(given, sources);
    const common = config.common_tls_context ?? {};
    const pairs = keyPairs(common, sources);
    if (pairs.length > 1)
      throw new ConfigError(
        "common_tls_context.tls_certificates",
        "a client shows one certificate",
      );
    const validation = common.validation_context;
    this.validation = validation && readValidation(validation, sources, cx);
    if (config.auto_sni_san_validation === true && this.validation?.trustedCa === undefined)
      throw new ConfigError(
        "auto_sni_san_validation",
        "a name of a certificate that nobody has verified proves nothing; add trusted_ca",
      );
    checkParameters(common, cx);
    const { key_log: keyLog } = common;
    const { order: _, ...parameters } = parametersOf(common, "client");
    const options: TlsContextOptions = {
      side: "client",
      ...(pairs[0]?.material ?? { certificates: [] }),
      ...parameters,
      ...validationOptions(this.validation),
      ...(keyLog !== undefined && { keyLog: keyLog.path }),
      ...(config.allow_renegotiation === true && { renegotiation: true }),
      tickets: true,
      sessionScope: JSON.stringify([config, validationOptions(this.validation)]),
      maxSessions: config.max_session_keys ?? 1,
    };
    this.context = make(cx, options, pairs[0]?.place ?? "common_tls_context");
    this.files = sources.files;
    this.secrets = sources.secrets;
    this.expiries = expiriesOf(this.context, pairs[0]?.secret, validation?.secret_name);
  }

  release(): void {
    this.context.release();
  }
}

/** TLS of a cluster's upstream connections. */
export class Upstream implements TransportFactory {
  readonly secure = true;
  readonly stats: TlsStats;
  readonly config: Config;
  readonly logsKeys: KeyLogRule | undefined;
  side: ClientSide;

  constructor(config: Config, side: ClientSide, stats: TlsStats) {
    this.config = config;
    this.side = side;
    this.stats = stats;
    this.logsKeys = keyLogRule(config.common_tls_context ?? {});
  }

  connect(socket: TransportSocket, options: TransportOptions): Transport {
    return new ClientHandshake(this, socket, options);
  }

  serverName({ serverName, hostname = "" }: TransportOptions): string {
    if (serverName !== undefined) return serverName;
    const { auto_host_sni, sni = "" } = this.config;
    return auto_host_sni === true && hostname !== "" ? hostname : sni;
  }
}

/** Matches IP addresses, which must not be sent as server name (RFC 6066 §3). */
const ADDRESS = /^[0-9.]+$|:/;

/** One handshake with an upstream: starts TLS, then validates the server's certificate. */
class ClientHandshake implements Transport {
  readonly #tls: Upstream;
  readonly #socket: TransportSocket;
  readonly #options: TransportOptions;
  /** The side that the handshake uses; set again once the socket is connected, as a reload before that releases the old one. */
  #side: ClientSide;

  constructor(tls: Upstream, socket: TransportSocket, options: TransportOptions) {
    this.#tls = tls;
    this.#socket = socket;
    this.#options = options;
    this.#side = tls.side;
  }

  onConnected(): void {
    this.#side = this.#tls.side;
    const serverName = this.#tls.serverName(this.#options);
    const { localAddress, remoteAddress } = this.#socket.connection;
    this.#socket.startTls({
      context: this.#side.context,
      alpn: this.#tls.config.common_tls_context?.alpn_protocols ?? this.#options.alpn ?? [],
      serverName: ADDRESS.test(serverName) ? "" : serverName,
      clientCertificate: "no",
      ...(this.#tls.logsKeys?.(localAddress, remoteAddress) === true && { logsKeys: true }),
    });
  }

  onSecured(info: TlsInfo): void {
    const { stats } = this.#tls;
    if (isKeyMisused(info, "client")) {
      stats.connectionError.inc();
      this.#socket.fail(failureReason("KEY_USAGE_BIT_INCORRECT", ""));
      return;
    }
    const refusal = this.#refusal(info);
    if (refusal !== undefined) {
      stats.onRefused(refusal.stat);
      if (this.#side.validation?.acceptsUntrusted !== true) {
        this.#socket.fail(failureReason("CERTIFICATE_VERIFY_FAILED", refusal.details));
        return;
      }
    }
    stats.onHandshake(info);
    this.#socket.ready();
  }

  #refusal(info: TlsInfo): Refusal | undefined {
    const { subjectAltNames = [] } = this.#options;
    const { validation } = this.#side;
    // Names of a certificate that is not verified prove nothing.
    if (subjectAltNames.length > 0 && validation?.trustedCa === undefined)
      return { stat: "fail_verify_error", details: "" };
    const serverName =
      this.#tls.config.auto_sni_san_validation === true ? this.#tls.serverName(this.#options) : "";
    return validation?.refuse(info, {
      anyOf: subjectAltNames,
      ...(serverName !== "" && { dns: serverName }),
    });
  }

  onTlsError(code: string): string {
    if (code.startsWith("ERR_SSL_")) this.#tls.stats.connectionError.inc();
    return failureReason(code.replace("ERR_SSL_", ""), "");
  }
}
