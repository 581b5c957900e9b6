import { latin1Decode, latin1Encode, type Timer, utf8Decode, utf8Encode } from "@tsproxy/sdk";
import { type ConsoleLog, makeConsole } from "./console.ts";
import { type CryptoHost, makeCrypto } from "./crypto.ts";
import { Url } from "./url.ts";
import { UrlSearchParams } from "./url-search-params.ts";

/** What the globals need from the isolate that they are installed in. */
export interface GlobalsHost {
  /** Monotonic milliseconds. */
  readonly now: () => number;
  readonly timer: (onFired: () => void) => Timer;
  readonly onError: (error: unknown) => void;
  /** Absent: there is no `crypto`. */
  readonly crypto?: CryptoHost;
  /** Logs a line of `console`. Absent: `console` stays V8's own, whose output reaches an attached debugger only. */
  readonly log?: ConsoleLog;
}

/** Most timers of `setTimeout` that may be armed in one isolate. */
const TIMEOUTS_MAX = 10_000;
const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/**
 * Installs the globals that an isolate has besides ECMAScript: subsets of those of browsers and Node, enough for filters and the
 * pure libraries that they use. A global that exists already is kept, except that `host.log` replaces `console`.
 */
export function installGlobals(host: GlobalsHost): void {
  const { setTimeout, clearTimeout } = timeouts(host);
  const globals: Readonly<Record<string, unknown>> = {
    TextEncoder: Utf8Encoder,
    TextDecoder: Utf8Decoder,
    URL: Url,
    URLSearchParams: UrlSearchParams,
    AbortController: Controller,
    AbortSignal: Signal,
    atob: decodeBase64,
    btoa: encodeBase64,
    structuredClone: clone,
    queueMicrotask(run: () => void): void {
      if (typeof run !== "function") throw new TypeError("queueMicrotask takes a function");
      void Promise.resolve().then(run).catch(host.onError);
    },
    setTimeout,
    clearTimeout,
    performance: Object.freeze({ now: host.now }),
    ...(host.crypto !== undefined && { crypto: makeCrypto(host.crypto) }),
  };
  for (const [name, value] of Object.entries(globals)) {
    if (!(name in globalThis)) install(name, value);
  }
  const { console: native } = globalThis as { console?: Parameters<typeof makeConsole>[1] };
  if (host.log !== undefined) install("console", makeConsole(host.log, native));
}

function install(name: string, value: unknown): void {
  Object.defineProperty(globalThis, name, { value, writable: true, configurable: true });
}

class Utf8Encoder {
  readonly encoding = "utf-8";
  encode(text = ""): Uint8Array {
    return utf8Encode(String(text));
  }
}

/** UTF-8 only. With `stream: true` a sequence that the chunk's end cuts is kept for the next chunk. */
class Utf8Decoder {
  readonly encoding = "utf-8";
  readonly fatal: boolean;
  readonly ignoreBOM: boolean;
  #kept = new Uint8Array(0);
  /** No text has come out since the beginning, so that a byte order mark may. */
  #isFirst = true;

  constructor(label = "utf-8", options: { fatal?: boolean; ignoreBOM?: boolean } = {}) {
    if (!/^\s*(utf-?8|unicode-1-1-utf-8)\s*$/i.test(label))
      throw new RangeError(`"${label}" is not supported: only utf-8 is`);
    this.fatal = options.fatal === true;
    this.ignoreBOM = options.ignoreBOM === true;
  }

  decode(input?: ArrayBufferLike | ArrayBufferView, options: { stream?: boolean } = {}): string {
    const bytes = joined(this.#kept, bytesOf(input));
    const end = options.stream === true ? completeEnd(bytes) : bytes.length;
    this.#kept = bytes.slice(end);
    const text = utf8Decode(bytes, 0, end);
    if (this.fatal && text.includes("\ufffd") && !utf8Matches(text, bytes.subarray(0, end)))
      throw new TypeError("the bytes are not UTF-8");
    const isMarked = this.#isFirst && !this.ignoreBOM && text.charCodeAt(0) === 0xfeff;
    this.#isFirst = options.stream !== true || (this.#isFirst && text === "");
    return isMarked ? text.slice(1) : text;
  }
}

function bytesOf(input: ArrayBufferLike | ArrayBufferView | undefined): Uint8Array {
  if (input === undefined) return new Uint8Array(0);
  if (ArrayBuffer.isView(input))
    return new Uint8Array(input.buffer, input.byteOffset, input.byteLength);
  return new Uint8Array(input);
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}

/** The length without the last sequence, if the end of that is missing; else the whole length. */
function completeEnd(bytes: Uint8Array): number {
  for (let back = 1; back <= 3 && back <= bytes.length; back++) {
    const byte = bytes[bytes.length - back]!;
    if (byte < 0x80) break;
    if (byte >= 0xc0) {
      const size = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
      return size > back ? bytes.length - back : bytes.length;
    }
  }
  return bytes.length;
}

/** True if the bytes are valid UTF-8, so that replacement characters in the text come from the bytes themselves. */
function utf8Matches(text: string, bytes: Uint8Array): boolean {
  const again = utf8Encode(text);
  return again.length === bytes.length && again.every((byte, k) => byte === bytes[k]);
}

function encodeBase64(text: string): string {
  const chars = String(text);
  for (let k = 0; k < chars.length; k++)
    if (chars.charCodeAt(k) > 255) throw new RangeError("btoa takes characters of one byte");
  const bytes = latin1Encode(chars);
  let out = "";
  for (let k = 0; k < bytes.length; k += 3) {
    const [a, b, c] = [bytes[k]!, bytes[k + 1], bytes[k + 2]];
    const bits = (a << 16) | ((b ?? 0) << 8) | (c ?? 0);
    out += BASE64[bits >> 18]! + BASE64[(bits >> 12) & 63]!;
    out +=
      (b === undefined ? "=" : BASE64[(bits >> 6) & 63]!) +
      (c === undefined ? "=" : BASE64[bits & 63]!);
  }
  return out;
}

function decodeBase64(text: string): string {
  let plain = String(text).replace(/[\t\n\f\r ]/g, "");
  if (plain.length % 4 === 0) plain = plain.replace(/==?$/, "");
  if (plain.length % 4 === 1 || /[^A-Za-z0-9+/]/.test(plain))
    throw new RangeError("the text is not base64");
  const bytes: number[] = [];
  let bits = 0;
  let size = 0;
  for (const char of plain) {
    bits = ((bits << 6) | BASE64.indexOf(char)) & 0xffffff;
    size += 6;
    if (size < 8) continue;
    size -= 8;
    bytes.push((bits >> size) & 0xff);
  }
  return latin1Decode(Uint8Array.from(bytes), 0, bytes.length);
}

/** An error of another name is cloned as an Error, as in browsers. */
const ERRORS = [EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError];

/** Plain objects, arrays, Map, Set, Date, RegExp, errors, buffers and their views, with cycles. Functions and symbols throw. */
function clone<T>(value: T, seen = new Map<unknown, unknown>()): T {
  return cloneValue(value, seen instanceof Map ? seen : new Map()) as T;
}

function cloneValue(value: unknown, seen: Map<unknown, unknown>): unknown {
  if (typeof value === "function" || typeof value === "symbol")
    throw new TypeError(`a ${typeof value} cannot be cloned`);
  if (typeof value !== "object" || value === null) return value;
  const known = seen.get(value);
  if (known !== undefined) return known;
  const keep = <O>(made: O): O => {
    seen.set(value, made);
    return made;
  };
  if (value instanceof Date) return keep(new Date(value));
  if (value instanceof RegExp) return keep(new RegExp(value.source, value.flags));
  if (value instanceof ArrayBuffer) return keep(value.slice(0));
  if (ArrayBuffer.isView(value)) return keep(cloneView(value, seen));
  if (value instanceof Map) {
    const made = keep(new Map());
    for (const [k, v] of value) made.set(cloneValue(k, seen), cloneValue(v, seen));
    return made;
  }
  if (value instanceof Set) {
    const made = keep(new Set());
    for (const item of value) made.add(cloneValue(item, seen));
    return made;
  }
  if (value instanceof Error) {
    const Kind = ERRORS.find(({ name }) => name === value.name) ?? Error;
    const made = keep(new Kind(value.message));
    if (value.stack !== undefined) made.stack = value.stack;
    return made;
  }
  const made = keep(
    (Array.isArray(value) ? new Array(value.length) : {}) as Record<string, unknown>,
  );
  for (const key of Object.keys(value)) {
    const inner = cloneValue((value as Record<string, unknown>)[key], seen);
    Object.defineProperty(made, key, {
      value: inner,
      writable: true,
      enumerable: true,
      configurable: true,
    });
  }
  return made;
}

/** Views of one buffer are views of one buffer afterwards. Of shared memory, where bodies lie, only what the view shows is copied. */
function cloneView(view: ArrayBufferView, seen: Map<unknown, unknown>): ArrayBufferView {
  const { buffer, byteOffset, byteLength } = view;
  const isShared = !(buffer instanceof ArrayBuffer);
  const memory = isShared
    ? new Uint8Array(buffer, byteOffset, byteLength).slice().buffer
    : (cloneValue(buffer, seen) as ArrayBuffer);
  const at = isShared ? 0 : byteOffset;
  if (view instanceof DataView) return new DataView(memory, at, byteLength);
  const View = view.constructor as new (
    memory: ArrayBuffer,
    at: number,
    length: number,
  ) => ArrayBufferView;
  return new View(memory, at, (view as Uint8Array).length);
}

type Listener = (event: { readonly type: "abort"; readonly target: Signal }) => void;

class Signal {
  aborted = false;
  reason: unknown = undefined;
  onabort: Listener | undefined = undefined;
  readonly #listeners = new Set<Listener>();

  addEventListener(type: string, listener: Listener): void {
    if (type === "abort") this.#listeners.add(listener);
  }
  removeEventListener(_type: string, listener: Listener): void {
    this.#listeners.delete(listener);
  }
  throwIfAborted(): void {
    if (this.aborted) throw this.reason;
  }
  static abort(signal: Signal, reason: unknown): void {
    if (signal.aborted) return;
    signal.aborted = true;
    signal.reason = reason;
    const event = { type: "abort", target: signal } as const;
    signal.onabort?.(event);
    for (const listener of [...signal.#listeners]) listener(event);
  }
}

class Controller {
  readonly signal = new Signal();
  abort(reason: unknown = abortError()): void {
    Signal.abort(this.signal, reason);
  }
}

function abortError(): Error {
  const error = new Error("this operation was aborted");
  error.name = "AbortError";
  return error;
}

function timeouts({ timer, onError }: GlobalsHost) {
  const armed = new Map<number, Timer>();
  let next = 1;
  return {
    setTimeout(run: (...args: unknown[]) => void, ms = 0, ...args: unknown[]): number {
      if (typeof run !== "function") throw new TypeError("setTimeout takes a function");
      if (armed.size >= TIMEOUTS_MAX)
        throw new RangeError(`${TIMEOUTS_MAX} timers are armed already`);
      const id = next++;
      const made = timer(() => {
        armed.delete(id);
        try {
          run(...args);
        } catch (error) {
          onError(error);
        }
      });
      armed.set(id, made);
      made.arm(Math.max(0, Math.min(Number(ms) || 0, 0x7fff_ffff)));
      return id;
    },
    clearTimeout(id?: number): void {
      if (id === undefined) return;
      armed.get(id)?.cancel();
      armed.delete(id);
    },
  };
}
