import { latin1Decode, latin1Encode } from "@tsproxy/sdk";

/** An operation of Web Crypto that core carries out. Bytes within it are `{ bytes }`, a Latin-1 string. */
export interface CryptoCall {
  readonly op: "digest" | "import" | "sign" | "verify" | "encrypt" | "decrypt";
  /** A name, or an AlgorithmIdentifier with the members that the algorithm has. */
  readonly algorithm: unknown;
  readonly key?: KeyText | undefined;
  /** `verify` only: the signature as a Latin-1 string. */
  readonly signature?: string | undefined;
}

/** What a key is imported from. Sent with each use of the key; core keeps the keys that it has imported, by this text. */
export interface KeyText {
  readonly format: KeyFormat;
  /** A Latin-1 string; for `jwk` an object. */
  readonly data: unknown;
  readonly algorithm: unknown;
  readonly usages: readonly string[];
}
type KeyFormat = "raw" | "spki" | "pkcs8" | "jwk";
const FORMATS: readonly string[] = ["raw", "spki", "pkcs8", "jwk"];

/** Core's answer. `bytes`: a Latin-1 string. */
export type CryptoAnswer =
  | { readonly bytes: string }
  | { readonly verified: boolean }
  | {
      readonly key: {
        readonly type: string;
        readonly algorithm: Readonly<Record<string, unknown>>;
      };
    }
  | { readonly error: string; readonly name: string };

/** What `crypto` needs of core. */
export interface CryptoHost {
  /** 32 random bytes or more from core, as a Latin-1 string. */
  readonly seed: string;
  run(call: CryptoCall, data: Uint8Array): Promise<CryptoAnswer>;
}

/** Most bytes of data in one call. */
export const CRYPTO_DATA_MAX = 1024 * 1024;
const RANDOM_MAX = 65_536;

type BytesSource = ArrayBufferLike | ArrayBufferView;
type Algorithm = string | Readonly<Record<string, unknown>>;

/** The subset of Web Crypto that filters have as `crypto`. Random bytes are made here; core does everything else, on other threads. */
export function makeCrypto(host: CryptoHost): object {
  const random = new Random(latin1Encode(host.seed));
  const subtle = Object.freeze({
    async digest(algorithm: Algorithm, data: BytesSource): Promise<ArrayBuffer> {
      return bytesOf(await run(host, { op: "digest", algorithm: plain(algorithm) }, data));
    },
    async importKey(
      format: KeyFormat,
      data: BytesSource | object,
      algorithm: Algorithm,
      extractable: boolean,
      usages: readonly string[],
    ): Promise<Key> {
      if (!FORMATS.includes(format)) throw new TypeError(`"${format}" is no format of keys here`);
      const text: KeyText = {
        format,
        data: format === "jwk" ? data : textOf(data as BytesSource),
        algorithm: plain(algorithm),
        usages: [...usages],
      };
      const answer = await run(host, { op: "import", algorithm: text.algorithm, key: text });
      if (!("key" in answer)) throw new TypeError("core gave no key");
      return new Key(text, answer.key, extractable);
    },
    async sign(algorithm: Algorithm, key: Key, data: BytesSource): Promise<ArrayBuffer> {
      return bytesOf(await withKey("sign", algorithm, key, data));
    },
    async verify(
      algorithm: Algorithm,
      key: Key,
      signature: BytesSource,
      data: BytesSource,
    ): Promise<boolean> {
      const answer = await withKey("verify", algorithm, key, data, textOf(signature));
      return "verified" in answer && answer.verified;
    },
    async encrypt(algorithm: Algorithm, key: Key, data: BytesSource): Promise<ArrayBuffer> {
      return bytesOf(await withKey("encrypt", algorithm, key, data));
    },
    async decrypt(algorithm: Algorithm, key: Key, data: BytesSource): Promise<ArrayBuffer> {
      return bytesOf(await withKey("decrypt", algorithm, key, data));
    },
  });
  function withKey(
    op: CryptoCall["op"],
    algorithm: Algorithm,
    key: Key,
    data: BytesSource,
    signature?: string,
  ): Promise<CryptoAnswer> {
    return run(host, { op, algorithm: plain(algorithm), key: Key.textOf(key), signature }, data);
  }
  return Object.freeze({
    subtle,
    getRandomValues<T extends ArrayBufferView>(view: T): T {
      const { buffer, byteOffset, byteLength } = view;
      if (byteLength > RANDOM_MAX) throw new RangeError(`at most ${RANDOM_MAX} bytes at once`);
      if (view instanceof DataView || view instanceof Float32Array || view instanceof Float64Array)
        throw new TypeError("getRandomValues takes arrays of integers");
      random.fill(new Uint8Array(buffer, byteOffset, byteLength));
      return view;
    },
    randomUUID(): string {
      const bytes = new Uint8Array(16);
      random.fill(bytes);
      bytes[6] = (bytes[6]! & 0x0f) | 0x40;
      bytes[8] = (bytes[8]! & 0x3f) | 0x80;
      let text = "";
      for (let k = 0; k < 16; k++) {
        if (k === 4 || k === 6 || k === 8 || k === 10) text += "-";
        text += bytes[k]!.toString(16).padStart(2, "0");
      }
      return text;
    },
  });
}

/** A key as a filter holds it. */
class Key {
  readonly type: string;
  readonly algorithm: Readonly<Record<string, unknown>>;
  readonly extractable: boolean;
  readonly usages: readonly string[];
  readonly #text: KeyText;

  constructor(
    text: KeyText,
    { type, algorithm }: { readonly type: string; readonly algorithm: Key["algorithm"] },
    extractable: boolean,
  ) {
    this.#text = text;
    this.type = type;
    this.algorithm = algorithm;
    this.extractable = extractable;
    this.usages = text.usages;
  }
  static textOf(key: Key): KeyText {
    if (!(#text in key)) throw new TypeError("importKey makes the keys that go here");
    return key.#text;
  }
}

async function run(
  host: CryptoHost,
  call: CryptoCall,
  data: BytesSource = new Uint8Array(0),
): Promise<CryptoAnswer> {
  const bytes = viewOf(data);
  if (bytes.length > CRYPTO_DATA_MAX)
    throw new RangeError(`crypto takes ${CRYPTO_DATA_MAX} bytes at once`);
  const answer = await host.run(call, bytes);
  if (!("error" in answer)) return answer;
  const error = new Error(answer.error);
  error.name = answer.name;
  throw error;
}

function bytesOf(answer: CryptoAnswer): ArrayBuffer {
  return latin1Encode("bytes" in answer ? answer.bytes : "").buffer as ArrayBuffer;
}

function viewOf(source: BytesSource): Uint8Array {
  if (ArrayBuffer.isView(source))
    return new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
  if (source instanceof ArrayBuffer) return new Uint8Array(source);
  throw new TypeError("crypto takes an ArrayBuffer or a view of one");
}

function textOf(source: BytesSource): string {
  const bytes = viewOf(source);
  return latin1Decode(bytes, 0, bytes.length);
}

/** An algorithm with its bytes (iv, label, additionalData, counter) as text. */
function plain(algorithm: unknown): unknown {
  if (typeof algorithm === "string") return algorithm;
  if (typeof algorithm !== "object" || algorithm === null)
    throw new TypeError("an algorithm is a name or an object");
  const made: [string, unknown][] = [];
  for (const [name, value] of Object.entries(algorithm)) {
    const isBytes = ArrayBuffer.isView(value) || value instanceof ArrayBuffer;
    if (isBytes) made.push([name, { bytes: textOf(value) }]);
    else made.push([name, typeof value === "object" ? plain(value) : value]);
  }
  return Object.fromEntries(made);
}

const BLOCKS = 16;

/**
 * Random bytes without a call to core: ChaCha20 (RFC 8439 §2.3) with a key from core. Each refill replaces the key, and bytes are
 * erased when they are given out, so that earlier ones cannot be recovered from the state.
 */
class Random {
  readonly #state = new Uint32Array(16);
  readonly #pool = new Uint32Array(BLOCKS * 16);
  readonly #bytes = new Uint8Array(this.#pool.buffer);
  #at = this.#bytes.length;

  constructor(seed: Uint8Array) {
    if (seed.length < 32) throw new RangeError("a seed has 32 bytes");
    this.#state.set([0x61707865, 0x3320646e, 0x79622d32, 0x6b206574]);
    for (let k = 0; k < 32; k++)
      this.#state[4 + (k >> 2)] = this.#state[4 + (k >> 2)]! | (seed[k]! << ((k & 3) * 8));
  }

  fill(out: Uint8Array): void {
    for (let k = 0; k < out.length; k++) {
      if (this.#at === this.#bytes.length) this.#refill();
      out[k] = this.#bytes[this.#at]!;
      this.#bytes[this.#at++] = 0;
    }
  }

  #refill(): void {
    const state = this.#state;
    for (let block = 0; block < BLOCKS; block++) {
      state[12] = block;
      chacha(state, this.#pool.subarray(block * 16, block * 16 + 16));
    }
    state.set(this.#pool.subarray(0, 8), 4);
    this.#pool.fill(0, 0, 8);
    this.#at = 32;
  }
}

function chacha(state: Uint32Array, out: Uint32Array): void {
  out.set(state);
  for (let round = 0; round < 10; round++) {
    quarter(out, 0, 4, 8, 12);
    quarter(out, 1, 5, 9, 13);
    quarter(out, 2, 6, 10, 14);
    quarter(out, 3, 7, 11, 15);
    quarter(out, 0, 5, 10, 15);
    quarter(out, 1, 6, 11, 12);
    quarter(out, 2, 7, 8, 13);
    quarter(out, 3, 4, 9, 14);
  }
  for (let k = 0; k < 16; k++) out[k] = out[k]! + state[k]!;
}

function quarter(w: Uint32Array, a: number, b: number, c: number, d: number): void {
  w[a] = w[a]! + w[b]!;
  w[d] = rotate(w[d]! ^ w[a]!, 16);
  w[c] = w[c]! + w[d]!;
  w[b] = rotate(w[b]! ^ w[c]!, 12);
  w[a] = w[a]! + w[b]!;
  w[d] = rotate(w[d]! ^ w[a]!, 8);
  w[c] = w[c]! + w[d]!;
  w[b] = rotate(w[b]! ^ w[c]!, 7);
}

const rotate = (x: number, n: number): number => (x << n) | (x >>> (32 - n));
