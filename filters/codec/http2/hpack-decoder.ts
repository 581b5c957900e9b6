// Hot path: decodes every received header block.
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
/** Initial size of the dynamic table, valid until the peer has our settings (RFC 9113 §6.5.2). */
const DEFAULT_TABLE_SIZE = 4096;

/** 1 for bytes allowed in a field value (RFC 9110 §5.5): VCHAR, obs-text, SP, HTAB. */
const valueByte = new Uint8Array(256).fill(1, 32);
valueByte[9] = 1;
valueByte[127] = 0;

/** Decodes the received header blocks of a connection, which share one dynamic table (RFC 7541). */
export class HpackDecoder {
  readonly #table: DynamicTable;
  /** The largest table size that the peer may choose. */
  #limit: number;
  /** Offset after the last integer or string read; -1 if it was malformed. */
  #at = 0;
  /** The table entry that #find found; #readName sets name size, hash and meta of a literal name. */
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

  /** Called when the peer has acknowledged our settings, which allow a table of `tableSize` bytes. */
  onTableSizeAcknowledged(tableSize: number): void {
    this.#limit = tableSize;
  }

  /** Adds the fields of a complete block to `head`. False: it is malformed, and later blocks cannot be decoded either. */
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
        // RFC 7541 §4.2: changes of the table size are allowed only at the beginning of a block.
        const size = this.#integer(memory, q, end, 0x1f);
        if (!first || size < 0 || size > this.#limit) return false;
        this.#table.resize(size);
        q = this.#at;
        continue;
      }
      // RFC 9113 §4.3.1: a peer that has acknowledged a smaller table makes its own smaller before any field.
      if (this.#table.max > this.#limit) return false;
      first = false;
      q = this.#at;
    }
    return true;
  }

  /** Reads an integer (RFC 7541 §5.1); -1 if it is cut off or has more than four continuation bytes. */
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

  /** Looks up an index of the static and dynamic table; false if there is no entry. */
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
    // One byte can stand for an entry of 4 KiB, so nothing is copied once the head is too large.
    if (head.fault === FAULT.TOO_LARGE) return;
    const size = this.#nameSize + this.#valueSize + 4;
    const to = head.open(this.#meta, size);
    copy(this.#source, this.#sourceAt, size, head.memory, to);
    head.add(to, this.#nameSize, this.#valueSize, this.#hash, this.#meta);
  }

  /** Decodes a literal field (RFC 7541 §6.2) and adds it to `head`; false if malformed. */
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
    const meta = (this.#meta & ~META.MALFORMED_VALUE) | valueMeta(out, valueAt, valueEnd);
    const valueSize = valueEnd - valueAt;
    if (indexed) this.#table.add(out, to, this.#nameSize, valueSize, this.#hash, meta);
    head.add(to, this.#nameSize, valueSize, this.#hash, meta);
    return true;
  }

  /** Decodes a string (RFC 7541 §5.2) to `out` at `to`; returns its end there, or -1 if malformed. */
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

  /** Sets hash and meta of a name; it must be a token in lower case (RFC 9113 §8.2.1). */
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

/** Room for a line decoded from at most `size` bytes of a block. */
const roomFor = (size: number): number => decodedSize(size) + size + 16;

/** META.MALFORMED_VALUE for invalid bytes. As in Envoy, white space at an end, which RFC 9113 §8.2.1 forbids, is part of the value. */
function valueMeta(memory: Uint8Array, at: number, end: number): number {
  for (let k = at; k < end; k++) if (valueByte[memory[k]!] === 0) return META.MALFORMED_VALUE;
  return 0;
}

/** Copies bytes: by a loop up to 64, beyond that `set` is faster. */
function copy(from: Uint8Array, at: number, size: number, to: Uint8Array, toAt: number): void {
  if (size <= 64) for (let k = 0; k < size; k++) to[toAt + k] = from[at + k]!;
  else to.set(from.subarray(at, at + size), toAt);
}
