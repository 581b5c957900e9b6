// Hot path: test/bench/http1-codec.ts. A head that came whole is parsed where it lies.
import type { HeaderMap, RequestHeaders, ResponseHeaders } from "@tsproxy/sdk";
import { PARSE } from "./error.ts";
import { parseFields, parseRequestHead, parseResponseHead } from "./head.ts";
import { keepNames } from "./name-case.ts";

export const KIND = { REQUEST: 0, RESPONSE: 1, TRAILERS: 2 } as const;
type Kind = (typeof KIND)[keyof typeof KIND];

export interface HeadLimits {
  readonly maxHeadBytes: number;
  readonly maxHeaders: number;
  readonly allowCustomMethods: boolean;
  readonly headerKeyFormat?: "proper_case_words" | "preserve_case" | undefined;
}

/** Lines up to this long are parsed again whenever they grow; longer ones once they have doubled, or end. */
const SHORT_LINE = 256;
const LF = 10;
const EMPTY = new Uint8Array(0);

/** Reads heads (or trailer sections), one after the other; one that arrives in pieces is put together here. */
export class HeadReader {
  /** After `read` answered 1: where in the given memory the head has ended. */
  at = 0;
  readonly #kind: Kind;
  readonly #limits: HeadLimits;
  #pieces: Uint8Array = EMPTY;
  #length = 0;
  #parseAt = 0;
  /** The same bytes before names were folded, where somebody wants them. */
  #raw: Uint8Array = EMPTY;
  readonly #keepsNames: boolean;

  constructor(kind: Kind, limits: HeadLimits) {
    this.#kind = kind;
    this.#limits = limits;
    this.#keepsNames = limits.headerKeyFormat === "preserve_case" && kind !== KIND.TRAILERS;
  }

  /** Part of a head has come. */
  get started(): boolean {
    return this.#length > 0;
  }

  /** Fills `headers`. Answers 1, or a PARSE code; after INCOMPLETE call again with what follows. */
  read(headers: HeaderMap, memory: Uint8Array, at: number, end: number): number {
    if (!this.#keepsNames) return this.#read(headers, memory, at, end);
    this.#keepRaw(memory, at, Math.min(end, at + this.#limits.maxHeadBytes + 1));
    const code = this.#read(headers, memory, at, end);
    if (code === PARSE.INCOMPLETE) return code;
    if (code > 0) keepNames(headers, this.#raw);
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

  /** The pieces may still be looked at in this turn; the next head begins with memory of its own. */
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
        // A bare LF would end the body elsewhere than a stricter neighbour thinks.
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

  /** Whether parsing again from the line at `lineAt` is worth it: work stays linear when bytes come singly. */
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
