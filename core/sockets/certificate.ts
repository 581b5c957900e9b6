import { createHash, X509Certificate } from "node:crypto";
import type { Certificate } from "@tsproxy/sdk";
import { extensionsOf } from "./certificate-extensions.ts";

const PEM = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g;

/** The certificates of a PEM text, in its order. Throws if there is none, or one cannot be read. */
export function certificatesOf(pem: string): X509Certificate[] {
  const found = [...pem.matchAll(PEM)].map(([text]) => new X509Certificate(text));
  if (found.length === 0) throw new Error("holds no certificate in PEM form");
  return found;
}

/** Describes a certificate for packages. */
export function describeCertificate(certificate: X509Certificate): Certificate {
  const key = certificate.publicKey;
  const der = key.export({ type: "spki", format: "der" });
  const subject = distinguishedName(certificate.subject);
  const { names, usages, mustStaple } = extensionsOf(certificate.raw);
  return {
    subject,
    issuer: distinguishedName(certificate.issuer),
    commonName: /(?:^|,)CN=((?:[^,\\]|\\.)*)/.exec(subject)?.[1] ?? "",
    ...marksOf(certificate),
    spki: createHash("sha256").update(der).digest("base64"),
    notBefore: certificate.validFromDate.getTime(),
    notAfter: certificate.validToDate.getTime(),
    names,
    keyType: key.asymmetricKeyType ?? "",
    curve: key.asymmetricKeyDetails?.namedCurve ?? "",
    bits: key.asymmetricKeyDetails?.modulusLength ?? 0,
    pem: certificate.toString(),
    authority: certificate.ca,
    ...(usages !== undefined && { usages }),
    mustStaple,
  };
}

/** What names a certificate. */
export function marksOf(
  certificate: X509Certificate,
): Pick<Certificate, "serial" | "sha256" | "sha1"> {
  return {
    serial: certificate.serialNumber.toLowerCase(),
    sha256: digest(certificate.fingerprint256),
    sha1: digest(certificate.fingerprint),
  };
}

/** Turns Node's form of a name (one part a line, the least specific first) into one line, the most specific part first. */
function distinguishedName(lines: string | undefined): string {
  return (lines ?? "").split("\n").reverse().join(",");
}

function digest(colons: string): string {
  return colons.replaceAll(":", "").toLowerCase();
}

/**
 * True if a chain ends in one of the trusted certificates, dates aside. Each link is checked by name and signature. OpenSSL does
 * not tell: it names only the last of its objections, so an expired certificate may hide an unknown issuer.
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
