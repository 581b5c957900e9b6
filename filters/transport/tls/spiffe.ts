import { type Certificate, ConfigError, type SetupContext, type TlsInfo } from "@tsproxy/sdk";
import type { SpiffeValidator, ValidationContext } from "./config.ts";
import type { Sources } from "./source.ts";
import {
  nameCheck,
  type Refusal,
  revocationLists,
  untrusted,
  type Validation,
} from "./validation.ts";

const SCHEME = "spiffe://";

/**
 * Validates workload identities (SPIFFE X.509-SVID §5): a peer is verified only against the CAs of the trust domain that its
 * URI names. As in Envoy, of the validation context's other fields only URI matchers and `allow_expired_certificate` count.
 */
export class SpiffeValidation implements Validation {
  readonly trustedCa: string;
  readonly trustedCaPath: string;
  readonly crl: string | undefined;
  readonly crlOfLeafOnly = false;
  readonly allowExpired: boolean;
  readonly asks = "required";
  readonly acceptsUntrusted = false;
  readonly #cx: SetupContext;
  /** CA certificates in PEM by trust domain. */
  readonly #bundles = new Map<string, string>();
  readonly #names: readonly ((certificate: Certificate) => boolean)[];

  constructor(
    config: ValidationContext,
    { trust_domains: domains }: SpiffeValidator,
    path: string,
    sources: Sources,
    cx: SetupContext,
  ) {
    const place = `${path}.custom_validator_config.typed_config.trust_domains`;
    for (const [k, { name, trust_bundle: bundle }] of domains.entries()) {
      if (this.#bundles.has(name))
        throw new ConfigError(`${place}[${k}].name`, `"${name}" has a bundle already`);
      this.#bundles.set(
        name,
        readBundle(
          sources.text(bundle, `${place}[${k}].trust_bundle`),
          `${place}[${k}].trust_bundle`,
          cx,
        ),
      );
    }
    this.#cx = cx;
    this.trustedCa = [...this.#bundles.values()].join("\n");
    this.trustedCaPath = `${domains[0]!.name}: ${domains[0]!.trust_bundle.filename ?? "<inline>"}`;
    this.crl = revocationLists(this.trustedCa, undefined);
    this.allowExpired = config.allow_expired_certificate;
    this.#names = (config.match_typed_subject_alt_names ?? []).flatMap((entry, k) =>
      entry.san_type === "URI"
        ? nameCheck(entry, `${path}.match_typed_subject_alt_names[${k}]`, cx)
        : [],
    );
  }

  refuse(tls: TlsInfo): Refusal | undefined {
    const { peer } = tls;
    if (peer === undefined) return undefined;
    const refusal = this.#refusal(tls, peer);
    tls.peerValidated = refusal === undefined;
    return refusal;
  }

  #refusal(tls: TlsInfo, peer: Certificate): Refusal | undefined {
    const signs = peer.usages?.some((usage) => usage === "keyCertSign" || usage === "cRLSign");
    if (peer.authority === true || signs === true) return refused("cert precheck");
    const bundle = this.#bundles.get(trustDomain(peer));
    if (bundle === undefined) return refused("no trust bundle store");
    if (tls.verifyError !== "") return untrusted(tls.verifyError, tls);
    // OpenSSL has verified against the CAs of all trust domains together.
    if (this.#cx.tls.leadsTo?.(tls.peerChain, bundle) !== true) return untrusted(STRANGER, tls);
    if (this.#names.length === 0 || this.#names.some((matches) => matches(peer))) return undefined;
    return { stat: "fail_verify_san", details: "verify cert failed: SAN match" };
  }
}

const STRANGER = "UNABLE_TO_GET_ISSUER_CERT_LOCALLY";

function refused(why: string): Refusal {
  return { stat: "fail_verify_error", details: `verify cert failed: ${why}` };
}

function readBundle(pem: string | undefined, path: string, cx: SetupContext): string {
  try {
    cx.tls.certificates(pem ?? "");
  } catch (error) {
    throw new ConfigError(path, (error as Error).message);
  }
  return pem!;
}

/** Trust domain of the certificate's first URI; "" if that is not a SPIFFE id. */
function trustDomain({ names }: Certificate): string {
  const uri = names.find(({ type }) => type === "URI")?.value ?? "";
  const slash = uri.indexOf("/", SCHEME.length);
  return uri.startsWith(SCHEME) && slash > 0 ? uri.slice(SCHEME.length, slash) : "";
}
