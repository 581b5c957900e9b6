import { isIPv6 } from "node:net";
import { type AlternativeName, DER, Der, formatIp, utf8Decode } from "@tsproxy/sdk";

/** Extensions of a certificate that Node does not show. What cannot be parsed counts as absent. */
export interface CertificateExtensions {
  readonly names: readonly AlternativeName[];
  readonly usages: readonly string[] | undefined;
  readonly mustStaple: boolean;
}

const KEY_USAGE = "2.5.29.15";
const ALTERNATIVE_NAMES = "2.5.29.17";
const TLS_FEATURES = "1.3.6.1.5.5.7.1.24";
/** The TLS feature that obliges the server to staple: status_request (RFC 7633 §4). */
const STATUS_REQUEST = "05";

/** Names of the KeyUsage bits, from bit 0 on (RFC 5280 §4.2.1.3). */
const USAGES = [
  "digitalSignature",
  "nonRepudiation",
  "keyEncipherment",
  "dataEncipherment",
  "keyAgreement",
  "keyCertSign",
  "cRLSign",
  "encipherOnly",
  "decipherOnly",
] as const;

/** Reads the extensions of a certificate in DER. */
export function extensionsOf(certificate: Uint8Array): CertificateExtensions {
  const found = new Map<string, Der>();
  const list = extensionList(certificate);
  for (let each = list?.next(DER.SEQUENCE); each !== undefined; each = list?.next(DER.SEQUENCE)) {
    const id = each.next(DER.OID)?.oid() ?? "";
    each.optional(DER.BOOLEAN); // critical
    const value = each.next(DER.OCTET_STRING);
    if (value !== undefined) found.set(id, value);
  }
  return {
    names: alternativeNames(found.get(ALTERNATIVE_NAMES)),
    usages: usages(found.get(KEY_USAGE)),
    mustStaple: hasStatusRequest(found.get(TLS_FEATURES)),
  };
}

/** Finds the list of extensions: the last field of TBSCertificate, after optional ones (RFC 5280 §4.1). */
function extensionList(certificate: Uint8Array): Der | undefined {
  const signed = new Der(certificate).next(DER.SEQUENCE)?.next(DER.SEQUENCE);
  for (let field = signed?.next(); field !== undefined; field = signed?.next())
    if (signed?.tag === DER.CONTEXT + 3) return signed.next()?.next(DER.SEQUENCE);
  return undefined;
}

function usages(extension: Der | undefined): readonly string[] | undefined {
  const bits = extension?.next(DER.BIT_STRING)?.content;
  if (bits === undefined) return undefined;
  // The first byte of a BIT STRING is the number of unused bits in the last one; those are 0.
  return USAGES.filter((_, k) => ((bits[1 + (k >> 3)] ?? 0) & (0x80 >> (k & 7))) !== 0);
}

function hasStatusRequest(extension: Der | undefined): boolean {
  const features = extension?.next(DER.SEQUENCE);
  for (let each = features?.next(); each !== undefined; each = features?.next())
    if (each.hex() === STATUS_REQUEST) return true;
  return false;
}

/** Tags of GeneralName (RFC 5280 §4.2.1.6); that of a constructed type is `DER.CONTEXT` plus its number. */
const NAME = { EMAIL: 0x81, DNS: 0x82, URI: 0x86, IP: 0x87, OTHER: 0xa0 } as const;

function alternativeNames(extension: Der | undefined): AlternativeName[] {
  const names: AlternativeName[] = [];
  const list = extension?.next(DER.SEQUENCE);
  for (let tag = list?.tag ?? -1; tag >= 0; tag = list?.tag ?? -1) {
    const value = list?.next();
    if (value === undefined) break;
    if (tag === NAME.DNS) names.push({ type: "DNS", value: value.text() });
    else if (tag === NAME.URI) names.push({ type: "URI", value: value.text() });
    else if (tag === NAME.EMAIL) names.push({ type: "EMAIL", value: value.text() });
    else if (tag === NAME.IP) names.push({ type: "IP_ADDRESS", value: address(value.content) });
    else if (tag === NAME.OTHER) {
      const oid = value.next(DER.OID)?.oid() ?? "";
      const inner = value.next(DER.CONTEXT);
      if (inner !== undefined) names.push({ type: "OTHER_NAME", oid, value: otherValue(inner) });
    }
  }
  return names;
}

function address(bytes: Uint8Array): string {
  const text = bytes.length === 4 || bytes.length === 16 ? formatIp(bytes) : "";
  return isIPv6(text) || bytes.length === 4 ? text : "";
}

const UTF8_STRING = 0x0c;
/** The value of an otherName as text: strings as they are, numbers in decimal, booleans as Envoy prints them. */
function otherValue(inner: Der): string {
  const { tag } = inner;
  const value = inner.next();
  if (value === undefined) return "";
  const { content } = value;
  if (tag === UTF8_STRING) return utf8Decode(content, 0, content.length);
  if (tag === DER.BOOLEAN) return content[0] === 0 ? "false" : "true";
  if (tag === DER.INTEGER || tag === DER.ENUMERATED)
    return content.length === 0
      ? ""
      : BigInt.asIntN(
          content.length * 8,
          BigInt(`0x${Buffer.from(content).toString("hex")}`),
        ).toString();
  if (tag === DER.OID) return value.oid();
  return value.text();
}
