import {
  ConfigError,
  type SetupContext,
  type TlsContext,
  type TlsInfo,
  type Transport,
  type TransportFactory,
  type TransportOptions,
  type TransportSocket,
} from "@tsproxy/sdk";
import type { Config } from "./config.ts";
import { make, readValidation } from "./downstream.ts";
import { failureReason } from "./failure.ts";
import { keyPairs, parametersOf } from "./parameters.ts";
import { withSecrets } from "./secret-file.ts";
import { Sources } from "./source.ts";
import type { TlsStats } from "./stats.ts";
import type { Refusal, Validation } from "./validation.ts";

/** Everything that stands on files. */
export class ClientSide {
  readonly validation: Validation | undefined;
  readonly files: ReadonlySet<string>;
  readonly context: TlsContext;

  constructor(given: Config, cx: SetupContext) {
    const sources = new Sources(cx);
    const config = withSecrets(given, sources);
    const common = config.common_tls_context ?? {};
    const { pairs, bundles } = keyPairs(common, sources);
    if (pairs.length + bundles.length > 1)
      throw new ConfigError(
        "common_tls_context.tls_certificates",
        "a client shows one certificate",
      );
    const validation = common.validation_context;
    this.validation = validation && readValidation(validation, sources, cx);
    const { trustedCa, trustedCaPath = "", crl, allowExpired } = this.validation ?? {};
    this.context = make(cx, {
      side: "client",
      certificates: pairs,
      pkcs12: bundles,
      ...parametersOf(common, "client"),
      ...(trustedCa !== undefined && { trustedCa, trustedCaPath }),
      ...(crl !== undefined && { crl }),
      ...(allowExpired === true && { allowExpired }),
      tickets: true,
      sessionScope: JSON.stringify(config),
      maxSessions: config.max_session_keys ?? 1,
    });
    this.files = sources.files;
  }

  release(): void {
    this.context.release();
  }
}

/** TLS of a cluster. */
export class Upstream implements TransportFactory {
  readonly secure = true;
  readonly stats: TlsStats;
  readonly config: Config;
  side: ClientSide;

  constructor(config: Config, side: ClientSide, stats: TlsStats) {
    this.config = config;
    this.side = side;
    this.stats = stats;
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

/** RFC 6066 §3: an address is no name. */
const ADDRESS = /^[0-9.]+$|:/;

class ClientHandshake implements Transport {
  readonly #tls: Upstream;
  readonly #socket: TransportSocket;
  readonly #options: TransportOptions;
  /** As it is when the socket is connected: until then files may change, and what was there before is released. */
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
    this.#socket.startTls({
      context: this.#side.context,
      alpn: this.#tls.config.common_tls_context?.alpn_protocols ?? this.#options.alpn ?? [],
      serverName: ADDRESS.test(serverName) ? "" : serverName,
      clientCertificate: "no",
    });
  }

  onSecured(info: TlsInfo): void {
    const refusal = this.#refusal(info);
    if (refusal !== undefined) {
      this.#tls.stats.onRefused(refusal.stat);
      this.#socket.fail(failureReason("CERTIFICATE_VERIFY_FAILED", refusal.details));
      return;
    }
    this.#tls.stats.onHandshake(info);
    this.#socket.ready();
  }

  /** A name in a certificate that nobody has verified proves nothing. */
  #refusal(info: TlsInfo): Refusal | undefined {
    const names = this.#names();
    const { validation } = this.#side;
    if (names.length > 0 && validation?.trustedCa === undefined)
      return { stat: "fail_verify_error", details: "" };
    return validation?.refuse(info, names);
  }

  /** Names that this connection asks for beside the config's. */
  #names(): readonly string[] {
    const { subjectAltNames } = this.#options;
    if (subjectAltNames !== undefined) return subjectAltNames;
    if (this.#tls.config.auto_sni_san_validation !== true) return [];
    const serverName = this.#tls.serverName(this.#options);
    return serverName === "" ? [] : [serverName];
  }

  onTlsError(code: string): string {
    if (code.startsWith("ERR_SSL_")) this.#tls.stats.connectionError.inc();
    return failureReason(code.replace("ERR_SSL_", ""), "");
  }
}
