import type { Counter, Stats, TlsInfo } from "@tsproxy/sdk";
import { groupName, signatureAlgorithm } from "./agreement.ts";

/** The stats under `ssl.` of one listener or cluster. */
export class TlsStats {
  readonly connectionError: Counter;
  readonly noClientCertificate: Counter;
  readonly #stats: Stats;
  readonly #algorithms: readonly string[] | undefined;
  readonly #counted = new Map<string, Counter>();
  readonly #handshake: Counter;
  readonly #resumed: Counter;
  readonly #noCertificate: Counter;
  readonly #staples: Readonly<Record<"requests" | "yes" | "omitted" | "fail", Counter>>;
  readonly #refused: Readonly<Record<string, Counter>>;

  /** `algorithms`: the signature algorithms that the config lists, if any. */
  constructor(stats: Stats, algorithms?: readonly string[]) {
    this.#stats = stats;
    this.#algorithms = algorithms;
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
  }

  /** Counts a completed handshake. The names are limited to OpenSSL's lists, so they make few counters. */
  onHandshake(info: TlsInfo): void {
    const { version, cipher, curve, resumed, peer } = info;
    this.#handshake.inc();
    if (resumed) this.#resumed.inc();
    if (peer === undefined) this.#noCertificate.inc();
    this.#count("versions", version);
    this.#count("ciphers", cipher);
    this.#count("curves", groupName(curve));
    this.#count("sigalgs", signatureAlgorithm(info, this.#algorithms));
  }

  #count(what: string, name: string): void {
    if (name === "") return;
    const key = `${what}.${name}`;
    let counter = this.#counted.get(key);
    if (counter === undefined) this.#counted.set(key, (counter = this.#stats.counter(key)));
    counter.inc();
  }

  /** Sets the gauges of certificates' expiry, in Unix seconds; of several with one name the last counts, as in Envoy. */
  onCertificates(certificates: readonly { readonly name: string; readonly notAfter: number }[]) {
    for (const { name, notAfter } of certificates)
      this.#stats
        .gauge(`certificate.${name}.expiration_unix_time_seconds`)
        .set(Math.floor(notAfter / 1000));
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
