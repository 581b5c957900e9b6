import { webcrypto } from "node:crypto";
import type { CryptoAnswer, CryptoCall, KeyText } from "./inside/crypto.ts";

const KEYS_KEPT = 1024;
/** With a longer key one signature takes OpenSSL so long that a few would keep all its threads busy. */
const RSA_BITS_MAX = 8192;

/**
 * Runs Web Crypto for isolates. Keys are cached by what they were imported from. A call is untrusted input; errors are answered,
 * never thrown.
 */
export class Crypto {
  readonly #keys = new Map<string, Promise<webcrypto.CryptoKey>>();

  async run(call: CryptoCall, data: Uint8Array): Promise<CryptoAnswer> {
    try {
      return await this.#run(call, data);
    } catch (error) {
      const { name, message } = error as Error;
      return { error: message === "" ? "the operation failed" : message, name: String(name) };
    }
  }

  async #run(
    { op, algorithm, key: text, signature }: CryptoCall,
    data: Uint8Array,
  ): Promise<CryptoAnswer> {
    const { subtle } = webcrypto;
    // A copy: shared memory could change between check and use.
    const bytes = Buffer.from(data);
    const how = withBytes(algorithm) as webcrypto.AlgorithmIdentifier;
    if (op === "digest") return answerBytes(await subtle.digest(how, bytes));
    if (text === undefined) throw new TypeError("there is no key");
    const key = await this.#key(text);
    switch (op) {
      case "import":
        return { key: { type: key.type, algorithm: shown(key.algorithm) } };
      case "sign":
        return answerBytes(await subtle.sign(how, key, bytes));
      case "verify":
        return {
          verified: await subtle.verify(how, key, Buffer.from(String(signature), "latin1"), bytes),
        };
      case "encrypt":
        return answerBytes(await subtle.encrypt(how as webcrypto.AesCbcParams, key, bytes));
      case "decrypt":
        return answerBytes(await subtle.decrypt(how as webcrypto.AesCbcParams, key, bytes));
      default:
        throw new TypeError(`"${String(op)}" is not available`);
    }
  }

  #key(text: KeyText): Promise<webcrypto.CryptoKey> {
    const name = JSON.stringify(text);
    let key = this.#keys.get(name);
    if (key !== undefined) return key;
    key = importKey(text);
    if (this.#keys.size >= KEYS_KEPT) this.#keys.delete(this.#keys.keys().next().value!);
    this.#keys.set(name, key);
    key.catch(() => this.#keys.delete(name));
    return key;
  }
}

async function importKey({
  format,
  data,
  algorithm,
  usages,
}: KeyText): Promise<webcrypto.CryptoKey> {
  const { subtle } = webcrypto;
  const how = withBytes(algorithm) as webcrypto.HmacImportParams;
  const uses = usages as webcrypto.KeyUsage[];
  const key =
    format === "jwk"
      ? await subtle.importKey("jwk", data as webcrypto.JsonWebKey, how, false, uses)
      : await subtle.importKey(format, Buffer.from(String(data), "latin1"), how, false, uses);
  const { modulusLength = 0 } = key.algorithm as { modulusLength?: number };
  if (modulusLength > RSA_BITS_MAX)
    throw new RangeError(`an RSA key of ${modulusLength} bits is too long`);
  return key;
}

const answerBytes = (buffer: ArrayBuffer): CryptoAnswer => ({
  bytes: Buffer.from(buffer).toString("latin1"),
});

/** Turns each `{ bytes }` in a JSON value into a Buffer. */
function withBytes(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  const { bytes } = value as { bytes?: unknown };
  if (typeof bytes === "string") return Buffer.from(bytes, "latin1");
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, withBytes(inner)]));
}

/** A key's algorithm as JSON can carry it. */
function shown(algorithm: webcrypto.KeyAlgorithm): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(algorithm).map(([name, value]) => [
      name,
      value instanceof Uint8Array ? [...value] : value,
    ]),
  );
}
