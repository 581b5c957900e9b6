import { createHash, X509Certificate } from "node:crypto";
import type { AlternativeName, Certificate } from "@tsproxy/sdk";

const PEM = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g;

/** The certificates of a PEM text, in its order. Throws if there is none, or one cannot be read. */
export function certificatesOf(pem: string): X509Certificate[] {
  const found = [...pem.matchAll(PEM)].map(([text]) => new X509Certificate(text));
  if (found.length === 0) throw new Error("holds no certificate in PEM form");
  return found;
}

/** What a certificate says, as packages see it. */
export function describeCertificate(certificate: X509Certificate): Certificate {
  const key = certificate.publicKey;
  const der = key.export({ type: "spki", format: "der" });
  const subject = distinguishedName(certificate.subject);
  return {
    subject,
    issuer: distinguishedName(certificate.issuer),
    commonName: /(?:^|,)CN=((?:[^,\\]|\\.)*)/.exec(subject)?.[1] ?? "",
    serial: certificate.serialNumber.toLowerCase(),
    sha256: digest(certificate.fingerprint256),
    sha1: digest(certificate.fingerprint),
    spki: createHash("sha256").update(der).digest("base64"),
    notBefore: certificate.validFromDate.getTime(),
    notAfter: certificate.validToDate.getTime(),
    names: alternativeNames(certificate.subjectAltName ?? ""),
    keyType: key.asymmetricKeyType ?? "",
    curve: key.asymmetricKeyDetails?.namedCurve ?? "",
    bits: key.asymmetricKeyDetails?.modulusLength ?? 0,
    pem: certificate.toString(),
  };
}

/** Node writes one part a line, the least specific first. */
function distinguishedName(lines: string | undefined): string {
  return (lines ?? "").split("\n").reverse().join(",");
}

function digest(colons: string): string {
  return colons.replaceAll(":", "").toLowerCase();
}

const TYPES: Readonly<Record<string, AlternativeName["type"]>> = {
  DNS: "DNS",
  URI: "URI",
  "IP Address": "IP_ADDRESS",
  email: "EMAIL",
};
/** `DNS:a.test, URI:"text, as a JSON string", IP Address:1.2.3.4`: values that would be ambiguous are quoted. */
const NAME = /([A-Za-z ]+):("(?:[^"\\]|\\.)*"|[^,]*)(?:, |$)/y;

function alternativeNames(text: string): AlternativeName[] {
  const names: AlternativeName[] = [];
  NAME.lastIndex = 0;
  for (let m = NAME.exec(text); m !== null && m[0] !== ""; m = NAME.exec(text)) {
    const value = m[2]!.startsWith('"') ? unquoted(m[2]!) : m[2]!;
    names.push({ type: TYPES[m[1]!] ?? "OTHER_NAME", value });
  }
  return names;
}

function unquoted(text: string): string {
  try {
    return JSON.parse(text) as string;
  } catch {
    return text;
  }
}

/**
 * Whether a chain ends in one of the trusted certificates, dates aside: OpenSSL names only the last of its objections, so that
 * an expired certificate may hide a stranger's. Each link is checked by name and signature.
 */
export function isTrustedChain(
  presented: readonly X509Certificate[],
  trusted: readonly X509Certificate[],
): boolean {
  let current = presented[0];
  for (let depth = 0; current !== undefined && depth <= presented.length; depth++) {
    const subject: X509Certificate = current;
    if (trusted.some((ca) => ca.raw.equals(subject.raw) || isIssuer(ca, subject))) return true;
    current = presented.find((issuer) => issuer !== subject && isIssuer(issuer, subject));
  }
  return false;
}

function isIssuer(issuer: X509Certificate, subject: X509Certificate): boolean {
  return issuer.ca && subject.checkIssued(issuer) && subject.verify(issuer.publicKey);
}
