// Hot path: test/bench/http1-codec.ts. A head that arrives in one piece is parsed in place, without a copy.
import type { HeaderMap, HeaderNameCase, RequestHeaders, ResponseHeaders } from "@tsproxy/sdk";
import { PARSE } from "./error.ts";
import { parseFields } from "./fields.ts";
import { parseRequestHead, parseResponseHead } from "./head.ts";
import { keepNames, keepReason } from "./name-case.ts";

export const KIND = { REQUEST: 0, RESPONSE: 1, TRAILERS: 2 } as const;
type Kind = (typeof KIND)[keyof typeof KIND];

/** The codec options that apply to heads. */
export interface HeadLimits {
  readonly maxHeadBytes: number;
  readonly maxHeaders: number;
  readonly allowCustomMethods: boolean;
  readonly headerKeyFormat?: HeaderNameCase | undefined;
  readonly forwardsReason?: boolean | undefined;
}

/** An incomplete line up to this long is parsed again with every piece; a longer one once it has doubled or a LF arrives. */
const SHORT_LINE = 256;
const LF = 10;
const EMPTY = new Uint8Array(0);

/** Reads the heads (or trailer sections) of a connection in sequence and joins those that arrive in pieces. */
export class HeadReader {
  /** Offset after the head in the memory given to `read`; set when that returns 1. */
  at = 0;
  readonly #kind: Kind;
  readonly #limits: HeadLimits;
  #pieces: Uint8Array = EMPTY;
  #length = 0;
  #parseAt = 0;
  /** The head's bytes with names in their original case; filled only if they are kept. */
  #raw: Uint8Array = EMPTY;
  readonly #keepsNames: boolean;
  readonly #othersProper: boolean;
  readonly #keepsReason: boolean;

  constructor(kind: Kind, limits: HeadLimits) {
    this.#kind = kind;
    this.#limits = limits;
    const { headerKeyFormat: format } = limits;
    this.#othersProper = format === "preserve_or_proper_case";
    this.#keepsNames = (this.#othersProper || format === "preserve_case") && kind !== KIND.TRAILERS;
    this.#keepsReason = limits.forwardsReason === true && kind === KIND.RESPONSE;
  }

  /** True if a part of a head has been read and the rest is missing. */
  get started(): boolean {
    return this.#length > 0;
  }

  /** Fills `headers`; returns 1 when the head is complete, else a PARSE code. After INCOMPLETE call again with the next bytes. */
  read(headers: HeaderMap, memory: Uint8Array, at: number, end: number): number {
    if (!this.#keepsNames) return this.#read(headers, memory, at, end);
    this.#keepRaw(memory, at, Math.min(end, at + this.#limits.maxHeadBytes + 1));
    const code = this.#read(headers, memory, at, end);
    if (code === PARSE.INCOMPLETE) return code;
    if (code > 0) {
      keepNames(headers, this.#raw, this.#othersProper);
      if (this.#keepsReason) keepReason(headers as ResponseHeaders);
    }
    this.#raw = EMPTY;
    return code;
  }

  #keepRaw(memory: Uint8Array, at: number, end: number): void {
    const all = new Uint8Array(this.#raw.length + end - at);
    all.set(this.#raw);
    all.set(memory.subarray(at, end), this.#raw.length);
    this.#raw = all;
  }

  #read(headers: HeaderMap, memory: Uint8Array, at: number, end: number): number {
    if (this.#length > 0) return this.#readOn(headers, memory, at, end);
    headers.reset();
    headers.memory = memory;
    headers.base = at;
    const next = this.#parse(headers, end);
    if (next < 0) return next;
    const max = this.#limits.maxHeadBytes;
    if (next > 0) {
      this.at = next;
      return next - at > max ? PARSE.HEAD_TOO_LARGE : 1;
    }
    if (end - at > max) return PARSE.HEAD_TOO_LARGE;
    this.#add(memory, at, end);
    headers.memory = this.#pieces;
    headers.base = 0;
    return PARSE.INCOMPLETE;
  }

  /** Continues a head of which pieces are stored. */
  #readOn(headers: HeaderMap, memory: Uint8Array, at: number, end: number): number {
    const before = this.#length;
    const max = this.#limits.maxHeadBytes;
    this.#add(memory, at, Math.min(end, at + max + 1 - before));
    headers.memory = this.#pieces;
    const next = this.#isDue(headers.blockEnd, before) ? this.#parse(headers, this.#length) : 0;
    if (next < 0) return next;
    if (next > max || (next === 0 && this.#length > max)) return PARSE.HEAD_TOO_LARGE;
    if (next === 0) return PARSE.INCOMPLETE;
    this.at = at + next - before;
    this.forget();
    return 1;
  }

  /** Prepares for the next head. It gets new memory, as headers just parsed still point into the old one. */
  forget(): void {
    this.#pieces = EMPTY;
    this.#length = this.#parseAt = 0;
  }

  #parse(headers: HeaderMap, end: number): number {
    const { maxHeaders, allowCustomMethods } = this.#limits;
    switch (this.#kind) {
      case KIND.REQUEST:
        return parseRequestHead(headers as RequestHeaders, end, maxHeaders, allowCustomMethods);
      case KIND.RESPONSE:
        return parseResponseHead(headers as ResponseHeaders, end, maxHeaders);
      default:
        // No bare LF in trailers: a stricter peer would see the body's end at another place.
        return parseFields(headers, headers.base + headers.blockEnd, end, maxHeaders, false);
    }
  }

  #add(memory: Uint8Array, at: number, end: number): void {
    const length = this.#length + end - at;
    if (length > this.#pieces.length) {
      const bigger = new Uint8Array(Math.max(512, length, this.#pieces.length * 2));
      bigger.set(this.#pieces.subarray(0, this.#length));
      this.#pieces = bigger;
    }
    this.#pieces.set(memory.subarray(at, end), this.#length);
    this.#length = length;
  }

  /**
   * True if the incomplete line at `lineAt` should be parsed again; `before`: length of the pieces before the last one. Keeps
   * the work linear when a head arrives byte by byte.
   */
  #isDue(lineAt: number, before: number): boolean {
    const size = this.#length - lineAt;
    if (size > SHORT_LINE && this.#length < this.#parseAt) {
      let k = before;
      while (k < this.#length && this.#pieces[k] !== LF) k++;
      if (k === this.#length) return false;
    }
    this.#parseAt = this.#length + size;
    return true;
  }
}
