import {
  ConfigError,
  everyOf,
  type SetupContext,
  type TlsContextOptions,
  type TlsVersion,
} from "@tsproxy/sdk";
import { CipherOrder } from "./cipher-order.ts";
import type { CommonTlsContext, TlsCertificate } from "./config.ts";
import type { Sources } from "./source.ts";

/** The cipher suites of TLS 1.3. As in Envoy, the config cannot choose among them. */
const TLS13 = "[TLS_AES_128_GCM_SHA256|TLS_AES_256_GCM_SHA384|TLS_CHACHA20_POLY1305_SHA256]";
/** Envoy's default cipher suites up to TLS 1.2, all with forward secrecy and authenticated encryption. */
const CIPHERS = [
  "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]",
  "[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]",
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES256-GCM-SHA384",
];
/** Key exchange groups of a server if the config lists none. */
const CURVES = ["X25519MLKEM768", "X25519", "P-256"];
/** The same for a client. It sends key shares for groups with a star: two, since few servers support X25519MLKEM768. */
const CLIENT_CURVES = ["*X25519MLKEM768", "*X25519", "P-256"];

/** BoringSSL's policy FIPS_202205, which follows NIST SP 800-52; it replaces all other TLS parameters of the config. */
const FIPS_CIPHERS = new CipherOrder([
  "[TLS_AES_128_GCM_SHA256|TLS_AES_256_GCM_SHA384]",
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES128-GCM-SHA256",
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES256-GCM-SHA384",
]);
const FIPS: Parameters = {
  minVersion: "TLSv1.2",
  maxVersion: "TLSv1.3",
  order: FIPS_CIPHERS,
  ciphers: FIPS_CIPHERS.list,
  curves: "P-256:P-384",
  signatureAlgorithms: [
    ...["rsa_pkcs1_sha256", "rsa_pkcs1_sha384", "rsa_pkcs1_sha512"],
    ...["ecdsa_secp256r1_sha256", "ecdsa_secp384r1_sha384"],
    ...["rsa_pss_rsae_sha256", "rsa_pss_rsae_sha384", "rsa_pss_rsae_sha512"],
  ].join(":"),
};

const VERSIONS: Readonly<Record<string, TlsVersion>> = {
  TLSv1_0: "TLSv1",
  TLSv1_1: "TLSv1.1",
  TLSv1_2: "TLSv1.2",
  TLSv1_3: "TLSv1.3",
};

type Parameters = Pick<
  TlsContextOptions,
  "minVersion" | "maxVersion" | "ciphers" | "curves" | "signatureAlgorithms"
> & { readonly order: CipherOrder };

/** TLS parameters with Envoy's defaults: TLS 1.2 and 1.3 for servers, 1.2 for clients. */
export function parametersOf(
  { tls_params: params }: CommonTlsContext,
  side: "server" | "client",
): Parameters {
  if (params?.compliance_policies?.includes("FIPS_202205")) return FIPS;
  const { cipher_suites = [], ecdh_curves = [], signature_algorithms = [] } = params ?? {};
  const minVersion = VERSIONS[params?.tls_minimum_protocol_version ?? ""] ?? "TLSv1.2";
  const maxDefault = side === "server" || minVersion === "TLSv1.3" ? "TLSv1.3" : "TLSv1.2";
  const maxVersion = VERSIONS[params?.tls_maximum_protocol_version ?? ""] ?? maxDefault;
  if (minVersion > maxVersion)
    throw new ConfigError(
      "common_tls_context.tls_params",
      "tls_minimum_protocol_version is above tls_maximum_protocol_version",
    );
  // OpenSSL's default security level forbids the signatures of TLS 1.0 and 1.1, so these versions need level 0.
  const old = minVersion === "TLSv1" || minVersion === "TLSv1.1";
  const suites = cipher_suites.length === 0 ? CIPHERS : cipher_suites;
  const order = new CipherOrder([TLS13, ...suites, ...(old ? ["@SECLEVEL=0"] : [])]);
  return {
    minVersion,
    maxVersion,
    order,
    ciphers: order.list,
    curves: curvesOf(ecdh_curves, side),
    ...(signature_algorithms.length > 0 && {
      signatureAlgorithms: signature_algorithms.join(":"),
    }),
  };
}

/** Options that OpenSSL takes, to ask it about one more. */
const TAKEN: TlsContextOptions = {
  side: "client",
  certificates: [],
  minVersion: "TLSv1.2",
  maxVersion: "TLSv1.2",
  ciphers: "",
  curves: "P-256",
  tickets: false,
  sessionScope: "",
};

/** Whether OpenSSL takes these options; asked one by one, since its errors seldom name the option. */
export function isTaken(cx: SetupContext, options: Partial<TlsContextOptions>): boolean {
  try {
    cx.tls.context({ ...TAKEN, ...options }).release();
    return true;
  } catch {
    return false;
  }
}

/**
 * Refuses names that OpenSSL does not know, each at its place: of a list it drops unknown cipher suites without a word, and of
 * the other lists it does not say which entry is wrong.
 */
export function checkParameters({ tls_params }: CommonTlsContext, cx: SetupContext): void {
  const { cipher_suites = [], ecdh_curves = [], signature_algorithms = [] } = tls_params ?? {};
  const ask = (
    list: string,
    what: string,
    name: string,
    k: number,
    more: Partial<TlsContextOptions>,
  ): void => {
    if (isTaken(cx, more)) return;
    throw new ConfigError(
      `common_tls_context.tls_params.${list}[${k}]`,
      `OpenSSL knows no ${what} "${name}"; leave it out`,
    );
  };
  everyOf(cipher_suites, (entry, k) => {
    // The hyphen is an operator only at the start of a name.
    for (const suite of entry.split(/[:+![\]|]/).map((part) => part.replace(/^-/, "")))
      if (suite !== "") ask("cipher_suites", "cipher suite", suite, k, { ciphers: suite });
  });
  everyOf(ecdh_curves, (curve, k) => ask("ecdh_curves", "curve", curve, k, { curves: curve }));
  everyOf(signature_algorithms, (name, k) =>
    ask("signature_algorithms", "signature algorithm", name, k, { signatureAlgorithms: name }),
  );
}

function curvesOf(given: readonly string[], side: "server" | "client"): string {
  if (side === "client") return (given.length === 0 ? CLIENT_CURVES : given).join(":");
  // With slashes OpenSSL follows the server's order, as BoringSSL does, even if the client must be asked for another key share.
  return (given.length === 0 ? CURVES : given).join("/");
}

/** A certificate of the config with its key and OCSP staple, read from their sources. */
export interface KeyPair {
  /** Path of the certificate in the config. */
  readonly place: string;
  /** Name of the secret that it comes from; undefined: none. */
  readonly secret: string | undefined;
  /** For OpenSSL: a chain and its key, or a PKCS #12 bundle. */
  readonly material: Pick<TlsContextOptions, "certificates" | "pkcs12">;
  /** Certificate chain in PEM; "" for a PKCS #12 bundle. */
  readonly chain: string;
  readonly ocsp?: Uint8Array;
}

/** Reads the certificates of a config, in its order. */
export function keyPairs(common: CommonTlsContext, sources: Sources): KeyPair[] {
  return (common.tls_certificates ?? []).map((certificate, k) => {
    const place = `common_tls_context.tls_certificates[${k}]`;
    const password = sources.text(certificate.password, `${place}.password`);
    const secret = password === undefined ? {} : { password: password.replace(/\r?\n$/, "") };
    const { ocsp_staple: staple, pkcs12 } = certificate;
    const ocsp = staple && sources.bytes(staple, `${place}.ocsp_staple`);
    const rest = { place, secret: certificate.secret_name, ...(ocsp !== undefined && { ocsp }) };
    if (pkcs12 !== undefined) {
      const bundle = sources.base64(pkcs12, `${place}.pkcs12`);
      return {
        ...rest,
        chain: "",
        material: { certificates: [], pkcs12: [{ bundle, ...secret }] },
      };
    }
    const pair = pemPair(certificate, place, sources);
    return { ...rest, chain: pair.chain, material: { certificates: [{ ...pair, ...secret }] } };
  });
}

function pemPair(
  certificate: TlsCertificate,
  path: string,
  sources: Sources,
): TlsContextOptions["certificates"][number] {
  const chain = sources.text(certificate.certificate_chain, `${path}.certificate_chain`);
  const key = sources.text(certificate.private_key, `${path}.private_key`);
  if (chain === undefined || chain === "")
    throw new ConfigError(path, "certificate_chain is missing");
  if (key === undefined || key === "") throw new ConfigError(path, "private_key is missing");
  const file = certificate.certificate_chain?.filename;
  return { chain, key, ...(file !== undefined && { path: file }) };
}
