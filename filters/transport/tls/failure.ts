import type { Refusal } from "./validation.ts";

/** BoringSSL's reason codes by name; for an alert of the peer the code is 1000 plus the alert's number. */
const REASONS: Readonly<Record<string, number>> = {
  BAD_PACKET_LENGTH: 105,
  CERTIFICATE_VERIFY_FAILED: 125,
  CLIENTHELLO_TLSEXT: 129,
  DECODE_ERROR: 137,
  DECRYPTION_FAILED_OR_BAD_RECORD_MAC: 139,
  DIGEST_CHECK_FAILED: 140,
  ERROR_IN_RECEIVED_CIPHER_LIST: 143,
  EXCESSIVE_MESSAGE_SIZE: 150,
  HTTPS_PROXY_REQUEST: 155,
  HTTP_REQUEST: 156,
  INVALID_MESSAGE: 160,
  KEY_USAGE_BIT_INCORRECT: 289,
  NO_CIPHERS_AVAILABLE: 176,
  NO_SHARED_CIPHER: 184,
  PEER_DID_NOT_RETURN_A_CERTIFICATE: 192,
  UNEXPECTED_MESSAGE: 223,
  UNEXPECTED_RECORD: 225,
  UNKNOWN_PROTOCOL: 234,
  UNSUPPORTED_PROTOCOL: 240,
  WRONG_VERSION_NUMBER: 247,
  NO_COMMON_SIGNATURE_ALGORITHMS: 253,
  NO_SHARED_GROUP: 266,
  NO_APPLICATION_PROTOCOL: 307,
};
/** BoringSSL's names of reasons for which OpenSSL has other names. */
const NAMES: Readonly<Record<string, string>> = {
  NO_SUITABLE_SIGNATURE_ALGORITHM: "NO_COMMON_SIGNATURE_ALGORITHMS",
  NO_SUITABLE_KEY_SHARE: "NO_SHARED_GROUP",
  NO_SUITABLE_GROUPS: "NO_SHARED_GROUP",
};
const ALERTS: Readonly<Record<string, number>> = {
  UNEXPECTED_MESSAGE: 10,
  BAD_RECORD_MAC: 20,
  RECORD_OVERFLOW: 22,
  HANDSHAKE_FAILURE: 40,
  BAD_CERTIFICATE: 42,
  UNSUPPORTED_CERTIFICATE: 43,
  CERTIFICATE_REVOKED: 44,
  CERTIFICATE_EXPIRED: 45,
  CERTIFICATE_UNKNOWN: 46,
  ILLEGAL_PARAMETER: 47,
  UNKNOWN_CA: 48,
  ACCESS_DENIED: 49,
  DECODE_ERROR: 50,
  DECRYPT_ERROR: 51,
  PROTOCOL_VERSION: 70,
  INSUFFICIENT_SECURITY: 71,
  INTERNAL_ERROR: 80,
  USER_CANCELLED: 90,
  NO_RENEGOTIATION: 100,
  UNSUPPORTED_EXTENSION: 110,
  UNRECOGNIZED_NAME: 112,
  CERTIFICATE_REQUIRED: 116,
  NO_APPLICATION_PROTOCOL: 120,
};
const LIBRARY_SSL = 16 << 24;
/** BoringSSL's words for ECONNRESET, an error of the system (library 2, reason 104). */
const RESET = `TLS_error:|${(2 << 24) + 104}:system library:OPENSSL_internal:Connection reset by peer:TLS_error_end`;

/** Number of the alert sent if a client's key was used against its certificate's keyUsage. */
export const ILLEGAL_PARAMETER = 47;
/** Numbers of the alerts that BoringSSL sends for verification errors (OpenSSL's names). */
const CHAIN_ALERTS: readonly (readonly [alert: number, words: readonly string[]])[] = [
  [42, ["CERT_NOT_YET_VALID", "CRL_NOT_YET_VALID", "CERT_UNTRUSTED", "CERT_REJECTED"]],
  [43, ["INVALID_PURPOSE"]],
  [44, ["CERT_REVOKED"]],
  [45, ["CERT_HAS_EXPIRED", "CRL_HAS_EXPIRED"]],
  [
    48,
    [
      ...["CERT_CHAIN_TOO_LONG", "PATH_LENGTH_EXCEEDED", "INVALID_CA", "UNABLE_TO_GET_CRL"],
      ...["DEPTH_ZERO_SELF_SIGNED_CERT", "SELF_SIGNED_CERT_IN_CHAIN", "UNABLE_TO_GET_ISSUER_CERT"],
      ...["UNABLE_TO_GET_ISSUER_CERT_LOCALLY", "UNABLE_TO_VERIFY_LEAF_SIGNATURE"],
    ],
  ],
  [51, ["CERT_SIGNATURE_FAILURE", "CRL_SIGNATURE_FAILURE"]],
];
const CERTIFICATE_UNKNOWN = 46;
const BAD_CERTIFICATE_HASH_VALUE = 114;

/** Number of the alert for a refused client certificate. */
export function refusalAlert({ stat, chainError = "" }: Refusal): number {
  if (stat === "fail_verify_cert_hash") return BAD_CERTIFICATE_HASH_VALUE;
  const found = CHAIN_ALERTS.find(([, words]) => words.includes(chainError));
  return found?.[0] ?? CERTIFICATE_UNKNOWN;
}

/**
 * Formats a transport failure reason as Envoy does; "" if the error is not one of TLS. `openSslName`: OpenSSL's reason;
 * `details`: why a certificate was refused, or ""; `code`: BoringSSL's number of the reason, if known.
 */
export function failureReason(openSslName: string, details: string, code?: number): string {
  if (openSslName === "ECONNRESET") return RESET;
  // What OpenSSL calls SSL/TLS_ALERT or SSLV3_ALERT, by its version.
  const named = openSslName.replace(/^SSL\/TLS_ALERT_/, "SSLV3_ALERT_");
  const reason = NAMES[named] ?? named;
  const number = code ?? REASONS[reason] ?? alertNumber(reason);
  // Other errors of the socket are not errors of TLS.
  if (number === undefined && !/^[A-Z0-9_]+$/.test(reason)) return "";
  if (/^E[A-Z]+$/.test(reason)) return "";
  const packed = LIBRARY_SSL + (number ?? 0);
  const more = details === "" ? "" : `:${details}`;
  return `TLS_error:|${packed}:SSL routines:OPENSSL_internal:${reason}${more}:TLS_error_end`;
}

function alertNumber(reason: string): number | undefined {
  const alert = ALERTS[/^(?:TLSV1|TLSV13|SSLV3)_ALERT_(.*)$/.exec(reason)?.[1] ?? ""];
  return alert === undefined ? undefined : 1000 + alert;
}
