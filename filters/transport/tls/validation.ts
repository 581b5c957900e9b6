import {
  type Certificate,
  ConfigError,
  compileStringMatch,
  type SetupContext,
  type TlsInfo,
} from "@tsproxy/sdk";
import type { NameMatcher, ValidationContext } from "./config.ts";
import { isTaken } from "./parameters.ts";
import type { Sources } from "./source.ts";

/** Files in which Linux distributions keep the system's CA certificates. */
const SYSTEM_ROOTS = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

/** Why a peer is refused: the stat that counts it, and Envoy's details for the failure reason. */
export interface Refusal {
  readonly stat: "fail_verify_error" | "fail_verify_san" | "fail_verify_cert_hash";
  readonly details: string;
  /** OpenSSL's name for why the chain is not trusted; undefined: it is refused for another reason. */
  readonly chainError?: string;
}

/** Names required for one connection, in addition to those of the config. */
export interface WantedNames {
  /** `auto_san_validation`: the certificate must have one of these names. */
  readonly anyOf?: readonly string[];
  /** `auto_sni_san_validation`: it must have this DNS name; the config's matchers do not count then. */
  readonly dns?: string;
}

/** Validates the certificates of peers, after OpenSSL has verified their chains. */
export interface Validation {
  /** This and the next four fields are options for OpenSSL; undefined: chains are not verified. */
  readonly trustedCa: string | undefined;
  readonly trustedCaPath: string;
  readonly crl: string | undefined;
  readonly crlOfLeafOnly: boolean;
  readonly allowExpired: boolean;
  /** Whether a listener requests a client certificate because of this validation. */
  readonly asks: "no" | "optional" | "required";
  /** A refused certificate is only counted; the connection is accepted. */
  readonly acceptsUntrusted: boolean;
  /** Returns why the peer's certificate is refused; undefined: it is valid, or the peer has none. */
  refuse(tls: TlsInfo, wanted?: WantedNames): Refusal | undefined;
}

/** Envoy's default certificate validator. */
export class DefaultValidation implements Validation {
  readonly trustedCa: string | undefined;
  readonly trustedCaPath: string;
  readonly crl: string | undefined;
  readonly crlOfLeafOnly: boolean;
  readonly allowExpired: boolean;
  readonly acceptsUntrusted: boolean;
  readonly #intermediatesMax: number;
  readonly #names: readonly CertificateCheck[];
  readonly #hashes: readonly string[];
  readonly #spkis: readonly string[];

  constructor(config: ValidationContext, path: string, sources: Sources, cx: SetupContext) {
    this.trustedCa = trustedCa(config, path, sources, cx);
    this.trustedCaPath = config.trusted_ca?.filename ?? "";
    this.crl = revocationLists(this.trustedCa, sources.text(config.crl, `${path}.crl`));
    this.crlOfLeafOnly = config.only_verify_leaf_cert_crl ?? false;
    this.allowExpired = config.allow_expired_certificate;
    this.acceptsUntrusted = config.trust_chain_verification === "ACCEPT_UNTRUSTED";
    // In Envoy the authority at the end counts, and is allowed in any case.
    this.#intermediatesMax = Math.max(0, config.max_verify_depth - 1);
    this.#names = nameChecks(config, path, cx);
    this.#hashes = hashes(config, path);
    this.#spkis = spkis(config, path);
    if (this.trustedCa !== undefined) {
      if (this.crl === undefined || isTaken(cx, { crl: this.crl })) return;
      throw new ConfigError(`${path}.crl`, "holds no revocation list in PEM form");
    }
    if (this.crl !== undefined)
      throw new ConfigError(`${path}.crl`, "a revocation list is of no use without trusted_ca");
    if (this.allowExpired)
      throw new ConfigError(
        `${path}.allow_expired_certificate`,
        "without trusted_ca no dates are looked at; add trusted_ca, or leave this out",
      );
    if (this.#names.length > 0)
      throw new ConfigError(
        path,
        "names of a certificate that nobody has verified prove nothing; add trusted_ca",
      );
  }

  get asks(): "no" | "optional" | "required" {
    if (this.acceptsUntrusted) return "optional";
    // Matchers of names or digests need a certificate.
    if (this.#names.length + this.#hashes.length + this.#spkis.length > 0) return "required";
    return this.trustedCa === undefined ? "no" : "optional";
  }

  refuse(tls: TlsInfo, wanted: WantedNames = {}): Refusal | undefined {
    const { peer } = tls;
    if (peer === undefined) return undefined;
    const refusal = this.#refusal(tls, peer, wanted);
    const looksAtNothing =
      this.trustedCa === undefined && this.#hashes.length + this.#spkis.length === 0;
    tls.peerValidated = refusal === undefined && !looksAtNothing;
    return refusal;
  }

  #refusal(tls: TlsInfo, peer: Certificate, { anyOf = [], dns }: WantedNames): Refusal | undefined {
    const error = this.trustedCa === undefined ? "" : this.#chainError(tls);
    if (error !== "") return untrusted(error, tls);
    const had = peer.names.map(({ value }) => value).join(", ");
    if (anyOf.length > 0 && !anyOf.some((name) => isNamed(peer, name))) {
      const details = `verify cert failed: verify SAN list, expected SANs: [${anyOf.join(", ")}], certificate SANs: [${had}]`;
      return { stat: "fail_verify_san", details };
    }
    const isOfThem =
      dns !== undefined && anyOf.length === 0
        ? hasDnsName(peer, dns)
        : this.#names.length === 0 || this.#names.some((matches) => matches(peer));
    if (!isOfThem) {
      const details = `verify cert failed: SAN matcher, certificate SANs are [${had}]`;
      return { stat: "fail_verify_san", details };
    }
    if (this.#hashes.length + this.#spkis.length === 0) return undefined;
    if (this.#hashes.includes(peer.sha256) || this.#spkis.includes(peer.spki)) return undefined;
    return { stat: "fail_verify_cert_hash", details: "verify cert failed: cert hash and spki" };
  }

  #chainError({ verifyError, peerChain }: TlsInfo): string {
    if (verifyError !== "") return verifyError;
    if (peerChain.length - 1 <= this.#intermediatesMax) return "";
    return intermediates(peerChain, this.trustedCa ?? "") > this.#intermediatesMax
      ? "CERT_CHAIN_TOO_LONG"
      : "";
  }
}

/** How many certificates of a chain stand between the peer's own and the authority, which the peer need not send. Both are PEM. */
function intermediates(chain: readonly string[], authorities: string): number {
  const trusted = authorities.replace(/\s/g, "");
  const above = chain.slice(1);
  const end = above.findIndex((certificate) => trusted.includes(certificate.replace(/\s/g, "")));
  return end === -1 ? above.length : end;
}

/** True if the peer's key was used against its certificate's keyUsage (RFC 5280 §4.2.1.3), which BoringSSL enforces. */
export function isKeyMisused(
  { peer, version, cipher }: TlsInfo,
  side: "server" | "client",
): boolean {
  if (peer?.usages === undefined) return false;
  // With static RSA (up to TLS 1.2) the server's key decrypts and does not sign.
  const decrypts = side === "client" && version !== "TLSv1.3" && !/^(EC)?DHE-/.test(cipher);
  return !peer.usages.includes(decrypts ? "keyEncipherment" : "digitalSignature");
}

/** All CRLs in PEM: those of `crl` and, as in Envoy, those in the file of `trustedCa`. */
export function revocationLists(
  trustedCa: string | undefined,
  crl: string | undefined,
): string | undefined {
  const beside = trustedCa?.match(/-----BEGIN X509 CRL-----[\s\S]*?-----END X509 CRL-----/g) ?? [];
  const all = [...beside, ...(crl === undefined ? [] : [crl])];
  return all.length === 0 ? undefined : all.join("\n");
}

type CertificateCheck = (certificate: Certificate) => boolean;

/** The CA certificates in PEM: `trusted_ca`, else the system's if configured; undefined: none. */
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
      // Tries the next file.
    }
  }
  throw new ConfigError(`${path}.system_root_certs`, "this system keeps none where others do");
}

/** Compiles the name matchers, of which one must match. The older, untyped list counts only if the typed one is empty. */
function nameChecks(
  config: ValidationContext,
  path: string,
  cx: SetupContext,
): readonly CertificateCheck[] {
  const { match_typed_subject_alt_names: typed = [], match_subject_alt_names: untyped = [] } =
    config;
  if (typed.length > 0)
    return typed.map((entry, k) =>
      nameCheck(entry, `${path}.match_typed_subject_alt_names[${k}]`, cx),
    );
  return untyped.map((matcher, k) => {
    const at = `${path}.match_subject_alt_names[${k}]`;
    const types = ["DNS", "URI", "EMAIL", "IP_ADDRESS"] as const;
    const checks = types.map((san_type) => typedCheck({ san_type, matcher }, at, cx));
    return (certificate) => checks.some((matches) => matches(certificate));
  });
}

/** Compiles one typed matcher of subject alternative names. */
export function nameCheck(entry: NameMatcher, path: string, cx: SetupContext): CertificateCheck {
  if (entry.san_type === "OTHER_NAME" && !/^[0-2](\.\d+)+$/.test(entry.oid ?? ""))
    throw new ConfigError(
      `${path}.oid`,
      'an OTHER_NAME is told by its oid, as in "1.3.6.1.4.1.311.20.2.3"',
    );
  return typedCheck(entry, `${path}.matcher`, cx);
}

function typedCheck(
  { san_type, matcher, oid }: NameMatcher,
  path: string,
  cx: SetupContext,
): CertificateCheck {
  const matches = compileStringMatch(matcher, path, cx);
  const { exact } = matcher;
  if (san_type === "DNS" && exact !== undefined) return (peer) => hasDnsName(peer, exact);
  return ({ names }) =>
    names.some(
      (name) =>
        name.type === san_type &&
        (san_type !== "OTHER_NAME" || name.oid === oid) &&
        matches(name.value),
    );
}

function hasDnsName({ names }: Certificate, name: string): boolean {
  return names.some(({ type, value }) => type === "DNS" && isDnsMatch(value, name));
}

/** True if a host name or IP address is among the certificate's names. */
function isNamed({ names }: Certificate, name: string): boolean {
  return names.some(({ type, value }) =>
    type === "DNS" ? isDnsMatch(value, name) : value === name,
  );
}

/** Matches a DNS name; a wildcard stands for the whole first label (RFC 6125 §6.4.3). */
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

/** OpenSSL's messages for verification errors, as Envoy reports them. */
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

/** The refusal of a chain that leads to no trusted authority as it should. `chainError`: OpenSSL's name. */
export function untrusted(chainError: string, tls: TlsInfo): Refusal {
  return { stat: "fail_verify_error", details: chainDetails(chainError, tls), chainError };
}

/** Envoy's details for a chain that OpenSSL could not verify. `error`: OpenSSL's name. */
function chainDetails(error: string, tls: TlsInfo): string {
  const words = SENTENCES[error] ?? error.toLowerCase().replaceAll("_", " ");
  const isOfList = error === "CERT_REVOKED" || error.includes("CRL");
  const sentence = isOfList
    ? `certificate revocation check against provided CRLs failed: ${words}`
    : words;
  const depth = error === "SELF_SIGNED_CERT_IN_CHAIN" ? tls.peerChain.length - 1 : 0;
  return `verify cert failed: X509_verify_cert: certificate verification error at depth ${depth}: ${sentence}`;
}
