import { DER, Der, latin1Encode } from "@tsproxy/sdk";

/** Fields of a certificate (RFC 5280 §4.1) that the SDK's `Certificate` lacks. A malformed certificate reads as empty. */
export interface CertificateParts {
  /** Lower-case hex. */
  readonly serial: string;
  /** Object identifiers of the extensions, in the certificate's order; at most EXTENSIONS_MAX. */
  readonly extensions: readonly string[];
  readonly der: Uint8Array;
}

/** A global of browsers that every isolate has too. */
declare function atob(text: string): string;

const NOTHING: CertificateParts = { serial: "", extensions: [], der: new Uint8Array(0) };
const EXTENSIONS_MAX = 64;
/** TBSCertificate's extensions are its field [3]. */
const EXTENSIONS = DER.CONTEXT + 3;

/** Reads the first certificate of a PEM text. */
export function partsOfPem(pem: string): CertificateParts {
  const base64 = /-----BEGIN CERTIFICATE-----([\w+/=\s]*)-----END/.exec(pem)?.[1];
  if (base64 === undefined) return NOTHING;
  try {
    return partsOf(latin1Encode(atob(base64.replace(/\s/g, ""))));
  } catch {
    return NOTHING;
  }
}

function partsOf(der: Uint8Array): CertificateParts {
  const body = new Der(der).next(DER.SEQUENCE)?.next(DER.SEQUENCE);
  if (body === undefined) return NOTHING;
  let serial = "";
  const extensions: string[] = [];
  for (let field = body.next(); field !== undefined; field = body.next()) {
    const tag = der[field.from];
    if (tag === DER.INTEGER && serial === "") serial = field.hex();
    if (tag !== EXTENSIONS) continue;
    const list = field.next(DER.SEQUENCE);
    for (let item = list?.next(); item !== undefined; item = list!.next()) {
      if (extensions.length === EXTENSIONS_MAX) break;
      extensions.push(item.next(DER.OID)?.oid() ?? "");
    }
  }
  return { serial, extensions, der };
}
