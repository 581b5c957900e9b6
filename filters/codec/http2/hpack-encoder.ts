// Hot path: encodes every header block sent.
import {
  FLAG,
  type HeaderLine,
  type HeaderMap,
  headerName,
  latin1Encode,
  NAME_ID,
  type RequestHeaders,
  SPAN,
} from "@tsproxy/sdk";
import { DynamicTable, ENTRY_EXTRA } from "./dynamic-table.ts";
import type { FrameWriter } from "./frame-writer.ts";
import { huffmanEncode, huffmanSize } from "./huffman.ts";
import {
  PSEUDO,
  STATIC_COUNT,
  STATIC_FIELDS,
  staticAt,
  staticBytes,
  staticIndex,
  staticNameSize,
  staticValueSize,
} from "./static-table.ts";

/** The largest dynamic table used, even if the peer allows a larger one. */
const MAX_TABLE_SIZE = 4096;
const SLOTS = 256;

/** Bits of connection-specific names, not allowed in HTTP/2 (RFC 9113 §8.2.2), and of `host`, sent as `:authority`. */
export const SKIPPED =
  (1 << NAME_ID.HOST) |
  (1 << NAME_ID.CONNECTION) |
  (1 << NAME_ID.TRANSFER_ENCODING) |
  (1 << NAME_ID.KEEP_ALIVE) |
  (1 << NAME_ID.PROXY_CONNECTION) |
  (1 << NAME_ID.UPGRADE);
const HOST_BIT = 1 << NAME_ID.HOST;

/** Fields sent as never indexed, and short cookies likewise: their values could be guessed by probing (RFC 7541 §7.1.3). */
const SECRET = new Set([headerName("authorization").hash, headerName("proxy-authorization").hash]);
const COOKIE_HASH = headerName("cookie").hash;
const SHORT_COOKIE = 20;

const STATUS_INDEX: ReadonlyMap<number, number> = new Map(
  STATIC_FIELDS.flatMap(([name, value], k) =>
    name === ":status" ? [[Number(value), k + 1] as const] : [],
  ),
);
const NAME = { AUTHORITY: 1, METHOD: 2, PATH: 4, SCHEME: 6, STATUS: 8 } as const;
const PROTOCOL = latin1Encode(":protocol");
/** Envoy's order of pseudo fields for a request received over HTTP/1. */
const OWN_ORDER = [PSEUDO.AUTHORITY, PSEUDO.PATH, PSEUDO.METHOD, PSEUDO.SCHEME] as const;

/**
 * Encodes the header blocks sent on a connection (RFC 7541). A field enters the dynamic table when it occurs a second time, so
 * that values that differ in each message do not evict those that recur.
 */
export class HpackEncoder {
  /** Bytes of the names and values in the block so far. */
  size = 0;
  readonly #out: FrameWriter;
  readonly #table = new DynamicTable(MAX_TABLE_SIZE);
  /** Entry numbers in the dynamic table by hash of name and value; -1: none. */
  #entries: Int32Array | undefined = undefined;
  /** The same by hash of the name. */
  #names!: Int32Array;
  /** Hashes of fields that occurred before. */
  #met!: Int32Array;
  #max = MAX_TABLE_SIZE;
  /** Least table size set since the last block; that and `#max` are announced in the next block. -1: no change. */
  #leastSize = -1;
  #scratch: Uint8Array = new Uint8Array(256);

  constructor(out: FrameWriter) {
    this.#out = out;
  }

  /** Applies the peer's SETTINGS_HEADER_TABLE_SIZE. */
  setLimit(limit: number): void {
    const max = Math.min(limit, MAX_TABLE_SIZE);
    if (max === this.#max) return;
    this.#leastSize = this.#leastSize < 0 ? max : Math.min(this.#leastSize, max);
    this.#max = max;
  }

  /** Begins a block: announces changes of the table's size. */
  begin(): void {
    this.size = 0;
    if (this.#entries === undefined) {
      this.#entries = new Int32Array(SLOTS).fill(-1);
      this.#names = new Int32Array(SLOTS).fill(-1);
      this.#met = new Int32Array(SLOTS);
    }
    if (this.#leastSize < 0) return;
    const out = this.#out;
    out.ensure(16);
    if (this.#leastSize < this.#max) this.#integer(0x20, 0x1f, this.#leastSize);
    this.#integer(0x20, 0x1f, this.#max);
    this.#table.resize(this.#leastSize);
    this.#table.resize(this.#max);
    this.#leastSize = -1;
  }

  status(status: number): void {
    const index = STATUS_INDEX.get(status);
    if (index !== undefined) {
      this.#indexed(index);
      return;
    }
    const size = this.#text(String(status));
    this.#pseudo(NAME.STATUS, this.#scratch, 0, size);
  }

  /**
   * Encodes the pseudo fields of a request. `isConnect`: without scheme and path (RFC 9113 §8.5). `upgrade`: the protocol of
   * an extended CONNECT (RFC 8441), or "".
   */
  requestLine(headers: RequestHeaders, isConnect: boolean, upgrade: string): void {
    const order = headers.pseudoOrder;
    let written = 0;
    for (let shift = 12; shift >= 0 && order !== 0; shift -= 3) {
      const id = (order >>> shift) & 7;
      this.#requestField(id, headers, isConnect, upgrade);
      written |= 1 << id;
    }
    for (let k = 0; k < 4; k++) {
      const id = OWN_ORDER[k]!;
      if (((written >>> id) & 1) === 0) this.#requestField(id, headers, isConnect, upgrade);
    }
    if (upgrade !== "") {
      const size = this.#text(upgrade);
      this.#field(0, 0, PROTOCOL, 0, PROTOCOL.length, this.#scratch, 0, size);
    }
  }

  #requestField(id: number, headers: RequestHeaders, isConnect: boolean, upgrade: string): void {
    switch (id) {
      case PSEUDO.METHOD:
        if (upgrade !== "") this.#method("CONNECT");
        else this.#method(headers.methodEdited ? headers.method : headers);
        break;
      case PSEUDO.SCHEME:
        if (!isConnect) this.#indexed(headers.scheme === "https" ? 7 : NAME.SCHEME);
        break;
      case PSEUDO.PATH:
        if (!isConnect) this.#path(headers);
        break;
      case PSEUDO.AUTHORITY:
        this.#authority(headers);
    }
  }

  #method(method: string | RequestHeaders): void {
    let memory = this.#scratch;
    let at = 0;
    let end = 0;
    if (typeof method === "string") {
      end = this.#text(method);
      memory = this.#scratch;
    } else {
      memory = method.memory;
      at = method.base + method.methodAt;
      end = method.base + method.methodEnd;
    }
    const first = memory[at];
    if (end - at === 3 && first === 71 && memory[at + 2] === 84) this.#indexed(NAME.METHOD);
    else if (end - at === 4 && first === 80 && memory[at + 1] === 79 && memory[at + 3] === 84)
      this.#indexed(NAME.METHOD + 1);
    else this.#pseudo(NAME.METHOD, memory, at, end);
  }

  #path(headers: RequestHeaders): void {
    let { memory } = headers;
    let at = headers.base + headers.pathAt;
    let end = headers.base + headers.pathEnd;
    if (headers.pathEdited) {
      at = 0;
      end = this.#text(headers.path);
      memory = this.#scratch;
    }
    if (end - at === 1 && memory[at] === 47) this.#indexed(NAME.PATH);
    else this.#pseudo(NAME.PATH, memory, at, end);
  }

  #authority(headers: RequestHeaders): void {
    const { spans, base } = headers;
    for (let i = 0; (headers.present & HOST_BIT) !== 0 && i < headers.count * SPAN; i += SPAN) {
      if ((spans[i + 5]! & (FLAG.KNOWN | FLAG.REMOVED)) !== NAME_ID.HOST) continue;
      this.#putAuthority(headers.memory, base + spans[i + 2]!, base + spans[i + 3]!);
      return;
    }
    const authority = headers.authority;
    if (authority === undefined || authority === "") return;
    const size = this.#text(authority);
    this.#putAuthority(this.#scratch, 0, size);
  }

  #putAuthority(memory: Uint8Array, at: number, end: number): void {
    this.#pseudo(NAME.AUTHORITY, memory, at, end);
  }

  /** Encodes all regular fields of a head. `skip`: bits of known names that are left out. */
  fields(headers: HeaderMap, skip: number): void {
    const { spans, memory, base, added, lines } = headers;
    const last = headers.count * SPAN;
    for (let i = 0; i < last; i += SPAN) {
      const flags = spans[i + 5]!;
      if ((flags & FLAG.REMOVED) !== 0 || ((skip >>> (flags & FLAG.KNOWN)) & 1) !== 0) {
        if ((flags & FLAG.REPLACED) === 0) continue;
        const k = headers.replacementOf(i / SPAN);
        if (k >= 0) this.#added(added, k, skip);
        continue;
      }
      this.#regular(
        spans[i + 4]!,
        memory,
        base + spans[i]!,
        base + spans[i + 1]!,
        memory,
        base + spans[i + 2]!,
        base + spans[i + 3]!,
      );
    }
    let l = 0;
    for (let k = 0; k < added.length; k += 2) {
      for (; l < lines.length && headers.linesAt[l]! <= k; l++) this.#encoded(lines[l]!, skip);
      if (!headers.isPlaced(k)) this.#added(added, k, skip);
    }
    for (; l < lines.length; l++) this.#encoded(lines[l]!, skip);
  }

  /** Encodes the added field whose name and value are at `k` and `k + 1`. */
  #added(added: readonly string[], k: number, skip: number): void {
    const name = headerName(added[k]!);
    if (((skip >>> name.known) & 1) !== 0) return;
    const size = this.#text(added[k + 1]!);
    this.#regular(name.hash, name.bytes, 0, name.bytes.length, this.#scratch, 0, size);
  }

  #encoded({ name, bytes }: HeaderLine, skip: number): void {
    if (((skip >>> name.known) & 1) !== 0) return;
    const size = name.bytes.length;
    this.#regular(name.hash, bytes, 0, size, bytes, size + 2, bytes.length - 2);
  }

  /** Encodes one field; `name` must be in lower case. */
  line(name: string, value: string): void {
    const { hash, bytes } = headerName(name);
    const size = this.#text(value);
    this.#regular(hash, bytes, 0, bytes.length, this.#scratch, 0, size);
  }

  /** Writes a string to the front of `#scratch` and returns its size. */
  #text(text: string): number {
    if (text.length > this.#scratch.length) this.#scratch = new Uint8Array(text.length * 2);
    const to = this.#scratch;
    for (let k = 0; k < text.length; k++) to[k] = text.charCodeAt(k);
    return text.length;
  }

  /** Encodes a whole field of the static table. */
  #indexed(index: number): void {
    this.#out.ensure(1);
    this.#out.memory[this.#out.at++] = 0x80 | index;
    this.size += staticNameSize[index]! + staticValueSize[index]!;
  }

  #pseudo(known: number, memory: Uint8Array, at: number, end: number): void {
    const nameAt = staticAt[known]!;
    // The index serves as the name's hash; that is safe, as names are compared as well.
    this.#field(
      known,
      known,
      staticBytes,
      nameAt,
      nameAt + staticNameSize[known]!,
      memory,
      at,
      end,
    );
  }

  #regular(
    hash: number,
    names: Uint8Array,
    nameAt: number,
    nameEnd: number,
    memory: Uint8Array,
    at: number,
    end: number,
  ): void {
    let known = staticIndex.get(hash) ?? 0;
    if (known !== 0 && !isStaticName(known, names, nameAt, nameEnd)) known = 0;
    this.#field(hash, known, names, nameAt, nameEnd, memory, at, end);
  }

  /** Encodes one field. `known`: the static table's index of its name, or 0. */
  #field(
    nameHash: number,
    known: number,
    nameMemory: Uint8Array,
    nameAt: number,
    nameEnd: number,
    memory: Uint8Array,
    at: number,
    end: number,
  ): void {
    const size = end - at;
    const out = this.#out;
    this.size += size + nameEnd - nameAt;
    out.ensure(size + nameEnd - nameAt + 24);
    const key = fieldHash(nameHash, memory, at, end);
    const slot = (key ^ (key >>> 8)) & (SLOTS - 1);
    const table = this.#table;
    const entry = this.#entries![slot]!;
    if (entry >= table.first) {
      const i = entry & table.mask;
      const isSame =
        table.meta[i] === key &&
        this.#hasName(i, nameMemory, nameAt, nameEnd) &&
        this.#hasValue(i, memory, at, size);
      if (isSame) {
        this.#integer(0x80, 0x7f, STATIC_COUNT + table.next - entry);
        return;
      }
    }
    let index = known;
    if (index === 0) {
      const named = this.#names[nameSlot(nameHash)]!;
      if (named >= table.first && this.#hasName(named & table.mask, nameMemory, nameAt, nameEnd))
        index = STATIC_COUNT + table.next - named;
    }
    const isSecret = SECRET.has(nameHash) || (nameHash === COOKIE_HASH && size < SHORT_COOKIE);
    let adds = false;
    if (isSecret) this.#integer(0x10, 0x0f, index);
    else if (this.#met[slot] === key && size + ENTRY_EXTRA + nameEnd - nameAt < this.#max >> 1) {
      adds = true;
      this.#integer(0x40, 0x3f, index);
    } else {
      this.#met[slot] = key;
      this.#integer(0, 0x0f, index);
    }
    if (index === 0) this.#string(nameMemory, nameAt, nameEnd);
    this.#string(memory, at, end);
    if (adds) this.#add(key, slot, nameHash, nameMemory, nameAt, nameEnd, memory, at, end);
  }

  #add(
    key: number,
    slot: number,
    nameHash: number,
    nameMemory: Uint8Array,
    nameAt: number,
    nameEnd: number,
    memory: Uint8Array,
    at: number,
    end: number,
  ): void {
    const nameSize = nameEnd - nameAt;
    const line = new Uint8Array(nameSize + end - at + 4);
    line.set(nameMemory.subarray(nameAt, nameEnd));
    line.set(memory.subarray(at, end), nameSize + 2);
    this.#table.add(line, 0, nameSize, end - at, nameHash, key);
    this.#entries![slot] = this.#table.next - 1;
    this.#names[nameSlot(nameHash)] = this.#table.next - 1;
  }

  #hasValue(i: number, memory: Uint8Array, at: number, size: number): boolean {
    const table = this.#table;
    if (table.valueSize[i] !== size) return false;
    const valueAt = table.at[i]! + table.nameSize[i]! + 2;
    const { bytes } = table;
    for (let k = 0; k < size; k++) if (bytes[valueAt + k] !== memory[at + k]) return false;
    return true;
  }

  /** Compares the name of an entry, as hashes of names may collide. */
  #hasName(i: number, memory: Uint8Array, at: number, end: number): boolean {
    const table = this.#table;
    if (table.nameSize[i] !== end - at) return false;
    const nameAt = table.at[i]!;
    for (let k = 0; k < end - at; k++) if (table.bytes[nameAt + k] !== memory[at + k]) return false;
    return true;
  }

  #integer(first: number, mask: number, value: number): void {
    const out = this.#out;
    const { memory } = out;
    if (value < mask) {
      memory[out.at++] = first | value;
      return;
    }
    memory[out.at++] = first | mask;
    let rest = value - mask;
    for (; rest >= 128; rest >>>= 7) memory[out.at++] = (rest & 127) | 128;
    memory[out.at++] = rest;
  }

  #string(memory: Uint8Array, at: number, end: number): void {
    const out = this.#out;
    const size = end - at;
    const coded = huffmanSize(memory, at, end);
    if (coded < size) {
      this.#integer(0x80, 0x7f, coded);
      out.at = huffmanEncode(memory, at, end, out.memory, out.at);
    } else {
      this.#integer(0, 0x7f, size);
      out.bytes(memory, at, end);
    }
  }
}

function isStaticName(index: number, memory: Uint8Array, at: number, end: number): boolean {
  if (staticNameSize[index] !== end - at) return false;
  const nameAt = staticAt[index]! - at;
  for (let k = at; k < end; k++) if (staticBytes[nameAt + k] !== memory[k]) return false;
  return true;
}

const nameSlot = (hash: number): number => (hash ^ (hash >>> 9)) & (SLOTS - 1);

/** Hashes the name, the value's length and its last 16 bytes, in which most values differ. */
function fieldHash(nameHash: number, memory: Uint8Array, at: number, end: number): number {
  let hash = (Math.imul(nameHash, 31) + end - at) | 0;
  for (let k = Math.max(at, end - 16); k < end; k++) hash = ((hash << 5) - hash + memory[k]!) | 0;
  return hash;
}
