// Hot path: test/bench. A head stays bytes; strings are made only when somebody asks.
import {
  allocateWide,
  copyLongs,
  copyWords,
  latin1Decode,
  latin1Encode,
  recentText,
  type Wide,
  wideOf,
} from "./bytes.ts";
import { KNOWN_NAMES } from "./known-names.ts";

/** Numbers per span: where the name begins and ends, where the value does (all from `base`), the hash of the name, flags. */
export const SPAN = 6;
/** Flags of a span: the low byte is the known id (0: none). */
export const FLAG = {
  KNOWN: 0xff,
  /** An edit has removed it: it is not forwarded. */
  REMOVED: 0x100,
  /** It did not arrive as exactly `name: value CRLF`, so it cannot be forwarded as a copy of its bytes. */
  IRREGULAR: 0x200,
  /** Set beside REMOVED: another value is written in its place. */
  REPLACED: 0x400,
} as const;

/**
 * Names that Envoy 1.40 keeps on one line, as it was seen to do: a further value goes behind the first with a comma, an empty one
 * is dropped. All other names may stand on several lines. RFC 9110 §5.3 lets a proxy join any list.
 */
const JOINED = {
  REQUEST: [
    ...["accept", "accept-encoding", "access-control-request-headers"],
    ...["access-control-request-method", "access-control-request-private-network"],
    ...["authorization", "cache-control", "cdn-loop", "content-encoding", "content-type"],
    ...["grpc-accept-encoding", "grpc-timeout", "if-match", "if-modified-since", "if-none-match"],
    ...["if-range", "if-unmodified-since", "origin", "pragma", "proxy-status", "referer"],
    ...["user-agent", "via", "x-client-trace-id", "x-envoy-attempt-count"],
    ...["x-envoy-decorator-operation", "x-envoy-downstream-service-cluster"],
    ...["x-envoy-downstream-service-node", "x-envoy-external-address"],
    ...["x-envoy-is-timeout-retry", "x-envoy-original-host", "x-envoy-original-path"],
    ...["x-forwarded-client-cert", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port"],
    ...["x-forwarded-proto", "x-request-id"],
  ],
  RESPONSE: [
    ...["access-control-allow-credentials", "access-control-allow-headers"],
    ...["access-control-allow-methods", "access-control-allow-origin"],
    ...["access-control-allow-private-network", "access-control-expose-headers"],
    ...["access-control-max-age", "age", "cache-control", "content-encoding", "content-type"],
    ...["date", "etag", "expires", "grpc-message", "grpc-status", "last-modified", "location"],
    ...["proxy-status", "server", "vary", "via", "x-envoy-attempt-count"],
    ...["x-envoy-decorator-operation", "x-envoy-degraded"],
    ...["x-envoy-immediate-health-check-fail", "x-envoy-ratelimited", "x-envoy-upstream-canary"],
    ...["x-envoy-upstream-healthchecked-cluster", "x-envoy-upstream-service-time"],
    ...["x-request-id"],
  ],
} as const;
/** Bits of `HeaderName.joined`. */
const IN = { REQUEST: 1, RESPONSE: 2 } as const;
const joinedIn = new Map<string, number>();
for (const side of ["REQUEST", "RESPONSE"] as const) {
  for (const name of JOINED[side]) joinedIn.set(name, (joinedIn.get(name) ?? 0) | IN[side]);
}

/** Adds one (lower-case) byte to the hash of a name. */
const step = (hash: number, byte: number): number => (Math.imul(hash, 31) + byte) | 0;

/** A header name with what a search needs, made once: `const HOST = headerName("host")`. */
export class HeaderName {
  readonly text: string;
  readonly bytes: Uint8Array;
  readonly hash: number;
  /** Index in KNOWN_NAMES; 0 for all others. */
  readonly known: number;
  /** In which heads its values are joined on one line: bits of `IN`; 0: in none. */
  readonly joined: number;

  constructor(text: string) {
    this.text = text;
    this.bytes = latin1Encode(text);
    let hash = 0;
    for (const byte of this.bytes) hash = step(hash, byte);
    this.hash = hash;
    this.known = Math.max(0, (KNOWN_NAMES as readonly string[]).indexOf(text));
    this.joined = joinedIn.get(text) ?? 0;
  }
}

const names = new Map<string, HeaderName>();
const NAMES_KEPT = 4096; // filters may compute names from a peer's bytes; the table must not grow with them

/** The one HeaderName of a name, any case. Throws TypeError if it is not a token (RFC 9110 §5.1). */
export function headerName(text: string): HeaderName {
  let name = names.get(text);
  if (name !== undefined) return name;
  for (let k = 0; k < text.length; k++) {
    if (tokenByte[text.charCodeAt(k)] === undefined || tokenByte[text.charCodeAt(k)] === 0) {
      throw new TypeError(`header name "${text}" is not a token`);
    }
  }
  if (text.length === 0) throw new TypeError("header name is empty");
  const lower = text.toLowerCase();
  name = names.get(lower) ?? new HeaderName(lower);
  if (names.size < NAMES_KEPT) names.set(text, name).set(lower, name);
  return name;
}

/** For each byte: its lower-case form if it may stand in a token (RFC 9110 §5.6.2), else 0. */
export const tokenByte = new Uint8Array(256);
for (const char of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") {
  tokenByte[char.charCodeAt(0)] = char.charCodeAt(0);
}
for (let c = 65; c <= 90; c++) tokenByte[c] = c + 32;

const KNOWN_SLOTS = 256;
const knownHash = new Int32Array(KNOWN_SLOTS);
const knownAt: (HeaderName | undefined)[] = new Array(KNOWN_SLOTS).fill(undefined);
for (const text of KNOWN_NAMES) {
  if (text === "") continue;
  const name = headerName(text);
  let slot = (name.hash ^ (name.hash >>> 8)) & (KNOWN_SLOTS - 1);
  while (knownAt[slot] !== undefined) slot = (slot + 1) & (KNOWN_SLOTS - 1);
  knownAt[slot] = name;
  knownHash[slot] = name.hash;
}

/** The known id of the (lower-case) name at [at, end) with that hash, or 0. */
export function knownId(hash: number, memory: Uint8Array, at: number, end: number): number {
  let slot = (hash ^ (hash >>> 8)) & (KNOWN_SLOTS - 1);
  for (;;) {
    const name = knownAt[slot];
    if (name === undefined) return 0;
    if (knownHash[slot] === hash && isName(name.bytes, memory, at, end)) return name.known;
    slot = (slot + 1) & (KNOWN_SLOTS - 1);
  }
}

function isName(bytes: Uint8Array, memory: Uint8Array, at: number, end: number): boolean {
  const n = bytes.length;
  if (end - at !== n) return false;
  for (let k = 0; k < n; k++) if (memory[at + k] !== bytes[k]) return false;
  return true;
}

/** A whole header line, encoded once, for values that never change. */
export class HeaderLine {
  readonly name: HeaderName;
  /** `name: value CRLF` */
  readonly bytes: Uint8Array;
  /** Where the value begins in `bytes`, and where it ends. */
  readonly valueAt: number;
  readonly valueEnd: number;
  #value: string | undefined;

  constructor(name: string, value: string) {
    this.name = headerName(name);
    checkValue(name, value);
    this.#value = value;
    this.bytes = latin1Encode(`${this.name.text}: ${value}\r\n`);
    this.valueAt = this.name.bytes.length + 2;
    this.valueEnd = this.bytes.length - 2;
  }

  get value(): string {
    return (this.#value ??= latin1Decode(this.bytes, this.valueAt, this.valueEnd));
  }

  /** For an owner that has overwritten the bytes of its value in place (a request id, say): `value` is read from them again. */
  refresh(): void {
    this.#value = undefined;
  }
}

/** RFC 9110 §5.5: no CR, LF or NUL, and nothing beyond one byte a char. Throws a TypeError that names the header. */
function checkValue(name: string, value: string): void {
  // A filter in plain JavaScript may pass any type, such as a number from JSON.
  if (typeof value !== "string")
    throw new TypeError(
      `header "${name}" takes a string, not ${value === null ? "null" : typeof value}; write String(…)`,
    );
  for (let k = 0; k < value.length; k++) {
    const c = value.charCodeAt(k);
    if (c > 255 || (c < 32 && c !== 9) || c === 127) {
      throw new TypeError(
        `header "${name}" cannot carry ${JSON.stringify(value[k])}; write encodeURIComponent(…)`,
      );
    }
  }
}

/** Throws a TypeError that says why, if HTTP cannot carry this line: for lines that are kept outside of a HeaderMap. */
export function checkHeader(name: string, value: string): void {
  checkValue(headerName(name).text, value);
}

/** What a parser has found in a block of header lines, for another head with the same bytes. */
export interface ParsedLines {
  /** Where the block began, in bytes from the `base` of its head. */
  readonly at: number;
  readonly count: number;
  readonly spans: Int32Array;
  readonly present: number;
  readonly repeated: boolean;
  readonly seen: number;
}

/**
 * The headers of a message: spans over the bytes they arrived in, and edits beside these. Names are in lower case (parsers fold
 * them in place), values are strings of one char a byte. The block's owner calls `detach` before the bytes it arrived in go away.
 */
export class HeaderMap {
  memory: Uint8Array = EMPTY;
  /** All spans count from here. */
  base = 0;
  /** How many bytes from `base` on the spans lie in. */
  blockEnd = 0;
  count = 0;
  spans: Int32Array = NO_SPANS;
  /** Bit k: the known name k may be there; removing a header leaves its bit set. */
  present = 0;
  /** Headers that edits have set: flat [name, value, …]. On the wire they follow the spans, except those in `places`. */
  readonly added: string[] = [];
  /** Headers that edits have set as whole lines. */
  readonly lines: HeaderLine[] = [];
  /** For each of `lines`: before which index of `added` it goes on the wire. */
  readonly linesAt: number[] = [];
  /** For each pair of `added`: the span in whose place it goes; -1: none. If this is shorter, the other pairs have none. */
  readonly places: number[] = [];
  /** Names as the peer wrote them, by their lower-case form, where the config wants capitals kept (`preserve_case`). */
  originalNames: ReadonlyMap<string, string> | undefined = undefined;
  /** A name may have come twice: the parser calls `joinRepeated` at the end of the head. */
  repeated = false;
  /** A bit for the low five bits of each name's hash: most heads without repetitions are known by these alone. */
  #seen = 0;
  #own: Wide = NOTHING;
  /** `spans`, two at a time. */
  #spanLongs: BigInt64Array = NO_LONGS;
  #texts: (string | undefined)[] | undefined = undefined;

  /** The bit of `HeaderName.joined` for this kind of head. Trailers join nothing. */
  protected get joins(): number {
    return 0;
  }

  /** Empties the block for another head. */
  reset(): void {
    this.memory = EMPTY;
    this.base = 0;
    this.blockEnd = 0;
    this.count = 0;
    this.present = 0;
    this.#seen = 0;
    this.repeated = false;
    this.originalNames = undefined;
    this.#texts = undefined;
    // `length = 0` is a call into the engine and frees the array's memory; popping keeps it (70 ns a list and stream).
    while (this.added.length > 0) this.added.pop();
    while (this.lines.length > 0) this.lines.pop();
    while (this.linesAt.length > 0) this.linesAt.pop();
    while (this.places.length > 0) this.places.pop();
  }

  /** For parsers: one more span, offsets from `base`. The name is in lower case already. */
  addSpan(
    nameAt: number,
    nameEnd: number,
    valueAt: number,
    valueEnd: number,
    hash: number,
    flags: number,
  ): void {
    const i = this.count * SPAN;
    if (i === this.spans.length) this.#grow();
    const s = this.spans;
    s[i] = nameAt;
    s[i + 1] = nameEnd;
    s[i + 2] = valueAt;
    s[i + 3] = valueEnd;
    s[i + 4] = hash;
    s[i + 5] = flags;
    const known = flags & FLAG.KNOWN;
    if (known !== 0) this.present |= 1 << known;
    const bit = 1 << hash;
    if ((this.#seen & bit) !== 0 && !this.repeated) this.#lookBack(hash);
    this.#seen |= bit;
    this.count++;
  }

  /** For parsers: what was found in a block of lines that begins `at` bytes from `base`. */
  parsed(at: number): ParsedLines {
    const { count, present, repeated } = this;
    const spans = this.spans.slice(0, count * SPAN);
    return { at, count, spans, present, repeated, seen: this.#seen };
  }

  /** For parsers: as if the same block had been parsed `at` bytes from `base`. The block must be without lines. */
  addParsed(lines: ParsedLines, at: number): void {
    const size = lines.count * SPAN;
    while (this.spans.length < size) this.#grow();
    const from = lines.spans;
    const to = this.spans;
    const shift = at - lines.at;
    for (let i = 0; i < size; i += SPAN) {
      to[i] = from[i]! + shift;
      to[i + 1] = from[i + 1]! + shift;
      to[i + 2] = from[i + 2]! + shift;
      to[i + 3] = from[i + 3]! + shift;
      to[i + 4] = from[i + 4]!;
      to[i + 5] = from[i + 5]!;
    }
    this.count = lines.count;
    this.present = lines.present;
    this.repeated = lines.repeated;
    this.#seen = lines.seen;
  }

  #lookBack(hash: number): void {
    for (let k = this.count - 1; k >= 0 && !this.repeated; k--) {
      this.repeated = this.spans[k * SPAN + 4] === hash;
    }
  }

  /** Joins the values of each name that has one line only (JOINED), in the place of its first one. */
  joinRepeated(): void {
    this.repeated = false;
    for (let k = 0; k < this.count; k++) {
      if ((this.spans[k * SPAN + 5]! & FLAG.REMOVED) !== 0) continue;
      const name = headerName(this.nameAt(k));
      if ((name.joined & this.joins) === 0 || this.find(name, k + 1) < 0) continue;
      this.replace(name, joined(this.getAll(name)));
    }
  }

  /** True if another value of this name goes into the line that is there. */
  #isJoined(name: HeaderName): boolean {
    return (name.joined & this.joins) !== 0 && this.has(name);
  }

  #join(name: HeaderName, value: string): void {
    this.replace(name, joined([...this.getAll(name), value]));
  }

  #grow(): void {
    const bigger = new Int32Array(Math.max(SPANS_FIRST * SPAN, this.spans.length * 2));
    bigger.set(this.spans);
    this.spans = bigger;
    this.#spanLongs = new BigInt64Array(bigger.buffer);
  }

  /** Copies the bytes to memory of its own, so that the block outlives the event that brought it. */
  detach(): void {
    if (this.memory === this.#own.memory || this.blockEnd === 0) return;
    const n = this.blockEnd;
    if (this.#own.memory.length < n) this.#own = allocateWide(Math.max(512, n + (n >> 1)));
    this.copyBlock(this.#own, 0);
    this.memory = this.#own.memory;
    this.base = 0;
  }

  /** The views of `memory`, if there are such. */
  get wide(): Wide | undefined {
    return this.memory === this.#own.memory ? this.#own : wideOf(this.memory);
  }

  /** Copies the block's bytes to `to.memory` from `at` on. Up to 7 bytes behind them may be overwritten too. */
  copyBlock(to: Wide, at: number): void {
    const { base, blockEnd: n, wide: from } = this;
    if (from === undefined) to.memory.set(this.memory.subarray(base, base + n), at);
    else if (((base | at) & 7) === 0)
      copyLongs(to.longs, at >> 3, from.longs, base >> 3, (n + 7) >> 3);
    else copyWords(to.words, to.memory, at, from.words, from.memory, base, n);
  }

  /** Copies the spans, as they came from a parser, to words from `at`, an even number. */
  copySpans(to: Wide, at: number): void {
    copyLongs(to.longs, at >> 1, this.#spanLongs, 0, (this.count * SPAN) >> 1);
  }

  /** Index of the first span with that name, not removed, at or after `from`; or -1. */
  find(name: HeaderName, from = 0): number {
    const known = name.known;
    const s = this.spans;
    const end = this.count * SPAN;
    if (known !== 0) {
      if ((this.present & (1 << known)) === 0) return -1;
      for (let i = from * SPAN; i < end; i += SPAN) {
        if ((s[i + 5]! & (FLAG.KNOWN | FLAG.REMOVED)) === known) return i / SPAN;
      }
      return -1;
    }
    const hash = name.hash;
    for (let i = from * SPAN; i < end; i += SPAN) {
      if (s[i + 4] !== hash || (s[i + 5]! & FLAG.REMOVED) !== 0) continue;
      if (isName(name.bytes, this.memory, this.base + s[i]!, this.base + s[i + 1]!))
        return i / SPAN;
    }
    return -1;
  }

  nameAt(index: number): string {
    const i = index * SPAN;
    return latin1Decode(this.memory, this.base + this.spans[i]!, this.base + this.spans[i + 1]!);
  }

  valueAt(index: number): string {
    const { base, spans } = this;
    const i = index * SPAN;
    return recentText(this.memory, base + spans[i + 2]!, base + spans[i + 3]!);
  }

  /** As `valueAt`, but the string is kept: filters that share the block ask for the same values. */
  textAt(index: number): string {
    const texts = (this.#texts ??= []);
    return (texts[index] ??= this.valueAt(index));
  }

  /** The first value of that name, or undefined. */
  get(name: string | HeaderName): string | undefined {
    const n = typeof name === "string" ? headerName(name) : name;
    const at = this.find(n);
    if (at >= 0) return this.valueAt(at);
    const edit = this.edited(n);
    return typeof edit === "object" ? edit.value : edit;
  }

  /** The first value of that name that an edit has set, or the line that it is in. */
  edited(name: HeaderName): string | HeaderLine | undefined {
    const { added, lines } = this;
    for (let k = 0; k < added.length; k += 2) if (added[k] === name.text) return added[k + 1];
    for (let k = 0; k < lines.length; k++) if (lines[k]!.name === name) return lines[k];
    return undefined;
  }

  /** Every value of that name, in the order of the wire. */
  getAll(name: string | HeaderName): string[] {
    const n = typeof name === "string" ? headerName(name) : name;
    const values: string[] = [];
    for (let at = this.find(n); at >= 0; at = this.find(n, at + 1)) values.push(this.valueAt(at));
    const { added, lines } = this;
    let l = 0;
    for (let k = 0; k < added.length; k += 2) {
      for (; l < lines.length && this.linesAt[l]! <= k; l++)
        if (lines[l]!.name === n) values.push(lines[l]!.value);
      if (added[k] === n.text) values.push(added[k + 1]!);
    }
    for (; l < lines.length; l++) if (lines[l]!.name === n) values.push(lines[l]!.value);
    return values;
  }

  has(name: string | HeaderName): boolean {
    const n = typeof name === "string" ? headerName(name) : name;
    if (this.find(n) >= 0) return true;
    for (let k = 0; k < this.added.length; k += 2) if (this.added[k] === n.text) return true;
    for (const line of this.lines) if (line.name === n) return true;
    return false;
  }

  /** Replaces all lines of that name by one at the end. Throws TypeError on a name or value that HTTP cannot carry. */
  set(name: string | HeaderName, value: string): void {
    const n = typeof name === "string" ? headerName(name) : name;
    checkValue(n.text, value);
    this.remove(n);
    this.added.push(n.text, value);
  }

  /**
   * One more line of that name, or one more value on the line that there is (JOINED). Throws TypeError on a name or value that
   * HTTP cannot carry.
   */
  append(name: string | HeaderName, value: string): void {
    const n = typeof name === "string" ? headerName(name) : name;
    checkValue(n.text, value);
    if (this.#isJoined(n)) this.#join(n, value);
    else this.added.push(n.text, value);
  }

  /** As `append`, with a line encoded beforehand. */
  appendLine(line: HeaderLine): void {
    if (this.#isJoined(line.name)) {
      this.#join(line.name, line.value);
      return;
    }
    this.lines.push(line);
    this.linesAt.push(this.added.length);
  }

  /**
   * As `set`, but the value stands where the first one stood, as Envoy has it for headers that the proxy itself edits. Throws
   * TypeError on a name or value that HTTP cannot carry.
   */
  replace(name: string | HeaderName, value: string): void {
    const n = typeof name === "string" ? headerName(name) : name;
    checkValue(n.text, value);
    const at = this.find(n);
    if (at >= 0) {
      this.remove(n);
      this.spans[at * SPAN + 5]! |= FLAG.REPLACED;
      while (this.places.length * 2 < this.added.length) this.places.push(-1);
      this.places.push(at);
      this.added.push(n.text, value);
      return;
    }
    const k = this.added.indexOf(n.text);
    if (k >= 0 && k % 2 === 0) {
      this.added[k + 1] = value;
      for (let j = this.added.length - 2; j > k; j -= 2)
        if (this.added[j] === n.text) this.removeAdded(j);
      this.#removeLines(n);
      return;
    }
    const l = this.lines.findIndex((line) => line.name === n);
    if (l < 0) this.set(n, value);
    else this.lines[l] = new HeaderLine(n.text, value);
  }

  /** Takes every line of that name away. True if there was one. */
  remove(name: string | HeaderName): boolean {
    const n = typeof name === "string" ? headerName(name) : name;
    let removed = false;
    for (let at = this.find(n); at >= 0; at = this.find(n, at + 1)) {
      this.removeAt(at);
      removed = true;
    }
    for (let k = this.added.length - 2; k >= 0; k -= 2) {
      if (this.added[k] === n.text) {
        this.removeAdded(k);
        removed = true;
      }
    }
    return this.#removeLines(n) || removed;
  }

  #removeLines(name: HeaderName): boolean {
    let removed = false;
    for (let k = this.lines.length - 1; k >= 0; k--) {
      if (this.lines[k]!.name === name) {
        this.removeLine(k);
        removed = true;
      }
    }
    return removed;
  }

  /** Takes the pair at `k` in `added` away. */
  removeAdded(k: number): void {
    this.added.splice(k, 2);
    if (k >> 1 < this.places.length) this.places.splice(k >> 1, 1);
    const { linesAt } = this;
    for (let l = 0; l < linesAt.length; l++) if (linesAt[l]! > k) linesAt[l]! -= 2;
  }

  removeLine(k: number): void {
    this.lines.splice(k, 1);
    this.linesAt.splice(k, 1);
  }

  /** Where in `added` the value lies that stands in the place of a span, or -1. */
  replacementOf(span: number): number {
    return this.places.indexOf(span) * 2;
  }

  /** True for a pair of `added` that stands in the place of a span. */
  isPlaced(k: number): boolean {
    return k >> 1 < this.places.length && this.places[k >> 1]! >= 0;
  }

  removeAt(index: number): void {
    const i = index * SPAN + 5;
    this.spans[i] = this.spans[i]! | FLAG.REMOVED;
  }

  /** [name, value] of every line, in the order of the wire. */
  *entries(): IterableIterator<[string, string]> {
    const { added, lines } = this;
    for (let k = 0; k < this.count; k++) {
      const flags = this.spans[k * SPAN + 5]!;
      if ((flags & FLAG.REMOVED) === 0) yield [this.nameAt(k), this.valueAt(k)];
      else if ((flags & FLAG.REPLACED) !== 0) {
        const at = this.replacementOf(k);
        if (at >= 0) yield [added[at]!, added[at + 1]!];
      }
    }
    let l = 0;
    for (let k = 0; k < added.length; k += 2) {
      for (; l < lines.length && this.linesAt[l]! <= k; l++)
        yield [lines[l]!.name.text, lines[l]!.value];
      if (!this.isPlaced(k)) yield [added[k]!, added[k + 1]!];
    }
    for (; l < lines.length; l++) yield [lines[l]!.name.text, lines[l]!.value];
  }

  [Symbol.iterator](): IterableIterator<[string, string]> {
    return this.entries();
  }

  /** Bytes that the block takes on the wire at most, for `Connection.reserve`. */
  get wireSize(): number {
    let n = this.blockEnd + this.count * 4;
    for (let k = 0; k < this.added.length; k++) n += this.added[k]!.length + 2;
    for (const line of this.lines) n += line.bytes.length;
    return n;
  }
}

const joined = (values: readonly string[]): string =>
  values.filter((value) => value !== "").join(",");

const EMPTY = new Uint8Array(0);
const NO_SPANS = new Int32Array(0);
const NO_LONGS = new BigInt64Array(0);
const SPANS_FIRST = 24;
const NOTHING = allocateWide(0);
const HOST = headerName("host");

/** A request head. `host` and `:authority` are one thing (RFC 9113 §8.3.1); it lies in `host`. */
export class RequestHeaders extends HeaderMap {
  /** Where method and path lie, from `base`; not valid once they have been edited. */
  methodAt = 0;
  methodEnd = 0;
  pathAt = 0;
  pathEnd = 0;
  #method: string | undefined = undefined;
  #path: string | undefined = undefined;
  /** True once `path` or `method` is a string of an edit. */
  pathEdited = false;
  methodEdited = false;
  scheme = "http";
  /** HTTP/2: the order in which the pseudo fields came, three bits each; 0: the request did not come over HTTP/2. */
  pseudoOrder = 0;

  protected override get joins(): number {
    return IN.REQUEST;
  }

  override reset(): void {
    super.reset();
    this.methodAt = this.methodEnd = this.pathAt = this.pathEnd = 0;
    this.#method = this.#path = undefined;
    this.pathEdited = this.methodEdited = false;
    this.scheme = "http";
    this.pseudoOrder = 0;
  }

  get method(): string {
    return (this.#method ??= latin1Decode(
      this.memory,
      this.base + this.methodAt,
      this.base + this.methodEnd,
    ));
  }
  set method(value: string) {
    checkValue(":method", value);
    this.#method = value;
    this.methodEdited = true;
  }

  /** The path with its query, as on the wire. */
  get path(): string {
    return (this.#path ??= latin1Decode(
      this.memory,
      this.base + this.pathAt,
      this.base + this.pathEnd,
    ));
  }
  set path(value: string) {
    checkValue(":path", value);
    this.#path = value;
    this.pathEdited = true;
  }

  get authority(): string | undefined {
    return this.get(HOST);
  }
  set authority(value: string) {
    this.replace(HOST, value);
  }
}

/** A response head. */
export class ResponseHeaders extends HeaderMap {
  status = 0;
  /** What HTTP/1 writes behind the status, without control characters; undefined: the status's usual phrase. */
  reason: string | undefined = undefined;

  protected override get joins(): number {
    return IN.RESPONSE;
  }

  override reset(): void {
    super.reset();
    this.status = 0;
    this.reason = undefined;
  }
}
