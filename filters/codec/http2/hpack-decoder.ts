// Hot path: every header block that arrives.
import { knownId, latin1Decode, tokenByte } from "@tsproxy/sdk";
import { DynamicTable } from "./dynamic-table.ts";
import { FAULT, type HeadBuilder } from "./head-builder.ts";
import { decodedSize, huffmanDecode } from "./huffman.ts";
import {
  META,
  pseudoId,
  STATIC_COUNT,
  staticAt,
  staticBytes,
  staticHash,
  staticMeta,
  staticNameSize,
  staticValueSize,
} from "./static-table.ts";

const COLON = 58;
/** RFC 9113 §6.5.2: what a peer may use before it has seen our settings. */
export const DEFAULT_TABLE_SIZE = 4096;

/** 1 for bytes that a field value may have (RFC 9110 §5.5): VCHAR, obs-text, SP, HTAB. */
const valueByte = new Uint8Array(256).fill(1, 32);
valueByte[9] = 1;
valueByte[127] = 0;

/** RFC 7541: header blocks of one direction of a connection, in order. */
export class HpackDecoder {
  readonly #table: DynamicTable;
  /** The largest table that the peer may ask for. */
  #limit: number;
  /** Where a primitive ended; below zero: it is broken. */
  #at = 0;
  /** The field that an index names. */
  #source: Uint8Array = staticBytes;
  #sourceAt = 0;
  #nameSize = 0;
  #valueSize = 0;
  #hash = 0;
  #meta = 0;

  constructor(tableSize: number) {
    this.#limit = Math.max(tableSize, DEFAULT_TABLE_SIZE);
    this.#table = new DynamicTable(this.#limit);
    this.#table.resize(DEFAULT_TABLE_SIZE);
  }

  /** The peer has acknowledged the size that our settings gave. */
  onTableSizeAcknowledged(tableSize: number): void {
    this.#limit = tableSize;
  }

  /** Adds the fields of a whole block to `head`. False: the block is broken, and all that follow it with it. */
  decode(memory: Uint8Array, at: number, end: number, head: HeadBuilder): boolean {
    let q = at;
    let first = true;
    while (q < end) {
      const byte = memory[q]!;
      if ((byte & 0x80) !== 0) {
        if (!this.#find(this.#integer(memory, q, end, 0x7f))) return false;
        this.#addIndexed(head);
      } else if ((byte & 0x40) !== 0) {
        if (!this.#readLiteral(memory, q, end, 0x3f, head, true)) return false;
      } else if ((byte & 0x20) === 0) {
        if (!this.#readLiteral(memory, q, end, 0x0f, head, false)) return false;
      } else {
        // RFC 7541 §4.2: a change of size stands at the beginning, and twice at most.
        const size = this.#integer(memory, q, end, 0x1f);
        if (!first || size < 0 || size > this.#limit) return false;
        this.#table.resize(size);
        q = this.#at;
        continue;
      }
      first = false;
      q = this.#at;
    }
    return true;
  }

  /** RFC 7541 §5.1. Answers -1 for one that is cut or larger than anything here can be. */
  #integer(memory: Uint8Array, at: number, end: number, mask: number): number {
    let q = at;
    if (q >= end) return this.#fail();
    let value = memory[q++]! & mask;
    if (value === mask) {
      for (let shift = 0; ; shift += 7) {
        if (q === end || shift > 21) return this.#fail();
        const byte = memory[q++]!;
        value += (byte & 0x7f) << shift;
        if ((byte & 0x80) === 0) break;
      }
    }
    this.#at = q;
    return value;
  }

  #fail(): number {
    this.#at = -1;
    return -1;
  }

  /** Looks an index up; false if nothing is there. */
  #find(index: number): boolean {
    if (index <= 0) return false;
    if (index <= STATIC_COUNT) {
      this.#source = staticBytes;
      this.#sourceAt = staticAt[index]!;
      this.#nameSize = staticNameSize[index]!;
      this.#valueSize = staticValueSize[index]!;
      this.#hash = staticHash[index]!;
      this.#meta = staticMeta[index]!;
      return true;
    }
    const table = this.#table;
    const number = table.next - (index - STATIC_COUNT);
    if (number < table.first) return false;
    const i = number & table.mask;
    this.#source = table.bytes;
    this.#sourceAt = table.at[i]!;
    this.#nameSize = table.nameSize[i]!;
    this.#valueSize = table.valueSize[i]!;
    this.#hash = table.hash[i]!;
    this.#meta = table.meta[i]!;
    return true;
  }

  #addIndexed(head: HeadBuilder): void {
    // A byte can name 4 KiB of table: nobody copies them for a head that is lost.
    if (head.fault === FAULT.TOO_LARGE) return;
    const size = this.#nameSize + this.#valueSize + 4;
    const to = head.open(this.#meta, size);
    const { memory } = head;
    copy(this.#source, this.#sourceAt, size, memory, to);
    const valueSize =
      (this.#meta & META.SPACED) === 0
        ? this.#valueSize
        : trim(memory, to + this.#nameSize + 2, this.#valueSize);
    head.add(to, this.#nameSize, valueSize, this.#hash, this.#meta);
  }

  #readLiteral(
    memory: Uint8Array,
    at: number,
    end: number,
    mask: number,
    head: HeadBuilder,
    indexed: boolean,
  ): boolean {
    const index = this.#integer(memory, at, end, mask);
    if (index < 0) return false;
    let to: number;
    if (index > 0) {
      if (!this.#find(index)) return false;
      const valueAt = this.#at;
      to = head.open(this.#meta, this.#nameSize + roomFor(end - valueAt));
      copy(this.#source, this.#sourceAt, this.#nameSize, head.memory, to);
    } else {
      to = head.openUnknown(roomFor(end - this.#at));
      const nameEnd = this.#string(memory, this.#at, end, head.memory, to);
      if (nameEnd < 0) return false;
      this.#nameSize = nameEnd - to;
      this.#readName(head.memory, to, nameEnd);
      head.openKnown(this.#meta, to);
    }
    const out = head.memory;
    const nameEnd = to + this.#nameSize;
    out[nameEnd] = COLON;
    out[nameEnd + 1] = 32;
    const valueAt = nameEnd + 2;
    const valueEnd = this.#string(memory, this.#at, end, out, valueAt);
    if (valueEnd < 0) return false;
    out[valueEnd] = 13;
    out[valueEnd + 1] = 10;
    const meta = (this.#meta & ~VALUE_BITS) | oddities(out, valueAt, valueEnd);
    let valueSize = valueEnd - valueAt;
    // The table keeps it as it came: both ends count the same bytes (RFC 7541 §4.1).
    if (indexed) this.#table.add(out, to, this.#nameSize, valueSize, this.#hash, meta);
    if ((meta & META.SPACED) !== 0) valueSize = trim(out, valueAt, valueSize);
    head.add(to, this.#nameSize, valueSize, this.#hash, meta);
    return true;
  }

  /** RFC 7541 §5.2: writes a string at `to`. Where it ended there, or -1. */
  #string(memory: Uint8Array, at: number, end: number, out: Uint8Array, to: number): number {
    if (at >= end) return -1;
    const coded = (memory[at]! & 0x80) !== 0;
    const size = this.#integer(memory, at, end, 0x7f);
    const from = this.#at;
    if (size < 0 || size > end - from) return -1;
    this.#at = from + size;
    if (coded) return huffmanDecode(memory, from, from + size, out, to);
    copy(memory, from, size, out, to);
    return to + size;
  }

  /** RFC 9113 §8.2.1: names are tokens in lower case. */
  #readName(out: Uint8Array, at: number, end: number): void {
    this.#hash = this.#meta = 0;
    if (at === end) this.#meta = META.MALFORMED_NAME;
    else if (out[at] === COLON) {
      this.#meta = pseudoId(latin1Decode(out, at, Math.min(end, at + 16))) << META.PSEUDO_SHIFT;
    } else {
      let hash = 0;
      for (let k = at; k < end; k++) {
        const byte = out[k]!;
        if (tokenByte[byte] !== byte || byte === 0) {
          this.#meta = META.MALFORMED_NAME;
          return;
        }
        hash = ((hash << 5) - hash + byte) | 0;
      }
      this.#hash = hash;
      this.#meta = knownId(hash, out, at, end);
    }
  }
}

/** For what is left of a block: the strings in it, decoded, and what a line has beside them. */
const roomFor = (size: number): number => decodedSize(size) + size + 16;

const VALUE_BITS = META.MALFORMED_VALUE | META.SPACED;

/** RFC 9113 §8.2.1: what a value cannot have; and white space at its ends, which RFC 9113 forbids and Envoy takes away. */
function oddities(memory: Uint8Array, at: number, end: number): number {
  if (at === end) return 0;
  for (let k = at; k < end; k++) if (valueByte[memory[k]!] === 0) return META.MALFORMED_VALUE;
  return isSpace(memory[at]!) || isSpace(memory[end - 1]!) ? META.SPACED : 0;
}

const isSpace = (byte: number): boolean => byte === 32 || byte === 9;

/** Takes the white space around a value away, so that its line ends where it ends; the size that is left. */
function trim(memory: Uint8Array, at: number, size: number): number {
  let from = at;
  let end = at + size;
  while (from < end && isSpace(memory[from]!)) from++;
  while (end > from && isSpace(memory[end - 1]!)) end--;
  memory.copyWithin(at, from, end);
  const left = end - from;
  memory[at + left] = 13;
  memory[at + left + 1] = 10;
  return left;
}

/** A loop up to 64 bytes; beyond, a view for `set` pays. */
function copy(from: Uint8Array, at: number, size: number, to: Uint8Array, toAt: number): void {
  if (size <= 64) for (let k = 0; k < size; k++) to[toAt + k] = from[at + k]!;
  else to.set(from.subarray(at, at + size), toAt);
}
