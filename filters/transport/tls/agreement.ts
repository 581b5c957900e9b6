import type { ClientHello, TlsInfo } from "@tsproxy/sdk";

/** What OpenSSL, as Node has it, does not tell of a handshake, but what follows from what both sides have said. */

/** IANA's numbers of groups, by the names that Envoy and OpenSSL have for them. */
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

/** Envoy's name of a group that OpenSSL calls `name`. */
export function groupName(name: string): string {
  return GROUP_NAMES.get(GROUPS[name] ?? -1) ?? name;
}

export class GroupChoice {
  readonly #own: readonly number[];
  readonly #clientsOrder: boolean;

  /** `curves`: OpenSSL's list. */
  constructor(curves: string, clientsOrder: boolean) {
    this.#own = curves.split(":").flatMap((name) => GROUPS[name] ?? []);
    this.#clientsOrder = clientsOrder;
  }

  /**
   * The group of the key exchange on a server's side: the first that both have, in TLS 1.3 one that the client has sent a key for before
   * one that it would have to be asked for. "": there is none (RSA in the place of a key exchange), or nobody can tell.
   */
  of({ groups, keyShares }: ClientHello, { version, cipher }: TlsInfo): string {
    const isNew = version === "TLSv1.3";
    if (!isNew && !cipher.startsWith("ECDHE-")) return "";
    const [first, second] = this.#clientsOrder ? [groups, this.#own] : [this.#own, groups];
    let chosen: number | undefined;
    for (const group of first) {
      if (!second.includes(group)) continue;
      chosen ??= group;
      if (!isNew) break;
      if (keyShares.includes(group)) {
        chosen = group;
        break;
      }
    }
    return (chosen !== undefined && GROUP_NAMES.get(chosen)) || "";
  }
}

const BY_CURVE: Readonly<Record<string, string>> = {
  prime256v1: "ecdsa_secp256r1_sha256",
  secp384r1: "ecdsa_secp384r1_sha384",
  secp521r1: "ecdsa_secp521r1_sha512",
};

/**
 * What the peer signed with: in TLS 1.3 an elliptic curve has one algorithm; else it is the first that we accept of its kind of key, since
 * whoever signs goes by the other's order. "": the peer has shown nothing.
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
