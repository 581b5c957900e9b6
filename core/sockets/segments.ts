/** Equal parts of the ring's memory: `count` of them from `base` on, each of `size` bytes. */
class EqualParts {
  readonly base: number;
  readonly size: number;
  readonly count: number;

  constructor(base: number, size: number, count: number) {
    this.base = base;
    this.size = size;
    this.count = count;
  }

  /** The part that the offset lies in. */
  of(offset: number): number {
    return ((offset - this.base) / this.size) | 0;
  }
  /** True if one part holds all these bytes. */
  holds(offset: number, length: number): boolean {
    return (
      offset >= this.base &&
      offset + length <= this.base + this.count * this.size &&
      this.of(offset) === this.of(offset + length - 1)
    );
  }
}

/**
 * The segments of the ring's memory, and how long their bytes stay as they are. One segment takes input: the bytes of an event are
 * valid until the flush that delivers it ends. One takes output: its bytes may still be needed by a socket write after the flush, and
 * then the segment is pinned until the kernel has taken them. Pinning a segment in use puts a free one in its place; when too few are
 * free, writes are made from private copies instead, so slow readers cannot stop the worker.
 */
export class Segments extends EqualParts {
  readonly #pins: Int32Array;
  readonly #free: number[] = [];
  #input = 0;
  #output = 1;
  /** Where the next input goes. */
  inputAt: number;

  constructor(base: number, size: number, count: number) {
    super(base, size, count);
    this.#pins = new Int32Array(count);
    for (let s = count - 1; s >= 2; s--) this.#free.push(s);
    this.inputAt = base;
  }

  get freeCount(): number {
    return this.#free.length;
  }
  get outputStart(): number {
    return this.base + this.#output * this.size;
  }
  get outputEnd(): number {
    return this.outputStart + this.size;
  }
  /** True if `size` more bytes of input fit into the segment. */
  hasInput(size: number): boolean {
    return this.inputAt + size <= this.base + (this.#input + 1) * this.size;
  }
  /** All events that name input have been handled: its segment begins anew. */
  resetInput(): void {
    this.inputAt = this.base + this.#input * this.size;
  }

  /** A flush may pin both segments in use, so two must be free. */
  get mayPin(): boolean {
    return this.#free.length >= 2;
  }
  /** Not to be unpinned in the same flush: others of its events and commands may name bytes of the segment. */
  pin(segment: number): void {
    this.#pins[segment]!++;
    if (segment === this.#input) {
      this.#input = this.#free.pop()!;
      this.resetInput();
    } else if (segment === this.#output) this.#output = this.#free.pop()!;
  }
  unpin(segment: number): void {
    if (--this.#pins[segment]! === 0) this.#free.push(segment);
  }
}

/**
 * Read slots of the ring's memory: a socket that reads in bulk owns one, so that its bytes can be forwarded without a copy. A slot is
 * free once nothing refers to it: neither its reader, nor an undelivered event, nor a write that is not finished.
 */
export class Slots extends EqualParts {
  readonly #references: Int32Array;
  readonly #free: number[] = [];

  constructor(base: number, size: number, count: number) {
    super(base, size, count);
    this.#references = new Int32Array(count);
    for (let s = count - 1; s >= 0; s--) this.#free.push(s);
  }

  get freeCount(): number {
    return this.#free.length;
  }
  /** Takes a free slot, with one reference. -1: there is none. */
  take(): number {
    const slot = this.#free.pop();
    if (slot === undefined) return -1;
    this.#references[slot] = 1;
    return slot;
  }
  hold(slot: number): void {
    this.#references[slot]!++;
  }
  drop(slot: number): void {
    if (--this.#references[slot]! === 0) this.#free.push(slot);
  }
  /** True if only its reader refers to it: it can be read into again. */
  isQuiet(slot: number): boolean {
    return this.#references[slot] === 1;
  }
}
