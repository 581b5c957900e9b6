import {
  type Certificate,
  ConfigError,
  compileStringMatch,
  type SetupContext,
  type StringMatch,
  type TlsInfo,
} from "@tsproxy/sdk";
import type { ValidationContext } from "./config.ts";
import type { Sources } from "./source.ts";

/** Where Linux distributions keep the roots that they trust. */
const SYSTEM_ROOTS = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

/** Why a peer is refused, by the stat that counts it. */
export interface Refusal {
  readonly stat: "fail_verify_error" | "fail_verify_san" | "fail_verify_cert_hash";
  readonly details: string;
}

/** What a validation context asks of a peer's certificate. */
export class Validation {
  readonly trustedCa: string | undefined;
  readonly trustedCaPath: string;
  readonly crl: string | undefined;
  readonly allowExpired: boolean;
  readonly #acceptUntrusted: boolean;
  readonly #maxDepth: number;
  readonly #names: readonly ((certificate: Certificate) => boolean)[];
  readonly #hashes: readonly string[];
  readonly #spkis: readonly string[];

  constructor(config: ValidationContext, path: string, sources: Sources, cx: SetupContext) {
    this.trustedCa = trustedCa(config, path, sources, cx);
    this.trustedCaPath = config.trusted_ca?.filename ?? "";
    this.crl = sources.text(config.crl, `${path}.crl`);
    this.allowExpired = config.allow_expired_certificate;
    this.#acceptUntrusted = config.trust_chain_verification === "ACCEPT_UNTRUSTED";
    this.#maxDepth = config.max_verify_depth;
    this.#names = nameChecks(config, path, cx);
    this.#hashes = hashes(config, path);
    this.#spkis = spkis(config, path);
    if (this.trustedCa !== undefined) return;
    if (this.crl !== undefined)
      throw new ConfigError(`${path}.crl`, "a revocation list is of no use without trusted_ca");
    if (this.#names.length > 0)
      throw new ConfigError(
        path,
        "names of a certificate that nobody has verified prove nothing; add trusted_ca",
      );
  }

  /** Certificates are looked at. */
  get asks(): boolean {
    return this.trustedCa !== undefined || this.#hashes.length > 0 || this.#spkis.length > 0;
  }

  /** Without a certificate there is nothing that could match, so a client has to have one. */
  get needs(): boolean {
    return this.#names.length + this.#hashes.length + this.#spkis.length > 0;
  }

  /** Undefined: nothing is wrong with it. `names`: one of them has to be the certificate's. */
  refuse(tls: TlsInfo, names: readonly string[] = []): Refusal | undefined {
    const { peer } = tls;
    if (peer === undefined) return undefined;
    const refusal = this.#refusal(tls, peer, names);
    tls.peerValidated = refusal === undefined && (this.asks || names.length > 0);
    return this.#acceptUntrusted ? undefined : refusal;
  }

  #refusal(tls: TlsInfo, peer: Certificate, names: readonly string[]): Refusal | undefined {
    if (this.trustedCa !== undefined) {
      const error =
        tls.verifyError === "" && tls.peerChain.length - 1 > this.#maxDepth + 1
          ? "CERT_CHAIN_TOO_LONG"
          : tls.verifyError;
      if (error !== "") return { stat: "fail_verify_error", details: chainDetails(error, tls) };
    }
    const had = peer.names.map(({ value }) => value).join(", ");
    if (names.length > 0 && !names.some((name) => isNamed(peer, name))) {
      const details = `verify cert failed: verify SAN list, expected SANs: [${names.join(", ")}], certificate SANs: [${had}]`;
      return { stat: "fail_verify_san", details };
    }
    if (this.#names.length > 0 && !this.#names.some((matches) => matches(peer))) {
      const details = `verify cert failed: SAN matcher, certificate SANs are [${had}]`;
      return { stat: "fail_verify_san", details };
    }
    if (this.#hashes.length + this.#spkis.length > 0) {
      if (!this.#hashes.includes(peer.sha256) && !this.#spkis.includes(peer.spki))
        return {
          stat: "fail_verify_cert_hash",
          details: "verify cert failed: cert hash and spki",
        };
    }
    return undefined;
  }
}

function trustedCa(
  config: ValidationContext,
  path: string,
  sources: Sources,
  cx: SetupContext,
): string | undefined {
  const own = sources.text(config.trusted_ca, `${path}.trusted_ca`);
  if (own !== undefined) {
    try {
      cx.tls.certificates(own);
    } catch (error) {
      const what = config.trusted_ca?.filename ?? "it";
      throw new ConfigError(`${path}.trusted_ca`, `${what} ${(error as Error).message}`);
    }
    return own;
  }
  if (config.system_root_certs === undefined) return undefined;
  for (const file of SYSTEM_ROOTS) {
    try {
      return cx.readFile(file);
    } catch {
      // The next distribution's place.
    }
  }
  throw new ConfigError(`${path}.system_root_certs`, "this system keeps none where others do");
}

function nameChecks(
  config: ValidationContext,
  path: string,
  cx: SetupContext,
): ((certificate: Certificate) => boolean)[] {
  const typed = (config.match_typed_subject_alt_names ?? []).map(({ san_type, matcher }, k) => {
    const at = `${path}.match_typed_subject_alt_names[${k}].matcher`;
    const matches = compileStringMatch(matcher, at, cx);
    const { exact } = matcher;
    return ({ names }: Certificate) =>
      names.some(
        ({ type, value }) =>
          type === san_type &&
          (type === "DNS" && exact !== undefined ? isDnsMatch(value, exact) : matches(value)),
      );
  });
  const untyped = (config.match_subject_alt_names ?? []).map((matcher, k) => {
    const matches: StringMatch = compileStringMatch(
      matcher,
      `${path}.match_subject_alt_names[${k}]`,
      cx,
    );
    return ({ names }: Certificate) =>
      names.some(
        ({ type, value }) =>
          matches(value) ||
          (type === "DNS" && matcher.exact !== undefined && isDnsMatch(value, matcher.exact)),
      );
  });
  return [...typed, ...untyped];
}

/** A host name or an IP address among the names of a certificate. */
function isNamed({ names }: Certificate, name: string): boolean {
  return names.some(({ type, value }) =>
    type === "DNS" ? isDnsMatch(value, name) : type === "IP_ADDRESS" && value === name,
  );
}

/** RFC 6125 §6.4.3: a wildcard stands for one whole label, the first. */
export function isDnsMatch(pattern: string, name: string): boolean {
  const p = pattern.toLowerCase();
  const n = name.toLowerCase();
  if (p === n) return true;
  if (!p.startsWith("*.")) return false;
  const dot = n.indexOf(".");
  return dot > 0 && n.slice(dot) === p.slice(1);
}

function hashes(config: ValidationContext, path: string): string[] {
  return (config.verify_certificate_hash ?? []).map((text, k) => {
    const hash = text.replaceAll(":", "").toLowerCase();
    if (!/^[0-9a-f]{64}$/.test(hash))
      throw new ConfigError(
        `${path}.verify_certificate_hash[${k}]`,
        `"${text}" is not a SHA-256 in hex`,
      );
    return hash;
  });
}

function spkis(config: ValidationContext, path: string): readonly string[] {
  const list = config.verify_certificate_spki ?? [];
  for (const [k, spki] of list.entries())
    if (!/^[A-Za-z0-9+/]{43}=$/.test(spki))
      throw new ConfigError(
        `${path}.verify_certificate_spki[${k}]`,
        `"${spki}" is not a SHA-256 in base64`,
      );
  return list;
}

/** OpenSSL's sentences, as Envoy prints them. */
const SENTENCES: Readonly<Record<string, string>> = {
  CERT_CHAIN_TOO_LONG: "certificate chain too long",
  CERT_HAS_EXPIRED: "certificate has expired",
  CERT_NOT_YET_VALID: "certificate is not yet valid",
  CERT_REVOKED: "certificate revoked",
  CERT_REJECTED: "certificate rejected",
  CERT_SIGNATURE_FAILURE: "certificate signature failure",
  CERT_UNTRUSTED: "certificate not trusted",
  CRL_HAS_EXPIRED: "CRL has expired",
  CRL_NOT_YET_VALID: "CRL is not yet valid",
  DEPTH_ZERO_SELF_SIGNED_CERT: "self signed certificate",
  INVALID_CA: "invalid CA certificate",
  INVALID_PURPOSE: "unsupported certificate purpose",
  PATH_LENGTH_EXCEEDED: "path length constraint exceeded",
  SELF_SIGNED_CERT_IN_CHAIN: "self signed certificate in certificate chain",
  UNABLE_TO_GET_CRL: "unable to get certificate CRL",
  UNABLE_TO_GET_ISSUER_CERT: "unable to get issuer certificate",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "unable to get local issuer certificate",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "unable to get local issuer certificate",
};

function chainDetails(error: string, tls: TlsInfo): string {
  const sentence = SENTENCES[error] ?? error.toLowerCase().replaceAll("_", " ");
  const depth = error === "SELF_SIGNED_CERT_IN_CHAIN" ? tls.peerChain.length - 1 : 0;
  return `verify cert failed: X509_verify_cert: certificate verification error at depth ${depth}: ${sentence}`;
}
