import type { Counter, Stats, TlsInfo } from "@tsproxy/sdk";

/** `ssl.` of one listener or cluster. */
export class TlsStats {
  readonly connectionError: Counter;
  readonly noClientCertificate: Counter;
  readonly #stats: Stats;
  readonly #handshake: Counter;
  readonly #resumed: Counter;
  readonly #noCertificate: Counter;
  readonly #staples: Readonly<Record<"requests" | "yes" | "omitted" | "fail", Counter>>;
  readonly #refused: Readonly<Record<string, Counter>>;

  constructor(stats: Stats) {
    this.#stats = stats;
    this.connectionError = stats.counter("connection_error");
    this.noClientCertificate = stats.counter("fail_verify_no_cert");
    this.#handshake = stats.counter("handshake");
    this.#resumed = stats.counter("session_reused");
    this.#noCertificate = stats.counter("no_certificate");
    this.#refused = {
      fail_verify_error: stats.counter("fail_verify_error"),
      fail_verify_san: stats.counter("fail_verify_san"),
      fail_verify_cert_hash: stats.counter("fail_verify_cert_hash"),
    };
    this.#staples = {
      requests: stats.counter("ocsp_staple_requests"),
      yes: stats.counter("ocsp_staple_responses"),
      omitted: stats.counter("ocsp_staple_omitted"),
      fail: stats.counter("ocsp_staple_failed"),
    };
    // Whoever breaks it is refused, as in Envoy, which counts that elsewhere.
    stats.counter("was_key_usage_invalid");
  }

  /** Names of versions and ciphers are those of OpenSSL's list, so they are few. */
  onHandshake({ version, cipher, curve, resumed, peer }: TlsInfo): void {
    this.#handshake.inc();
    if (resumed) this.#resumed.inc();
    if (peer === undefined) this.#noCertificate.inc();
    this.#stats.counter(`versions.${version}`).inc();
    this.#stats.counter(`ciphers.${cipher}`).inc();
    if (curve !== "") this.#stats.counter(`curves.${CURVES[curve] ?? curve}`).inc();
  }

  onStaple(staple: "unasked" | "yes" | "omitted" | "fail"): void {
    if (staple === "unasked") return;
    this.#staples.requests.inc();
    this.#staples[staple].inc();
  }

  onRefused(stat: string): void {
    this.#refused[stat]?.inc();
  }
}

const CURVES: Readonly<Record<string, string>> = {
  prime256v1: "P-256",
  secp384r1: "P-384",
  secp521r1: "P-521",
};
