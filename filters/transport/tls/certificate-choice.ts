import type { Certificate, ClientHello } from "@tsproxy/sdk";
import type { OcspResponse } from "./ocsp.ts";
import type { ServerContexts } from "./server-contexts.ts";

export type StaplePolicy = "LENIENT_STAPLING" | "STRICT_STAPLING" | "MUST_STAPLE";

/** A certificate that a listener can present, with its OpenSSL contexts. */
export interface Candidate {
  readonly contexts: ServerContexts;
  /** Name of the secret that it comes from; undefined: none. */
  readonly secret: string | undefined;
  readonly certificate: Certificate;
  readonly ocsp: OcspResponse | undefined;
}

/** `staple`: "unasked": the client did not request one; "fail": the certificate must not be presented without one. */
export interface Choice {
  readonly candidate: Candidate;
  readonly staple: "unasked" | "yes" | "omitted" | "fail";
}

/** OpenSSL's names of certificates' curves, by IANA number of group (23 to 25) or signature algorithm. */
const CURVES: Readonly<Record<number, string>> = {
  23: "prime256v1",
  24: "secp384r1",
  25: "secp521r1",
  1027: "prime256v1",
  1283: "secp384r1",
  1539: "secp521r1",
};
export interface ChoiceOptions {
  readonly policy: StaplePolicy;
  /** `full_scan_certs_on_sni_mismatch`: if no certificate has the server name, the choice is made as if the client sent none. */
  readonly scansAll: boolean;
  readonly maxVersion: string;
  /** IANA numbers of the cipher suites (up to TLS 1.2) for certificates with ECDSA keys. */
  readonly ecdsaSuites: ReadonlySet<number>;
}

/**
 * Chooses the certificate for a client as Envoy does: by server name (exact, then with a wildcard for the first label), and
 * among those with the name one with an ECDSA key that the client can verify before other keys. Without a match the first
 * certificate is used.
 */
export class CertificateChoice {
  readonly #all: readonly Candidate[];
  readonly #options: ChoiceOptions;
  readonly #byName = new Map<string, Candidate[]>();

  constructor(candidates: readonly Candidate[], options: ChoiceOptions) {
    this.#all = candidates;
    this.#options = options;
    for (const candidate of candidates)
      for (const name of namesOf(candidate.certificate)) this.#add(name.toLowerCase(), candidate);
  }

  /** Registers a certificate for a name; only the first for each type of key counts. */
  #add(name: string, candidate: Candidate): void {
    const list = this.#byName.get(name) ?? [];
    if (list.length === 0) this.#byName.set(name, list);
    const { keyType } = candidate.certificate;
    if (!list.some((other) => other.certificate.keyType === keyType)) list.push(candidate);
  }

  choose(hello: ClientHello, now: number): Choice {
    // A single certificate is presented whatever the client asks for.
    if (this.#all.length === 1) return this.#choice(this.#all[0]!, hello, now);
    const { serverName } = hello;
    const curves = this.#curves(hello);
    const among = (list: readonly Candidate[] | undefined) =>
      this.#among(list ?? [], curves, hello, now);
    if (serverName !== "") {
      const dot = serverName.indexOf(".", 1);
      const wildcard = dot > 0 ? `*${serverName.slice(dot)}` : "";
      const found = among(this.#byName.get(serverName)) ?? among(this.#byName.get(wildcard));
      if (found !== undefined) return found;
    }
    const scanned = serverName === "" || this.#options.scansAll ? among(this.#all) : undefined;
    return scanned ?? this.#choice(this.#all[0]!, hello, now);
  }

  /** The best certificate of a list for the client; undefined if none is suitable. */
  #among(
    list: readonly Candidate[],
    curves: ReadonlySet<string>,
    hello: ClientHello,
    now: number,
  ): Choice | undefined {
    let second: Choice | undefined;
    for (const candidate of list) {
      const choice = this.#choice(candidate, hello, now);
      if (choice.staple === "fail") continue;
      const { keyType, curve } = candidate.certificate;
      if (curves.has(curve)) return choice;
      if (keyType === "ec") continue;
      if (curves.size === 0) return choice;
      second ??= choice;
    }
    return second;
  }

  /** Curves of ECDSA keys that the client can verify; empty if it does not support ECDSA. */
  #curves(hello: ClientHello): ReadonlySet<string> {
    const { versions, signatureAlgorithms, groups, cipherSuites } = hello;
    const known = (numbers: readonly number[]) => new Set(numbers.flatMap((n) => CURVES[n] ?? []));
    if (versions.length > 0 && this.#options.maxVersion === "TLSv1.3")
      return known(signatureAlgorithms);
    return cipherSuites.some((suite) => this.#options.ecdsaSuites.has(suite))
      ? known(groups)
      : new Set();
  }

  #choice(candidate: Candidate, { asksForStatus }: ClientHello, now: number): Choice {
    if (!asksForStatus) return { candidate, staple: "unasked" };
    const { ocsp, certificate } = candidate;
    if (ocsp?.nextUpdate !== undefined && ocsp.nextUpdate >= now)
      return { candidate, staple: "yes" };
    const policy = certificate.mustStaple === true ? "MUST_STAPLE" : this.#options.policy;
    const isWanted =
      policy === "MUST_STAPLE" || (policy === "STRICT_STAPLING" && ocsp !== undefined);
    return { candidate, staple: isWanted ? "fail" : "omitted" };
  }
}

/** The certificate's DNS names; its common name if it has no subject alternative names of any type. */
function namesOf({ names, commonName }: Certificate): readonly string[] {
  if (names.length > 0) return names.filter(({ type }) => type === "DNS").map(({ value }) => value);
  return commonName === "" ? [] : [commonName];
}
