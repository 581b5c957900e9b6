// Hot path: every head that a sandboxed filter sees (test/bench/sandbox.ts).
import {
  allocateWide,
  copyLongs,
  copyWords,
  FLAG,
  type HeaderMap,
  headerName,
  isFinalStatus,
  latin1Decode,
  RequestHeaders,
  ResponseHeaders,
  SPAN,
  type Wide,
} from "@tsproxy/sdk";
import { wrongAuthority, wrongMethod, wrongPath } from "../request-line.ts";
import { ANSWER_MAX, EDITS, FRAMING, HEAD, HEAD_FLAG } from "./layout.ts";
import type { Outbox } from "./outbox.ts";

/** A bit in a span's flags: the chain knows that this line is removed. */
const TOLD = 1 << 30;
const SPANS_FIRST = 24;
const BYTES_FIRST = 1024;
const SIZE_FIRST = SPANS_FIRST * SPAN * 4 + BYTES_FIRST;
const NONE: readonly string[] = [];

/**
 * Heads of usual size lie in memory that they share, and are read and written through the same views of it: four views for each head
 * would seldom be in the CPU's caches when its stream has its turn.
 */
const HEADS_A_SLAB = 32;
let slab: Wide | undefined;
let slabUsed = 0;

/** The sandbox's block, as arrays of each element size. */
export interface Block {
  readonly words: Int32Array;
  readonly bytes: Uint8Array;
  readonly longs: BigInt64Array;
}

/** Texts that came with a head. */
export interface HeadExtras {
  routeConfig: string | undefined;
  /** The stream's facts, in JSON. */
  facts: string | undefined;
}

/**
 * A copy of a header map of the chain in private memory of the sandbox, and the edits that the filter has made since. Reused for
 * stream after stream: its memory, the spans and then the bytes, only grows.
 */
export class Head<M extends HeaderMap = HeaderMap> {
  readonly map: M;
  #wide: Wide;
  /** Where its memory begins in `#wide`, and the size of it. */
  #at: number;
  #size: number;
  #spans: Int32Array;
  #bytesAt: number;
  // The head as the chain has it, to find later edits: `#count` spans are the head's own, up to `#linesAt` come from its `added`, the
  // others from its `lines`; `#added`, method, path and status are what the chain has been told since.
  #count = 0;
  #linesAt = 0;
  #added: readonly string[] = NONE;
  #method: string | undefined = undefined;
  #path: string | undefined = undefined;
  #status = 0;
  // The edits that `measure` has found and `write` writes.
  #drops = 0;
  readonly #removed: number[] = [];
  #kept = 0;
  #newMethod: string | undefined = undefined;
  #newPath: string | undefined = undefined;
  #newStatus = 0;

  constructor(map: M) {
    // What a filter would set on it beside its fields ("get", say) would be there for later streams too: strict code throws instead.
    this.map = Object.preventExtensions(map);
    if (slab === undefined || slabUsed === HEADS_A_SLAB) {
      slab = allocateWide(HEADS_A_SLAB * SIZE_FIRST);
      slabUsed = 0;
    }
    this.#wide = slab;
    this.#at = slabUsed++ * SIZE_FIRST;
    this.#size = SIZE_FIRST;
    this.#spans = spansIn(slab, this.#at, SPANS_FIRST);
    this.#bytesAt = this.#at + SPANS_FIRST * SPAN * 4;
  }

  #grow(count: number, size: number): void {
    const spans = Math.max(count, this.#spans.length / SPAN);
    this.#at = 0;
    this.#bytesAt = spans * SPAN * 4;
    this.#size = this.#bytesAt + ((size + 1023) & ~1023);
    this.#wide = allocateWide(this.#size);
    this.#spans = spansIn(this.#wide, 0, spans);
  }

  /** Fills the map from a payload (HEAD in layout.ts) at word `p`; the head's own bytes lie at `range`. */
  read(block: Block, p: number, range: number, extras: HeadExtras): void {
    const { words, bytes, longs } = block;
    const map = this.map as HeaderMap;
    const count = words[p + HEAD.COUNT]!;
    const size = words[p + HEAD.BYTES]!;
    const flags = words[p + HEAD.FLAGS]!;
    const editBytes = words[p + HEAD.EDIT_BYTES]!;
    this.#count = count;
    this.#linesAt = count + words[p + HEAD.ADDED]!;
    const total = this.#linesAt + words[p + HEAD.LINES]!;
    const all = size + editBytes;
    if (
      this.#at + total * SPAN * 4 > this.#bytesAt ||
      this.#bytesAt + all + 8 > this.#at + this.#size
    ) {
      this.#grow(total, all + 8);
    }
    map.reset();
    const own = this.#wide;
    const bytesAt = this.#bytesAt;
    const spansAt = p + HEAD.SPANS;
    copyLongs(own.longs, this.#at >> 3, longs, spansAt >> 1, total * (SPAN >> 1));
    if (map instanceof RequestHeaders) {
      map.methodAt = words[p + HEAD.METHOD_AT]!;
      map.methodEnd = words[p + HEAD.METHOD_END]!;
      map.pathAt = words[p + HEAD.PATH_AT]!;
      map.pathEnd = words[p + HEAD.PATH_END]!;
      if ((flags & HEAD_FLAG.HTTPS) !== 0) map.scheme = "https";
    } else if (map instanceof ResponseHeaders) {
      map.status = this.#status = words[p + HEAD.STATUS]!;
    }
    map.present = words[p + HEAD.PRESENT]!;
    this.#added = NONE;
    this.#method = this.#path = undefined;
    let editsAt = (spansAt + total * SPAN) * 4;
    if ((flags & ~HEAD_FLAG.HTTPS) !== 0) {
      editsAt = this.#readStrings(words, bytes, spansAt + total * SPAN, flags, extras);
    }
    copyLongs(own.longs, bytesAt >> 3, longs, range >> 3, (size + 7) >> 3);
    if (editBytes > 0)
      copyWords(own.words, own.memory, bytesAt + size, words, bytes, editsAt, editBytes);
    map.spans = this.#spans;
    map.memory = own.memory;
    map.base = bytesAt;
    map.blockEnd = all;
    map.count = total;
    this.#tellRemoved(count);
  }

  /** Marks the lines among the first `count` that are removed: the chain knows of them. */
  #tellRemoved(count: number): void {
    const { words } = this.#wide;
    const first = (this.#at >> 2) + FLAG_WORD;
    for (let i = first, end = first + count * SPAN; i < end; i += SPAN) {
      if ((words[i]! & FLAG.REMOVED) !== 0) words[i] = words[i]! | TOLD;
    }
  }

  /** Reads the strings of a payload. Answers the offset behind them. */
  #readStrings(
    words: Int32Array,
    bytes: Uint8Array,
    lengthsAt: number,
    flags: number,
    extras: HeadExtras,
  ): number {
    let l = lengthsAt;
    const strings =
      ((flags & HEAD_FLAG.METHOD) !== 0 ? 1 : 0) +
      ((flags & HEAD_FLAG.PATH) !== 0 ? 1 : 0) +
      ((flags & HEAD_FLAG.ROUTE_CONFIG) !== 0 ? 1 : 0) +
      ((flags & HEAD_FLAG.FACTS) !== 0 ? 1 : 0);
    let at = (lengthsAt + strings) * 4;
    const next = (): string => {
      const end = at + words[l++]!;
      const text = latin1Decode(bytes, at, end);
      at = end;
      return text;
    };
    const map = this.map as HeaderMap;
    if ((flags & HEAD_FLAG.METHOD) !== 0 && map instanceof RequestHeaders) {
      map.method = this.#method = next();
    }
    if ((flags & HEAD_FLAG.PATH) !== 0 && map instanceof RequestHeaders) {
      map.path = this.#path = next();
    }
    if ((flags & HEAD_FLAG.ROUTE_CONFIG) !== 0) extras.routeConfig = next();
    if ((flags & HEAD_FLAG.FACTS) !== 0) extras.facts = next();
    return at;
  }

  /**
   * Finds the filter's edits and answers their size in bytes; 0: there are none. Throws on edits that a sandboxed filter must not
   * make. `length`: size of the message's body if all of it is held, else -1. `writes`: the headers that its manifest lets it write;
   * undefined: all.
   */
  measure(length: number, writes: ReadonlySet<string> | undefined): number {
    const map = this.map as HeaderMap;
    const { words } = this.#wide;
    const removed = this.#removed;
    while (removed.length > 0) removed.pop();
    let drops = 0;
    let hostDropped = false;
    const first = (this.#at >> 2) + FLAG_WORD;
    for (let i = first, end = first + map.count * SPAN; i < end; i += SPAN) {
      if ((words[i]! & (FLAG.REMOVED | TOLD)) !== FLAG.REMOVED) continue;
      if (writes !== undefined) checkWrite(map.nameAt((i - first) / SPAN), writes);
      if ((words[i]! & FLAG.KNOWN) === HOST.known) hostDropped = true;
      if (KEPT.has(words[i]! & FLAG.KNOWN)) {
        throw new TypeError(
          `a sandboxed filter cannot remove "${map.nameAt((i - first) / SPAN)}": framing is the codec's`,
        );
      }
      drops++;
    }
    this.#kept = 0;
    const old = this.#added;
    const added = map.added;
    if (drops > 0 || old.length > 0) drops -= this.#findRemoved(old);
    this.#drops = drops;
    this.#newMethod = this.#newPath = undefined;
    this.#newStatus = 0;
    if (map instanceof RequestHeaders) {
      if (map.methodEdited && map.method !== this.#method) {
        checkWrite(":method", writes);
        refuse(wrongMethod(map.method, this.#method ?? receivedMethod(map)));
        this.#newMethod = map.method;
      }
      if (map.pathEdited && map.path !== this.#path) {
        checkWrite(":path", writes);
        refuse(wrongPath(map.path));
        this.#newPath = map.path;
      }
      if (hostDropped && !map.has(HOST)) refuse('a sandboxed filter cannot remove "host"');
    } else if (map instanceof ResponseHeaders && map.status !== this.#status) {
      checkWrite(":status", writes);
      refuse(wrongStatus(map.status));
      this.#newStatus = map.status;
    }
    const changed =
      drops !== 0 ||
      this.#removed.length !== 0 ||
      added.length !== this.#kept ||
      map.lines.length !== 0 ||
      this.#newMethod !== undefined ||
      this.#newPath !== undefined ||
      this.#newStatus !== 0;
    if (!changed) return 0;
    let size = (EDITS.REST + drops + this.#removed.length) * 4;
    for (let k = this.#kept; k < added.length; k += 2) {
      checkWrite(added[k]!, writes);
      if (added[k] === HOST.text) checkHost(map);
      size += 8 + checked(added[k]!, added[k + 1]!, length).length + added[k + 1]!.length;
    }
    for (const line of map.lines) {
      checkWrite(line.name.text, writes);
      if (line.name === HOST) checkHost(map);
      size += 8 + checked(line.name.text, line.value, length).length + line.value.length;
    }
    size += (this.#newMethod?.length ?? 0) + (this.#newPath?.length ?? 0);
    if (size > ANSWER_MAX - 1024)
      throw new RangeError(`edits of ${size} bytes are too many for one head`);
    return (size + 3) & ~3;
  }

  /**
   * Finds earlier edits that the filter has removed: their indices, counted through the chain's `lines`, then its `added`, as the
   * chain has them now. Answers how many of them are spans here.
   */
  #findRemoved(old: readonly string[]): number {
    const removed = this.#removed;
    const total = this.map.count;
    let place = 0;
    for (let index = this.#linesAt; index < total; index++) place = this.#place(index, place);
    for (let index = this.#count; index < this.#linesAt; index++) place = this.#place(index, place);
    const spans = removed.length;
    const { added } = this.map;
    for (let k = 0; k < old.length; k += 2, place++) {
      if (added[this.#kept] === old[k] && added[this.#kept + 1] === old[k + 1]) this.#kept += 2;
      else removed.push(place);
    }
    return spans;
  }

  /** `place`: the chain's index of the span `index`, noted if the span is removed. Answers the index of the next span. */
  #place(index: number, place: number): number {
    const flags = this.#spans[index * SPAN + FLAG_WORD]! & (FLAG.REMOVED | TOLD);
    if (flags === FLAG.REMOVED) this.#removed.push(place);
    return flags === (FLAG.REMOVED | TOLD) ? place : place + 1;
  }

  /** Writes the edits that `measure` found at byte `at` (EDITS in layout.ts); answers the offset behind them. */
  write(out: Outbox, at: number): number {
    const map = this.map as HeaderMap;
    const words = out.words;
    const p = at >> 2;
    const added = map.added;
    const pairs = (added.length - this.#kept) / 2 + map.lines.length;
    words[p + EDITS.DROPS] = this.#drops;
    words[p + EDITS.REMOVED] = this.#removed.length;
    words[p + EDITS.ADDED] = pairs;
    words[p + EDITS.METHOD] = this.#newMethod?.length ?? -1;
    words[p + EDITS.PATH] = this.#newPath?.length ?? -1;
    words[p + EDITS.STATUS] = this.#newStatus;
    let w = p + EDITS.REST;
    if (this.#drops !== 0) {
      const spans = this.#spans;
      for (let i = FLAG_WORD, n = this.#count * SPAN; i < n; i += SPAN) {
        if ((spans[i]! & (FLAG.REMOVED | TOLD)) === FLAG.REMOVED) words[w++] = (i / SPAN) | 0;
      }
    }
    for (const index of this.#removed) words[w++] = index;
    let to = (w + pairs * 2) * 4;
    if (this.#newMethod !== undefined) to = out.latin1(this.#newMethod, to);
    if (this.#newPath !== undefined) to = out.latin1(this.#newPath, to);
    for (let k = this.#kept; k < added.length; k++) {
      words[w++] = added[k]!.length;
      to = out.latin1(added[k]!, to);
    }
    for (const line of map.lines) {
      words[w++] = line.name.text.length;
      to = out.latin1(line.name.text, to);
      words[w++] = line.value.length;
      to = out.latin1(line.value, to);
    }
    return (to + 3) & ~3;
  }

  /** The chain has been told the edits and still holds the head: `measure` will find only later edits. */
  settle(): void {
    const map = this.map as HeaderMap;
    this.#tellRemoved(map.count);
    // The chain has added this head's `lines` to its `added`.
    for (const line of map.lines) map.added.push(line.name.text, line.value);
    map.lines.length = 0;
    this.#added = map.added.length === 0 ? NONE : map.added.slice();
    if (map instanceof RequestHeaders) {
      if (map.methodEdited) this.#method = map.method;
      if (map.pathEdited) this.#path = map.path;
    } else if (map instanceof ResponseHeaders) this.#status = map.status;
  }
}

/** A view of `count` spans at byte `at`. */
const spansIn = ({ words }: Wide, at: number, count: number): Int32Array =>
  words.subarray(at >> 2, (at >> 2) + count * SPAN);

/** The name, if a sandboxed filter may add this line; else it throws. */
function checked(name: string, value: string, length: number): string {
  if (!FRAMING.has(name)) return name;
  if (name === "te" && value === "trailers") return name;
  if (name !== "content-length" || length < 0)
    throw new TypeError(`a sandboxed filter cannot set "${name}": framing is the codec's`);
  if (value !== String(length))
    throw new RangeError(`the body is ${length} bytes long, and not ${value}`);
  return name;
}

function checkWrite(name: string, writes: ReadonlySet<string> | undefined): void {
  if (writes?.has(name) === false)
    refuse(`it may not write "${name}"; name it in "write" of its manifest's "headers"`);
}

function refuse(wrong: string | undefined): void {
  if (wrong !== undefined) throw new TypeError(wrong);
}

/** The method that the head came with. */
const receivedMethod = ({ memory, base, methodAt, methodEnd }: RequestHeaders): string =>
  latin1Decode(memory, base + methodAt, base + methodEnd);

/** A request has one Host (RFC 9112 §3.2). */
function checkHost(map: HeaderMap): void {
  if (!(map instanceof RequestHeaders)) return;
  const [host, ...others] = map.getAll(HOST);
  if (others.length > 0) refuse(`a request has one host, and "${host}" is there; write set(…)`);
  refuse(wrongAuthority(host!));
}

function wrongStatus(status: number): string | undefined {
  if (isFinalStatus(status)) return undefined;
  return `:status cannot be ${status}: write a whole number from 200 to 999`;
}

const HOST = headerName("host");
const FLAG_WORD = 5;
/** Known ids of lines that a filter must not remove. It may remove content-length: then the codec frames the body by chunks. */
const KEPT: ReadonlySet<number> = new Set(
  ["transfer-encoding", "connection", "upgrade"].map((name) => headerName(name).known),
);
