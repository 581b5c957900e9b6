import type { SetupContext } from "@tsproxy/sdk";

/** What is used of Web Crypto, which isolates have as `crypto`. */
interface Subtle {
  importKey(
    format: "jwk",
    key: object,
    algorithm: object,
    extractable: boolean,
    usages: readonly string[],
  ): Promise<Key>;
  verify(algorithm: string, key: Key, signature: Uint8Array, data: Uint8Array): Promise<boolean>;
}
type Key = object;
// Asked for when it is used: it comes with the isolate that serves, not with the one that only reads what a file defines.
const subtle = () => (globalThis as unknown as { crypto: { subtle: Subtle } }).crypto.subtle;

const ALGORITHM = { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" } as const;
/** Keys are asked for again after so long, and not more often than this for names that nobody knows. */
const FRESH_MS = 300_000;
const AGAIN_MS = 10_000;

/** The keys of an issuer (RFC 7517), fetched when they are first needed; requests that come meanwhile wait for the same answer. */
export class Keys {
  readonly #target: string;
  readonly #cx: SetupContext;
  #known: ReadonlyMap<string, Key> = new Map();
  #asking: Promise<void> | undefined;
  #askedAt = Number.NEGATIVE_INFINITY;

  constructor(target: string, cx: SetupContext) {
    this.#target = target;
    this.#cx = cx;
  }

  /** Rejects when there are none to be had. */
  async get(name: string): Promise<Key | undefined> {
    const age = this.#cx.now() - this.#askedAt;
    const isKnown = this.#known.has(name);
    if (age > FRESH_MS || (!isKnown && age > AGAIN_MS)) {
      this.#asking ??= this.#ask().finally(() => (this.#asking = undefined));
      // Keys that were good a moment ago are better than none.
      if (isKnown) await this.#asking.catch(() => {});
      else await this.#asking;
    }
    return this.#known.get(name);
  }

  verify(key: Key, signature: Uint8Array, data: Uint8Array): Promise<boolean> {
    return subtle().verify(ALGORITHM.name, key, signature, data);
  }

  async #ask(): Promise<void> {
    const answer = await this.#cx.fetch(this.#target, { timeoutMs: 2_000 });
    if (!answer.ok) throw new Error(`${this.#target} answered ${answer.status}`);
    const { keys } = (await answer.json()) as { readonly keys: readonly Record<string, unknown>[] };
    const known = new Map<string, Key>();
    for (const jwk of keys)
      if (jwk.kty === "RSA" && typeof jwk.kid === "string")
        known.set(jwk.kid, await subtle().importKey("jwk", jwk, ALGORITHM, false, ["verify"]));
    this.#known = known;
    this.#askedAt = this.#cx.now();
  }
}

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/** RFC 4648 §5, without padding. */
export function decodeBase64Url(text: string): Uint8Array {
  const bytes = new Uint8Array((text.length * 3) >> 2);
  let bits = 0;
  let size = 0;
  let at = 0;
  for (const char of text) {
    bits = (bits << 6) | ALPHABET.indexOf(char);
    size += 6;
    if (size < 8) continue;
    size -= 8;
    bytes[at++] = (bits >> size) & 255;
  }
  return bytes;
}
