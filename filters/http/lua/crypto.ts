import { DER, Der, type Log, latin1Encode } from "@tsproxy/sdk";
import {
  type Args,
  integerArgument,
  kind,
  type LuaTable,
  textArgument,
  Userdata,
} from "@tsproxy/sdk/lua";
import { type Run, waitFor } from "./run.ts";

/** What `importPublicKey()` returns. Its `get()` returns the SubjectPublicKeyInfo in DER, which `verifySignature` takes. */
export class KeyData extends Userdata {
  /** One char per byte; "": the key could not be read. */
  readonly der: string;

  constructor(metatable: LuaTable, der: string) {
    super(metatable);
    this.der = der;
  }
}

export function keyKind(log: Log): LuaTable {
  return kind(log, "HttpFilters.Lua.PublicKeyWrapper", KeyData, {
    get: (self) => (self.der === "" ? undefined : self.der),
  });
}

/** OIDs of the supported key algorithms, encoded as in a SubjectPublicKeyInfo. */
const RSA = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
const EC = "\x2a\x86\x48\xce\x3d\x02\x01";
const CURVES: Readonly<Record<string, string>> = {
  "P-256": "\x2a\x86\x48\xce\x3d\x03\x01\x07",
  "P-384": "\x2b\x81\x04\x00\x22",
  "P-521": "\x2b\x81\x04\x00\x23",
};
const HASHES: Readonly<Record<string, string>> = {
  sha1: "SHA-1",
  sha256: "SHA-256",
  sha384: "SHA-384",
  sha512: "SHA-512",
};

/** Makes a key object for the script; it is empty if `der` is not an RSA or EC key. */
export function importKey(run: Run, der: string): KeyData {
  const isKnown = der[0] === "\x30" && (der.includes(RSA) || der.includes(EC));
  return new KeyData(run.script.tables.key, isKnown ? der : "");
}

/** `verifySignature(hash, key, signature, length, data, length)`: returns true and "", or false and the reason. */
export function verifySignature(args: Args): unknown {
  const hash = textArgument(args, 1, "verifySignature");
  const der = textArgument(args, 2, "verifySignature");
  const signature = textArgument(args, 3, "verifySignature");
  const signatureSize = integerArgument(args, 4, "verifySignature");
  const text = textArgument(args, 5, "verifySignature");
  const size = integerArgument(args, 6, "verifySignature");
  if (der === "") return [false, "Failed to initialize digest verify."];
  const hashName = HASHES[hash.toLowerCase()];
  if (hashName === undefined) return [false, `${hash} is not supported.`];
  const signed = signature.slice(0, signatureSize);
  return waitFor(verify(hashName, der, signed, text.slice(0, size)), true);
}

interface Subtle {
  importKey(
    format: "spki",
    data: Uint8Array,
    algorithm: object,
    extractable: boolean,
    usages: readonly string[],
  ): Promise<unknown>;
  verify(
    algorithm: object,
    key: unknown,
    signature: Uint8Array,
    data: Uint8Array,
  ): Promise<boolean>;
}
declare const crypto: { readonly subtle: Subtle } | undefined;

async function verify(
  hash: string,
  der: string,
  signature: string,
  text: string,
): Promise<readonly [boolean, string]> {
  const isEc = der.includes(EC);
  const curve = Object.keys(CURVES).find((name) => der.includes(CURVES[name]!));
  const algorithm = isEc
    ? { name: "ECDSA", namedCurve: curve, hash }
    : { name: "RSASSA-PKCS1-v1_5", hash };
  try {
    const { subtle } = crypto!;
    const key = await subtle.importKey("spki", latin1Encode(der), algorithm, false, ["verify"]);
    // ECDSA: Web Crypto wants r and s concatenated, scripts have the usual DER.
    const bytes = isEc ? rawSignature(signature, curve ?? "P-256") : latin1Encode(signature);
    if (bytes !== undefined && (await subtle.verify(algorithm, key, bytes, latin1Encode(text))))
      return [true, ""];
  } catch {
    return [false, "Failed to initialize digest verify."];
  }
  return [false, "Failed to verify digest. Error code: 0"];
}

/** Sizes in bytes of the curves' numbers. */
const SIZES: Readonly<Record<string, number>> = { "P-256": 32, "P-384": 48, "P-521": 66 };

/** Converts DER's SEQUENCE { r INTEGER, s INTEGER } to r and s, each padded to the curve's size; undefined: it is malformed. */
function rawSignature(der: string, curve: string): Uint8Array | undefined {
  const numbers = new Der(latin1Encode(der)).next(DER.SEQUENCE);
  const size = SIZES[curve]!;
  const raw = new Uint8Array(size * 2);
  for (let k = 1; k <= 2; k++) {
    let number = numbers?.next(DER.INTEGER)?.content;
    if (number === undefined) return undefined;
    while (number.length > size && number[0] === 0) number = number.subarray(1);
    if (number.length > size) return undefined;
    raw.set(number, size * k - number.length);
  }
  return raw;
}
