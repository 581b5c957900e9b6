// Hot path: test/bench/http1-codec.ts.
import { type HeaderMap, type ParsedLines, wordsOf } from "@tsproxy/sdk";
import { parseFields } from "./fields.ts";

/** Blocks that are kept. */
const SLOTS = 64;
/** Bytes of a block that is kept at most; shorter ones than MIN_BYTES are parsed as quickly. */
const MAX_BYTES = 1024;
const MIN_BYTES = 100;
/** One in this many of the blocks that a slot does not have is kept in it: peers that never say the same twice cost little. */
const LEARN_EVERY = 8;

/** A block of header lines as it was received, and what its parser made of it. */
class KnownBlock {
  /**
   * The block as it was received, and with its names in lower case. Both begin at the offset within a word (`#start`) that the block
   * had in the memory that it came in: only blocks of that offset can be compared word by word.
   */
  readonly #received = new Int32Array(MAX_BYTES / 4 + 2);
  readonly #folded = new Int32Array(MAX_BYTES / 4 + 2);
  readonly #receivedBytes = new Uint8Array(this.#received.buffer);
  readonly #foldedBytes = new Uint8Array(this.#folded.buffer);
  #isFolded = false;
  /** 0: there is none. */
  #size = 0;
  #start = 0;
  #lines: ParsedLines | undefined = undefined;
  #misses = 0;

  /** Gives the head the lines of this block, if the bytes from `at` on are the same. */
  give(headers: HeaderMap, words: Int32Array, at: number, end: number, most: number): boolean {
    const lines = this.#lines;
    const to = at + this.#size;
    if (lines === undefined || this.#start !== (at & 3) || to > end || lines.count > most)
      return false;
    const { memory } = headers;
    const bytes = this.#receivedBytes;
    const received = this.#received;
    const shift = at >> 2;
    const first = (at + 3) >> 2;
    const last = to >> 2;
    for (let w = first; w < last; w++) if (words[w] !== received[w - shift]) return false;
    const offset = shift << 2;
    for (let q = at; q < first << 2; q++) if (memory[q] !== bytes[q - offset]) return false;
    for (let q = last << 2; q < to; q++) if (memory[q] !== bytes[q - offset]) return false;
    if (this.#isFolded) {
      const folded = this.#folded;
      for (let w = first; w < last; w++) words[w] = folded[w - shift]!;
      for (let q = at; q < first << 2; q++) memory[q] = this.#foldedBytes[q - offset]!;
    }
    headers.addParsed(lines, at - headers.base);
    headers.blockEnd = to - headers.base;
    return true;
  }

  get isDue(): boolean {
    return this.#misses++ % LEARN_EVERY === 0;
  }

  /** Parses a block and keeps it, if it is complete and not too long. */
  learn(headers: HeaderMap, at: number, end: number, most: number): number {
    const { memory } = headers;
    const start = at & 3;
    const from = at - start;
    this.#lines = undefined;
    this.#receivedBytes.set(memory.subarray(from, Math.min(end, at + MAX_BYTES)));
    const next = parseFields(headers, at, end, most, true);
    if (next <= 0 || next - at > MAX_BYTES) return next;
    this.#foldedBytes.set(memory.subarray(from, next));
    this.#start = start;
    this.#size = next - at;
    this.#isFolded = false;
    for (let k = start; k < start + this.#size && !this.#isFolded; k++)
      this.#isFolded = this.#receivedBytes[k] !== this.#foldedBytes[k];
    this.#lines = headers.parsed(at - headers.base);
    return next;
  }
}

/**
 * Blocks of header lines that were parsed lately, by slot. Clients and upstreams mostly say the same in message after message: for a
 * block that equals one of these byte for byte, what was found then is taken over.
 */
const blocks: (KnownBlock | undefined)[] = new Array(SLOTS).fill(undefined);

/** As parseFields, for the first lines of a head. */
export function parseBlock(headers: HeaderMap, at: number, end: number, most: number): number {
  const words = end - at < MIN_BYTES ? undefined : wordsOf(headers.memory);
  if (words === undefined) return parseFields(headers, at, end, most, true);
  const slot = slotOf(words, at);
  const block = (blocks[slot] ??= new KnownBlock());
  if (block.give(headers, words, at, end, most)) return headers.base + headers.blockEnd;
  return block.isDue
    ? block.learn(headers, at, end, most)
    : parseFields(headers, at, end, most, true);
}

/** The slot of a block, by six of its first words and its offset within a word. */
function slotOf(words: Int32Array, at: number): number {
  const w = at >> 2;
  let hash = at & 3;
  for (let k = w + 2; k < w + MIN_BYTES / 4; k += 4) hash = (Math.imul(hash, 31) + words[k]!) | 0;
  return (hash ^ (hash >>> 15) ^ (hash >>> 24)) & (SLOTS - 1);
}
