/**
 * What isolates have beside ECMAScript, for authors whose project has neither the DOM's types nor Node's: subsets of what
 * browsers and Node have under these names (core/inside/globals.ts, url.ts, crypto.ts). `"types": ["@tsproxy/sdk/globals"]` in a
 * tsconfig.json brings them.
 */

type BufferSource = ArrayBuffer | ArrayBufferView;

/** UTF-8. */
declare class TextEncoder {
  readonly encoding: string;
  encode(text?: string): Uint8Array;
}

/** UTF-8 alone. */
declare class TextDecoder {
  constructor(label?: string, options?: { fatal?: boolean; ignoreBOM?: boolean });
  readonly encoding: string;
  readonly fatal: boolean;
  readonly ignoreBOM: boolean;
  /** `stream`: a character that the end of the bytes cuts waits for the next call. */
  decode(input?: ArrayBufferLike | ArrayBufferView, options?: { stream?: boolean }): string;
}

declare class URLSearchParams implements Iterable<[string, string]> {
  constructor(
    init?: string | Iterable<readonly [string, string]> | Readonly<Record<string, string>>,
  );
  readonly size: number;
  append(name: string, value: string): void;
  delete(name: string, value?: string): void;
  get(name: string): string | null;
  getAll(name: string): string[];
  has(name: string, value?: string): boolean;
  set(name: string, value: string): void;
  sort(): void;
  forEach(call: (value: string, name: string) => void): void;
  keys(): IterableIterator<string>;
  values(): IterableIterator<string>;
  entries(): IterableIterator<[string, string]>;
  [Symbol.iterator](): IterableIterator<[string, string]>;
  toString(): string;
}

/** Of http, https, ws and wss, with hosts in ASCII (`xn--…` for others); what else it is given is no URL. */
declare class URL {
  constructor(url: string, base?: string | URL);
  static canParse(url: string, base?: string | URL): boolean;
  href: string;
  readonly origin: string;
  protocol: string;
  username: string;
  password: string;
  host: string;
  hostname: string;
  port: string;
  pathname: string;
  search: string;
  hash: string;
  readonly searchParams: URLSearchParams;
  toString(): string;
  toJSON(): string;
}

declare class AbortSignal {
  readonly aborted: boolean;
  readonly reason: unknown;
  onabort: ((event: { readonly type: "abort" }) => void) | undefined;
  addEventListener(type: "abort", listener: (event: { readonly type: "abort" }) => void): void;
  removeEventListener(type: "abort", listener: (event: { readonly type: "abort" }) => void): void;
  throwIfAborted(): void;
}
declare class AbortController {
  readonly signal: AbortSignal;
  abort(reason?: unknown): void;
}

declare function atob(text: string): string;
declare function btoa(text: string): string;
declare function structuredClone<T>(value: T): T;
declare function queueMicrotask(run: () => void): void;
/** At most 10,000 are armed at once in an isolate; up to 20 ms late. */
declare function setTimeout<A extends unknown[]>(
  run: (...args: A) => void,
  ms?: number,
  ...args: A
): number;
/** For `new Promise((resolve) => setTimeout(resolve, ms))`: a function that may be called without its argument. */
declare function setTimeout(run: (nothing: void) => void, ms?: number): number;
declare function clearTimeout(id?: number): void;
/** Writes lines to the proxy's log. `cx.log` takes fields, too. */
declare const console: {
  debug(...values: unknown[]): void;
  log(...values: unknown[]): void;
  info(...values: unknown[]): void;
  warn(...values: unknown[]): void;
  error(...values: unknown[]): void;
};
declare const performance: {
  /** Milliseconds on a monotonic clock, read once a crossing. */
  now(): number;
};

type AlgorithmIdentifier = string | { readonly name: string; readonly [member: string]: unknown };
interface CryptoKey {
  readonly type: "public" | "private" | "secret";
  readonly algorithm: { readonly name: string; readonly [member: string]: unknown };
  readonly extractable: boolean;
  readonly usages: readonly string[];
}
/** Core carries these out on other threads: 1 MiB at most each, RSA keys of 8192 bits. */
interface SubtleCrypto {
  digest(algorithm: AlgorithmIdentifier, data: BufferSource): Promise<ArrayBuffer>;
  importKey(
    format: "raw" | "spki" | "pkcs8" | "jwk",
    data: BufferSource | object,
    algorithm: AlgorithmIdentifier,
    extractable: boolean,
    usages: readonly ("sign" | "verify" | "encrypt" | "decrypt")[],
  ): Promise<CryptoKey>;
  sign(algorithm: AlgorithmIdentifier, key: CryptoKey, data: BufferSource): Promise<ArrayBuffer>;
  verify(
    algorithm: AlgorithmIdentifier,
    key: CryptoKey,
    signature: BufferSource,
    data: BufferSource,
  ): Promise<boolean>;
  encrypt(algorithm: AlgorithmIdentifier, key: CryptoKey, data: BufferSource): Promise<ArrayBuffer>;
  decrypt(algorithm: AlgorithmIdentifier, key: CryptoKey, data: BufferSource): Promise<ArrayBuffer>;
}
declare const crypto: {
  readonly subtle: SubtleCrypto;
  /** At most 65,536 bytes at once. */
  getRandomValues<T extends ArrayBufferView>(view: T): T;
  randomUUID(): string;
};
