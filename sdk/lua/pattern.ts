// Hot path of scripts that look at texts: Lua's patterns (Lua 5.1 reference manual §5.4.1).
import { libraryError } from "./error.ts";
import { spend } from "./meter.ts";

const CAPTURES_MAX = 32;
/** How deep one match may nest, as in LuaJIT. */
const DEPTH_MAX = 200;
/** In the place of a capture's length: it is a position capture, `()`. */
const POSITION = -2;
/** In the place of a capture's length: its end has not been reached. */
const OPEN = -1;

const ESCAPE = 37; // %
const PERCENT_CLASSES = new Map<number, (code: number) => boolean>();

const between = (code: number, from: string, to: string): boolean =>
  code >= from.charCodeAt(0) && code <= to.charCodeAt(0);
const isUpper = (c: number): boolean => between(c, "A", "Z");
const isLower = (c: number): boolean => between(c, "a", "z");
const isDigit = (c: number): boolean => between(c, "0", "9");
const isAlpha = (c: number): boolean => isUpper(c) || isLower(c);
const isPunctuation = (c: number): boolean => c > 32 && c < 127 && !isAlpha(c) && !isDigit(c);
for (const [letter, test] of Object.entries({
  a: isAlpha,
  c: (c: number) => c < 32 || c === 127,
  d: isDigit,
  g: (c: number) => c > 32 && c < 127,
  l: isLower,
  p: isPunctuation,
  s: (c: number) => c === 32 || (c >= 9 && c <= 13),
  u: isUpper,
  w: (c: number) => isAlpha(c) || isDigit(c),
  x: (c: number) => isDigit(c) || between(c, "a", "f") || between(c, "A", "F"),
  z: (c: number) => c === 0,
})) {
  PERCENT_CLASSES.set(letter.charCodeAt(0), test);
  PERCENT_CLASSES.set(letter.toUpperCase().charCodeAt(0), (c) => !test(c));
}

/** Matches one pattern against one text. */
export class Matcher {
  readonly text: string;
  readonly pattern: string;
  /** Offsets of the captures, and their lengths, OPEN or POSITION. */
  readonly #starts: number[] = [];
  readonly #sizes: number[] = [];
  #level = 0;
  #depth = 0;
  #steps = 0;

  constructor(text: string, pattern: string) {
    this.text = text;
    this.pattern = pattern;
  }

  /** Where a match that begins at `at` ends, or -1. `from`: where the pattern's items begin, 1 after a `^`, else 0. */
  match(at: number, from: number): number {
    this.#level = this.#depth = this.#steps = 0;
    const end = this.#match(at, from);
    spend(4 + (this.#steps >> 2));
    return end;
  }

  get captures(): number {
    return this.#level;
  }

  /** Capture `k`, counted from 0; without captures 0 is the whole match, from `at` to `end`. */
  capture(k: number, at: number, end: number): string | number {
    if (k >= this.#level) {
      if (k === 0) return this.text.slice(at, end);
      throw libraryError("invalid capture index");
    }
    const size = this.#sizes[k]!;
    const start = this.#starts[k]!;
    if (size === POSITION) return start + 1;
    if (size === OPEN) throw libraryError("unfinished capture");
    return this.text.slice(start, start + size);
  }

  /** All captures, or the whole match if there are none. */
  all(at: number, end: number): (string | number)[] {
    const found: (string | number)[] = [];
    const count = Math.max(1, this.#level);
    for (let k = 0; k < count; k++) found.push(this.capture(k, at, end));
    return found;
  }

  #match(at: number, from: number): number {
    if (++this.#depth > DEPTH_MAX) throw libraryError("pattern too complex");
    const end = this.#walk(at, from);
    this.#depth--;
    return end;
  }

  /** Matches one item of the pattern after another; items with alternatives call `#match` for the rest of the pattern. */
  #walk(start: number, from: number): number {
    const { text, pattern } = this;
    let s = start;
    let p = from;
    for (;;) {
      if ((++this.#steps & 0xffff) === 0) spend(0x4000);
      if (p >= pattern.length) return s;
      const code = pattern.charCodeAt(p);
      if (code === 40) {
        return pattern.charCodeAt(p + 1) === 41
          ? this.#open(s, p + 2, POSITION)
          : this.#open(s, p + 1, OPEN);
      }
      if (code === 41) return this.#close(s, p + 1);
      if (code === 36 && p + 1 === pattern.length) return s === text.length ? s : -1;
      if (code === ESCAPE) {
        const next = pattern.charCodeAt(p + 1);
        if (next === 98) {
          s = this.#balance(s, p + 2);
          if (s < 0) return -1;
          p += 4;
          continue;
        }
        if (next === 102) {
          p += 2;
          if (pattern[p] !== "[") throw libraryError("missing '[' after '%f' in pattern");
          const end = this.#classEnd(p);
          const before = s === 0 ? 0 : text.charCodeAt(s - 1);
          const after = s < text.length ? text.charCodeAt(s) : 0;
          if (this.#inSet(before, p, end - 1) || !this.#inSet(after, p, end - 1)) return -1;
          p = end;
          continue;
        }
        if (isDigit(next)) {
          s = this.#back(s, next);
          if (s < 0) return -1;
          p += 2;
          continue;
        }
      }
      const end = this.#classEnd(p);
      const repeat = pattern.charCodeAt(end);
      if (repeat === 42) return this.#longest(s, p, end, 0);
      if (repeat === 43) return this.#longest(s, p, end, 1);
      if (repeat === 45) return this.#shortest(s, p, end);
      const fits = s < text.length && this.#single(text.charCodeAt(s), p, end);
      if (repeat === 63) {
        if (fits) {
          const found = this.#match(s + 1, end + 1);
          if (found >= 0) return found;
        }
        p = end + 1;
        continue;
      }
      if (!fits) return -1;
      s++;
      p = end;
    }
  }

  #open(s: number, p: number, size: number): number {
    if (this.#level >= CAPTURES_MAX) throw libraryError("too many captures");
    this.#starts[this.#level] = s;
    this.#sizes[this.#level] = size;
    this.#level++;
    const end = this.#match(s, p);
    if (end < 0) this.#level--;
    return end;
  }

  #close(s: number, p: number): number {
    let k = this.#level - 1;
    while (k >= 0 && this.#sizes[k] !== OPEN) k--;
    if (k < 0) throw libraryError("invalid pattern capture");
    this.#sizes[k] = s - this.#starts[k]!;
    const end = this.#match(s, p);
    if (end < 0) this.#sizes[k] = OPEN;
    return end;
  }

  #longest(s: number, p: number, end: number, least: number): number {
    const { text } = this;
    let count = 0;
    while (s + count < text.length && this.#single(text.charCodeAt(s + count), p, end)) count++;
    this.#steps += count;
    for (; count >= least; count--) {
      const found = this.#match(s + count, end + 1);
      if (found >= 0) return found;
    }
    return -1;
  }

  #shortest(start: number, p: number, end: number): number {
    const { text } = this;
    for (let s = start; ; s++) {
      const found = this.#match(s, end + 1);
      if (found >= 0) return found;
      if (s >= text.length || !this.#single(text.charCodeAt(s), p, end)) return -1;
    }
  }

  /** `%bxy`: from x to the y that closes it. */
  #balance(s: number, p: number): number {
    const { text, pattern } = this;
    if (p + 1 >= pattern.length) throw libraryError("unbalanced pattern");
    if (s >= text.length || text[s] !== pattern[p]) return -1;
    const open = pattern.charCodeAt(p);
    const close = pattern.charCodeAt(p + 1);
    let depth = 1;
    for (let k = s + 1; k < text.length; k++) {
      this.#steps++;
      const code = text.charCodeAt(k);
      if (code === close) {
        if (--depth === 0) return k + 1;
      } else if (code === open) depth++;
    }
    return -1;
  }

  /** `%1`: the text of a capture once more. */
  #back(s: number, digit: number): number {
    const k = digit - 49;
    if (k < 0 || k >= this.#level || this.#sizes[k]! < 0)
      throw libraryError("invalid capture index");
    const start = this.#starts[k]!;
    const before = this.text.slice(start, start + this.#sizes[k]!);
    this.#steps += before.length;
    return this.text.startsWith(before, s) ? s + before.length : -1;
  }

  /** Where the single-character item that begins at `from` ends in the pattern. */
  #classEnd(from: number): number {
    const { pattern } = this;
    let p = from;
    const code = pattern.charCodeAt(p++);
    if (code === ESCAPE) {
      if (p >= pattern.length) throw libraryError("malformed pattern (ends with '%')");
      return p + 1;
    }
    if (code !== 91) return p;
    if (pattern[p] === "^") p++;
    do {
      if (p >= pattern.length) throw libraryError("malformed pattern (missing ']')");
      this.#steps++;
      if (pattern.charCodeAt(p++) === ESCAPE && p < pattern.length) p++;
    } while (pattern[p] !== "]");
    return p + 1;
  }

  #single(code: number, p: number, end: number): boolean {
    const { pattern } = this;
    const first = pattern.charCodeAt(p);
    if (first === 46) return true;
    if (first === ESCAPE) return inClass(code, pattern.charCodeAt(p + 1));
    if (first === 91) return this.#inSet(code, p, end - 1);
    return first === code;
  }

  /** Whether a set has the character; `from` is at the bracket that opens it, `last` at the one that closes it. */
  #inSet(code: number, from: number, last: number): boolean {
    const { pattern } = this;
    let p = from + 1;
    let found = true;
    if (pattern[p] === "^") {
      found = false;
      p++;
    }
    this.#steps += last - p;
    for (; p < last; p++) {
      const item = pattern.charCodeAt(p);
      if (item === ESCAPE) {
        if (inClass(code, pattern.charCodeAt(++p))) return found;
      } else if (pattern[p + 1] === "-" && p + 2 < last) {
        if (item <= code && code <= pattern.charCodeAt(p + 2)) return found;
        p += 2;
      } else if (item === code) return found;
    }
    return !found;
  }
}

function inClass(code: number, letter: number): boolean {
  const test = PERCENT_CLASSES.get(letter);
  return test === undefined ? letter === code : test(code);
}

/** Whether a pattern has no special characters. */
export const isPlain = (pattern: string): boolean => !/[\^$*+?.([%-]/.test(pattern);
