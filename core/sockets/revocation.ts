import { type KeyObject, verify, type X509Certificate } from "node:crypto";
import { DER, Der, derTime } from "@tsproxy/sdk";

const PEM = /-----BEGIN X509 CRL-----([\s\S]*?)-----END X509 CRL-----/g;

/** Digests by the OID of the signature algorithm. Undefined: the algorithm includes its digest (Ed25519). */
const DIGESTS: Readonly<Record<string, string | undefined>> = {
  "1.2.840.113549.1.1.5": "sha1",
  "1.2.840.113549.1.1.11": "sha256",
  "1.2.840.113549.1.1.12": "sha384",
  "1.2.840.113549.1.1.13": "sha512",
  "1.2.840.10045.4.3.2": "sha256",
  "1.2.840.10045.4.3.3": "sha384",
  "1.2.840.10045.4.3.4": "sha512",
  "1.3.101.112": undefined,
};

/**
 * A certificate revocation list (RFC 5280 §5.1). OpenSSL checks these itself, but Node cannot tell it to check the peer's own
 * certificate only: that is done here.
 */
export interface RevocationList {
  /** The issuer's name, as DER. */
  readonly issuer: Uint8Array;
  /** Milliseconds since 1970, as `nextUpdate`; that is Infinity if the list names none. */
  readonly thisUpdate: number;
  readonly nextUpdate: number;
  /** Serial numbers, as `Der.hex` writes them. */
  readonly revoked: ReadonlySet<string>;
  isSignedBy(key: KeyObject): boolean;
}

/** The lists of a PEM text, each on its own, for Node takes only the first of a text. Without any, the text as it is. */
export function listsApart(pem: string): string[] {
  return pem.match(PEM) ?? [pem];
}

/** Reads the lists in a PEM text. Throws if one cannot be read. */
export function revocationLists(pem: string): RevocationList[] {
  return [...pem.matchAll(PEM)].map(([, base64 = ""]) => {
    const list = read(Buffer.from(base64, "base64"));
    if (list === undefined) throw new Error("holds a revocation list that cannot be read");
    return list;
  });
}

function read(bytes: Uint8Array): RevocationList | undefined {
  const outer = new Der(bytes).next(DER.SEQUENCE);
  const signed = outer?.next(DER.SEQUENCE);
  const algorithm = outer?.next(DER.SEQUENCE)?.next(DER.OID)?.oid() ?? "";
  const signature = outer?.next(DER.BIT_STRING)?.content.subarray(1);
  if (signed === undefined || signature === undefined || !(algorithm in DIGESTS)) return undefined;
  const { whole } = signed;
  signed.optional(DER.INTEGER); // version
  signed.next(DER.SEQUENCE); // algorithm, once more
  const issuer = signed.next(DER.SEQUENCE)?.whole;
  const thisUpdate = derTime(signed.next());
  const isTime = signed.tag === DER.UTC_TIME || signed.tag === DER.GENERALIZED_TIME;
  const nextUpdate = isTime ? derTime(signed.next()) : Number.POSITIVE_INFINITY;
  if (issuer === undefined || thisUpdate === undefined || nextUpdate === undefined)
    return undefined;
  const revoked = new Set<string>();
  const entries = signed.optional(DER.SEQUENCE);
  for (
    let each = entries?.next(DER.SEQUENCE);
    each !== undefined;
    each = entries?.next(DER.SEQUENCE)
  )
    revoked.add(each.next(DER.INTEGER)?.hex() ?? "");
  const digest = DIGESTS[algorithm] ?? null;
  return {
    issuer,
    thisUpdate,
    nextUpdate,
    revoked,
    isSignedBy: (key) => verify(digest, whole, key, signature),
  };
}

/** OpenSSL's error code for a certificate by these lists; "" if it is good. `issuers`: certificates to find its issuer among. */
export function revocationError(
  certificate: X509Certificate,
  issuers: readonly X509Certificate[],
  lists: readonly RevocationList[],
  now = Date.now(),
): string {
  const facts = identity(certificate.raw);
  const mine = lists.filter(({ issuer }) => Buffer.compare(issuer, facts.issuer) === 0);
  const signed = mine.find((list) =>
    issuers.some((ca) => certificate.checkIssued(ca) && list.isSignedBy(ca.publicKey)),
  );
  if (signed === undefined)
    return mine.length === 0 ? "UNABLE_TO_GET_CRL" : "CRL_SIGNATURE_FAILURE";
  if (signed.thisUpdate > now) return "CRL_NOT_YET_VALID";
  if (signed.nextUpdate < now) return "CRL_HAS_EXPIRED";
  return signed.revoked.has(facts.serial) ? "CERT_REVOKED" : "";
}

/** The serial number and issuer of a certificate (RFC 5280 §4.1). */
function identity(certificate: Uint8Array): {
  readonly serial: string;
  readonly issuer: Uint8Array;
} {
  const signed = new Der(certificate).next(DER.SEQUENCE)?.next(DER.SEQUENCE);
  signed?.optional(DER.CONTEXT); // version
  const serial = signed?.next(DER.INTEGER)?.hex() ?? "";
  signed?.next(DER.SEQUENCE); // algorithm
  return { serial, issuer: signed?.next(DER.SEQUENCE)?.whole ?? new Uint8Array(0) };
}
