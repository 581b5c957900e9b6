// Hot path: used for every header block, sent or received.

/** Size that an entry counts in addition to its name and value (RFC 7541 §4.1). */
export const ENTRY_EXTRA = 32;
const NOTHING = new Uint8Array(0);
const NO_INTS = new Int32Array(0);

/**
 * HPACK's dynamic table (RFC 7541 §2.3.2): recent fields as lines `name: value CRLF`. Entries are numbered in the order of
 * their arrival; the table has those in [first, next). A line is contiguous in `bytes`, which is twice the table's size: when
 * its end is reached, the remaining lines move to the front.
 */
export class DynamicTable {
  bytes: Uint8Array = NOTHING;
  /** Offset of each entry's line; index of this and the next four arrays: entry number & `mask`. */
  at: Int32Array = NO_INTS;
  nameSize: Int32Array = NO_INTS;
  valueSize: Int32Array = NO_INTS;
  hash: Int32Array = NO_INTS;
  meta: Int32Array = NO_INTS;
  mask = 0;
  first = 0;
  next = 0;
  /** Maximum size of the table in bytes, counted as in RFC 7541 §4.1. */
  max: number;
  #size = 0;
  #end = 0;
  readonly #limit: number;

  /** `limit`: upper bound of `max`. */
  constructor(limit: number) {
    this.#limit = limit;
    this.max = limit;
  }

  get count(): number {
    return this.next - this.first;
  }

  /** Changes the maximum size and evicts entries; `max` must not exceed the limit. */
  resize(max: number): void {
    this.max = max;
    this.#evictTo(max);
  }

  /** Adds the line at `memory[at]`, evicting old entries. One larger than the table only empties it (RFC 7541 §4.4). */
  add(
    memory: Uint8Array,
    at: number,
    nameSize: number,
    valueSize: number,
    hash: number,
    meta: number,
  ): void {
    const size = nameSize + valueSize + ENTRY_EXTRA;
    this.#evictTo(this.max - size);
    if (size > this.max) return;
    if (this.bytes.length === 0) this.#allocate();
    const line = nameSize + valueSize + 4;
    if (this.#end + line > this.bytes.length) this.#compact();
    const to = this.#end;
    if (line > 32) this.bytes.set(memory.subarray(at, at + line), to);
    else for (let k = 0; k < line; k++) this.bytes[to + k] = memory[at + k]!;
    const i = this.next & this.mask;
    this.at[i] = to;
    this.nameSize[i] = nameSize;
    this.valueSize[i] = valueSize;
    this.hash[i] = hash;
    this.meta[i] = meta;
    this.#end = to + line;
    this.#size += size;
    this.next++;
  }

  #evictTo(size: number): void {
    while (this.#size > size && this.first < this.next) {
      const i = this.first & this.mask;
      this.#size -= this.nameSize[i]! + this.valueSize[i]! + ENTRY_EXTRA;
      this.first++;
    }
    if (this.first === this.next) this.#end = 0;
  }

  #allocate(): void {
    this.bytes = new Uint8Array(this.#limit * 2);
    let places = 16;
    while (places * ENTRY_EXTRA < this.#limit) places *= 2;
    this.mask = places - 1;
    this.at = new Int32Array(places);
    this.nameSize = new Int32Array(places);
    this.valueSize = new Int32Array(places);
    this.hash = new Int32Array(places);
    this.meta = new Int32Array(places);
  }

  #compact(): void {
    if (this.first === this.next) {
      this.#end = 0;
      return;
    }
    const from = this.at[this.first & this.mask]!;
    this.bytes.copyWithin(0, from, this.#end);
    for (let n = this.first; n < this.next; n++) this.at[n & this.mask]! -= from;
    this.#end -= from;
  }
}
