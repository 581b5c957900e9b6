import { ConfigError, type TlsContextOptions, type TlsVersion } from "@tsproxy/sdk";
import type { CommonTlsContext, TlsCertificate } from "./config.ts";
import type { Sources } from "./source.ts";

/** Envoy's list: forward secrecy and authenticated encryption only. */
const CIPHERS = [
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-ECDSA-CHACHA20-POLY1305",
  "ECDHE-RSA-AES128-GCM-SHA256",
  "ECDHE-RSA-CHACHA20-POLY1305",
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES256-GCM-SHA384",
];
const CURVES = ["X25519", "P-256"];

const VERSIONS: Readonly<Record<string, TlsVersion>> = {
  TLSv1_0: "TLSv1",
  TLSv1_1: "TLSv1.1",
  TLSv1_2: "TLSv1.2",
  TLSv1_3: "TLSv1.3",
};

type Parameters = Pick<
  TlsContextOptions,
  "minVersion" | "maxVersion" | "ciphers" | "curves" | "signatureAlgorithms"
>;

/** Envoy's defaults: a server speaks 1.2 and 1.3, a client 1.2. */
export function parametersOf(
  { tls_params: params }: CommonTlsContext,
  side: "server" | "client",
): Parameters {
  const { cipher_suites = [], ecdh_curves = [], signature_algorithms = [] } = params ?? {};
  const minVersion = VERSIONS[params?.tls_minimum_protocol_version ?? ""] ?? "TLSv1.2";
  const maxDefault = side === "server" || minVersion === "TLSv1.3" ? "TLSv1.3" : "TLSv1.2";
  const maxVersion = VERSIONS[params?.tls_maximum_protocol_version ?? ""] ?? maxDefault;
  if (minVersion > maxVersion)
    throw new ConfigError(
      "common_tls_context.tls_params",
      "tls_minimum_protocol_version is above tls_maximum_protocol_version",
    );
  const ciphers = cipher_suites.length === 0 ? CIPHERS : cipher_suites.flatMap(groupMembers);
  // OpenSSL's own floor for old versions forbids their signatures; who asks for these versions wants them to work.
  const old = minVersion === "TLSv1" || minVersion === "TLSv1.1";
  return {
    minVersion,
    maxVersion,
    ciphers: [...ciphers, ...(old ? ["@SECLEVEL=0"] : [])].join(":"),
    curves: (ecdh_curves.length === 0 ? CURVES : ecdh_curves).join(":"),
    ...(signature_algorithms.length > 0 && {
      signatureAlgorithms: signature_algorithms.join(":"),
    }),
  };
}

/** `[A|B]`: equally good ones, which OpenSSL has no notion of. */
function groupMembers(entry: string): string[] {
  return entry
    .replace(/^\[|\]$/g, "")
    .split("|")
    .flatMap((part) => part.split(":"))
    .filter((name) => name !== "");
}

export interface KeyPair {
  readonly chain: string;
  readonly key: string;
  readonly password?: string;
  readonly path?: string;
}

/** The certificates of a config, read. */
export function keyPairs(
  common: CommonTlsContext,
  sources: Sources,
): { pairs: KeyPair[]; bundles: { bundle: string; password?: string }[] } {
  const pairs: KeyPair[] = [];
  const bundles: { bundle: string; password?: string }[] = [];
  for (const [k, certificate] of (common.tls_certificates ?? []).entries()) {
    const path = `common_tls_context.tls_certificates[${k}]`;
    const password = sources.text(certificate.password, `${path}.password`)?.replace(/\r?\n$/, "");
    const secret = password === undefined ? {} : { password };
    if (certificate.pkcs12 !== undefined)
      bundles.push({ bundle: sources.base64(certificate.pkcs12, `${path}.pkcs12`), ...secret });
    else pairs.push({ ...pemPair(certificate, path, sources), ...secret });
  }
  return { pairs, bundles };
}

function pemPair(certificate: TlsCertificate, path: string, sources: Sources): KeyPair {
  const chain = sources.text(certificate.certificate_chain, `${path}.certificate_chain`);
  const key = sources.text(certificate.private_key, `${path}.private_key`);
  if (chain === undefined || chain === "")
    throw new ConfigError(path, "certificate_chain is missing");
  if (key === undefined || key === "") throw new ConfigError(path, "private_key is missing");
  const file = certificate.certificate_chain?.filename;
  return { chain, key, ...(file !== undefined && { path: file }) };
}
