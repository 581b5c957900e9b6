import type { ClientHello, TlsInfo } from "@tsproxy/sdk";

/** Results of a handshake that Node's OpenSSL does not report, derived from what both sides have offered. */

/** IANA numbers of key exchange groups by the names that Envoy and OpenSSL use. */
const GROUPS: Readonly<Record<string, number>> = {
  "P-256": 23,
  prime256v1: 23,
  secp256r1: 23,
  "P-384": 24,
  secp384r1: 24,
  "P-521": 25,
  secp521r1: 25,
  X25519: 29,
  X448: 30,
  SecP256r1MLKEM768: 4587,
  X25519MLKEM768: 4588,
};
const GROUP_NAMES: ReadonlyMap<number, string> = new Map(
  // The first name of each number is Envoy's.
  Object.entries(GROUPS)
    .reverse()
    .map(([name, number]) => [number, name]),
);

const BY_LOWER_CASE: ReadonlyMap<string, number> = new Map(
  Object.entries(GROUPS).map(([name, number]) => [name.toLowerCase(), number]),
);

/** Envoy's name of a group that OpenSSL calls `name`. For a resumed session OpenSSL spells some in lower case (`x25519`). */
export function groupName(name: string): string {
  return GROUP_NAMES.get(BY_LOWER_CASE.get(name.toLowerCase()) ?? -1) ?? name;
}

/** Determines the group that a server's handshake has used. */
export class GroupChoice {
  readonly #own: readonly number[];
  readonly #clientsOrder: boolean;

  /** `curves`: OpenSSL's list, separated by `:` or `/`. `clientsOrder`: the client's order of preference decides, not ours. */
  constructor(curves: string, clientsOrder: boolean) {
    this.#own = curves.split(/[:/]/).flatMap((name) => GROUPS[name] ?? []);
    this.#clientsOrder = clientsOrder;
  }

  /** The group of the key exchange: the first that both sides support. "": none was used (static RSA) or it is unknown. */
  of({ groups }: ClientHello, { version, cipher }: TlsInfo): string {
    if (version !== "TLSv1.3" && !cipher.startsWith("ECDHE-")) return "";
    // Groups of hybrid key exchanges (X25519MLKEM768) exist in TLS 1.3 only.
    const isOffered = (group: number) => version === "TLSv1.3" || group < 4096;
    const [first, second] = this.#clientsOrder ? [groups, this.#own] : [this.#own, groups];
    const chosen = first.find((group) => second.includes(group) && isOffered(group));
    return (chosen !== undefined && GROUP_NAMES.get(chosen)) || "";
  }
}

const BY_CURVE: Readonly<Record<string, string>> = {
  prime256v1: "ecdsa_secp256r1_sha256",
  secp384r1: "ecdsa_secp384r1_sha384",
  secp521r1: "ecdsa_secp521r1_sha512",
};

/**
 * The algorithm of the peer's signature. In TLS 1.3 it follows from the elliptic curve; else it is the first that we accept
 * for its type of key, since signers follow the other side's order. "": the peer has no certificate, or it is unknown.
 */
export function signatureAlgorithm(
  { peer, version }: TlsInfo,
  accepted: readonly string[] | undefined,
): string {
  if (peer === undefined) return "";
  const { keyType, curve } = peer;
  if (keyType === "ed25519") return "ed25519";
  const family = keyType === "ec" ? "ecdsa_" : keyType === "rsa" ? "rsa_" : undefined;
  if (family === undefined) return "";
  if (keyType === "ec" && version === "TLSv1.3") return BY_CURVE[curve] ?? "";
  const usual = keyType === "ec" ? "ecdsa_secp256r1_sha256" : "rsa_pss_rsae_sha256";
  return accepted?.find((name) => name.startsWith(family)) ?? usual;
}
