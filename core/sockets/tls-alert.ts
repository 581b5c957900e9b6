import { createCipheriv, createHmac } from "node:crypto";

/** The cipher suites of RFC 8446 appendix B.4, by OpenSSL's names. */
const SUITES: Readonly<Record<string, { algorithm: string; keySize: number; hash: string }>> = {
  TLS_AES_128_GCM_SHA256: { algorithm: "aes-128-gcm", keySize: 16, hash: "sha256" },
  TLS_AES_256_GCM_SHA384: { algorithm: "aes-256-gcm", keySize: 32, hash: "sha384" },
  TLS_CHACHA20_POLY1305_SHA256: { algorithm: "chacha20-poly1305", keySize: 32, hash: "sha256" },
};
const IV_SIZE = 12;
const TAG_SIZE = 16;
const APPLICATION_DATA = 23;
const ALERT = 21;
const FATAL = 2;

/** The keys of one direction of a TLS 1.3 connection. */
export interface WriteKeys {
  /** `server_application_traffic_secret_0`, as OpenSSL logs it. */
  readonly secret: Buffer;
  /** OpenSSL's name. */
  readonly cipher: string;
  /** Number of records written with them so far. */
  readonly records: number;
}

/**
 * Makes the TLS record of a fatal alert (RFC 8446 §6). OpenSSL sends alerts only for what it refuses itself. Client certificates
 * are judged after the handshake, and Node has no way to make OpenSSL send an alert then. Undefined: the cipher is not in SUITES.
 */
export function alertRecord({ secret, cipher, records }: WriteKeys, alert: number) {
  const suite = SUITES[cipher];
  if (suite === undefined) return undefined;
  const { algorithm, keySize, hash } = suite;
  const key = expand(secret, "key", keySize, hash);
  // RFC 8446 §5.3: the nonce is the IV XOR the number of the record.
  const nonce = expand(secret, "iv", IV_SIZE, hash);
  nonce[IV_SIZE - 1]! ^= records;
  const text = Buffer.of(FATAL, alert, ALERT);
  const head = Buffer.of(APPLICATION_DATA, 3, 3, 0, text.length + TAG_SIZE);
  const options = { authTagLength: TAG_SIZE };
  const sealed = createCipheriv(algorithm as "aes-128-gcm", key, nonce, options);
  sealed.setAAD(head, { plaintextLength: text.length });
  const body = Buffer.concat([sealed.update(text), sealed.final()]);
  return Buffer.concat([head, body, sealed.getAuthTag()]);
}

/** Makes the unencrypted record of a fatal alert during a handshake of TLS 1.2 or below. `version`: OpenSSL's name, `TLSv1.2`. */
export function plainAlert(version: string, alert: number): Buffer {
  const minor = version === "TLSv1" ? 1 : version === "TLSv1.1" ? 2 : 3;
  return Buffer.of(ALERT, 3, minor, 0, 2, FATAL, alert);
}

/** HKDF-Expand-Label (RFC 8446 §7.1) with an empty context, for at most one block of output. */
function expand(secret: Buffer, name: string, size: number, hash: string): Buffer {
  const label = `tls13 ${name}`;
  const info = Buffer.concat([
    Buffer.of(size >> 8, size & 255, label.length),
    Buffer.from(label),
    Buffer.of(0, 1),
  ]);
  return createHmac(hash, secret).update(info).digest().subarray(0, size);
}
