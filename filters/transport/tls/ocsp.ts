import { DER, Der, derTime } from "@tsproxy/sdk";

/** The fields of an OCSP response (RFC 6960 §4.2.1) that a server needs to staple it. */
export interface OcspResponse {
  /** Serial number of the certificate in lower-case hex. */
  readonly serial: string;
  /** Epoch milliseconds until which the response is valid; undefined: it has no such time and is never stapled. */
  readonly nextUpdate: number | undefined;
}

const BASIC = "1.3.6.1.5.5.7.48.1.1";
const SUCCESSFUL = "00";

/** Parses an OCSP response; returns a text if it cannot be used. The signature is not checked, that is the client's task. */
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

/** Parses a SingleResponse (RFC 6960 §4.2.1); undefined if malformed. */
function single(answer: Der): OcspResponse | undefined {
  const id = answer.next(DER.SEQUENCE);
  id?.next(DER.SEQUENCE); // hash algorithm
  id?.next(DER.OCTET_STRING); // hash of the issuer's name
  id?.next(DER.OCTET_STRING); // hash of the issuer's key
  const serial = id?.next(DER.INTEGER)?.hex();
  answer.next(); // status: good, revoked or unknown
  const thisUpdate = derTime(answer.next(DER.GENERALIZED_TIME));
  if (serial === undefined || thisUpdate === undefined) return undefined;
  const next = answer.optional(DER.CONTEXT);
  const nextUpdate = derTime(next?.next(DER.GENERALIZED_TIME));
  if (next !== undefined && nextUpdate === undefined) return undefined;
  return { serial, nextUpdate };
}
