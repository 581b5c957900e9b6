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
  const subject = nameParts(certificate.subject);
  const { names, usages, mustStaple } = extensionsOf(certificate.raw);
  return {
    subject: distinguishedName(subject),
    issuer: distinguishedName(nameParts(certificate.issuer)),
    commonName:
      subject
        .flat()
        .find((attribute) => attribute.startsWith("CN="))
        ?.slice(3) ?? "",
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

/**
 * The parts of a name that Node shows one a line, the least specific first; here the most specific comes first. A part has
 * several attributes seldom: Node has ` + ` between them, and escapes a plus sign within one.
 */
function nameParts(lines: string | undefined): string[][] {
  const parts = (lines ?? "").split("\n").map((part) => part.split(" + ").reverse());
  return parts.reverse();
}

/** A name in RFC 2253's form, with the bytes of all that is not ASCII escaped, as Envoy writes it. */
function distinguishedName(parts: readonly (readonly string[])[]): string {
  const text = parts.map((attributes) => attributes.join("+")).join(",");
  return text.replace(/\P{ASCII}+/gu, (letters) =>
    Buffer.from(letters).toString("hex").toUpperCase().replace(/../g, "\\$&"),
  );
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
