import { DER, Der, derTime } from "@tsproxy/sdk";

/** What a certificate's issuer says of it (RFC 6960 §4.2.1), as far as a server that passes it on has to know. */
export interface OcspResponse {
  /** Of the certificate, lower-case hex. */
  readonly serial: string;
  /** Epoch milliseconds; absent: it was never good for longer than a moment. */
  readonly nextUpdate: number | undefined;
}

const BASIC = "1.3.6.1.5.5.7.48.1.1";
const SUCCESSFUL = "00";

/** A text: why it cannot be shown. Its signature is the client's to check. */
export function readOcspResponse(bytes: Uint8Array): OcspResponse | string {
  const outer = new Der(bytes);
  const response = outer.next(DER.SEQUENCE);
  const status = response?.next(DER.ENUMERATED);
  if (response === undefined || status === undefined) return "is no OCSP response in DER";
  if (outer.tag >= 0) return "has more than one OCSP response";
  if (Number(`0x${status.hex()}`) !== Number(SUCCESSFUL))
    return "is the answer to a request that failed";
  const body = response.next(DER.CONTEXT)?.next(DER.SEQUENCE);
  if (body?.next(DER.OID)?.oid() !== BASIC) return "is no basic OCSP response";
  const data = body.next(DER.OCTET_STRING)?.next(DER.SEQUENCE)?.next(DER.SEQUENCE);
  data?.optional(DER.CONTEXT); // version
  data?.next(); // responder
  data?.next(DER.GENERALIZED_TIME); // produced at
  const answers = data?.next(DER.SEQUENCE);
  const answer = answers?.next(DER.SEQUENCE);
  if (answers === undefined || answer === undefined) return "is no OCSP response in DER";
  if (answers.tag >= 0) return "speaks of more than one certificate";
  return single(answer) ?? "is no OCSP response in DER";
}

function single(answer: Der): OcspResponse | undefined {
  const id = answer.next(DER.SEQUENCE);
  id?.next(DER.SEQUENCE); // digest
  id?.next(DER.OCTET_STRING); // of the issuer's name
  id?.next(DER.OCTET_STRING); // of the issuer's key
  const serial = id?.next(DER.INTEGER)?.hex();
  answer.next(); // good, revoked or unknown
  const thisUpdate = derTime(answer.next(DER.GENERALIZED_TIME));
  if (serial === undefined || thisUpdate === undefined) return undefined;
  const next = answer.optional(DER.CONTEXT);
  const nextUpdate = derTime(next?.next(DER.GENERALIZED_TIME));
  if (next !== undefined && nextUpdate === undefined) return undefined;
  return { serial, nextUpdate };
}
