import { createPrivateKey, type KeyObject } from "node:crypto";
import type { TlsContextOptions } from "@tsproxy/sdk";
import { certificatesOf } from "./certificate.ts";

type KeyPair = TlsContextOptions["certificates"][number];

/**
 * Throws, in the config's words, if the key cannot be read or is not the certificate's. OpenSSL speaks of providers and decoders
 * then, and takes a key of another kind than the certificate's, so that each handshake fails.
 */
export function checkKeyPair(pair: KeyPair): void {
  if (!certificatesOf(pair.chain)[0]!.checkPrivateKey(keyOf(pair)))
    throw new Error(
      "private_key is not the key of certificate_chain; give the one it was made for",
    );
}

function keyOf({ key, password }: KeyPair): KeyObject {
  if (password === undefined && /ENCRYPTED/.test(key))
    throw new Error("private_key is encrypted; add its password");
  try {
    return createPrivateKey(password === undefined ? key : { key, passphrase: password });
  } catch (error) {
    throw new Error(
      /bad decrypt/.test((error as Error).message)
        ? "password does not open private_key"
        : "private_key holds no key in PEM form",
    );
  }
}
