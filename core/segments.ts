/**
 * Lifetimes of the worker's shared memory. The bytes of an event are valid until the flush that delivers it ends; a piece that
 * a socket write still needs is pinned. One segment takes input and one takes output; neither is ever pinned while in that
 * use: pinning takes it out of use, for which another must be free. When none is, writes are made from private copies, so slow
 * readers cannot stop the worker.
 */
export class Segments {
  readonly base: number;
  readonly size: number;
  readonly count: number;
  readonly #pins: Int32Array;
  readonly #free: number[] = [];
  #input = 0;
  #output = 1;
  /** Where the next input goes. */
  inputAt: number;

  constructor(base: number, size: number, count: number) {
    this.base = base;
    this.size = size;
    this.count = count;
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
  /** True if `size` more bytes of input fit. */
  hasInput(size: number): boolean {
    return this.inputAt + size <= this.base + (this.#input + 1) * this.size;
  }
  /** The events that named input have been handled. */
  resetInput(): void {
    this.inputAt = this.base + this.#input * this.size;
  }

  of(offset: number): number {
    return ((offset - this.base) / this.size) | 0;
  }
  holds(offset: number, length: number): boolean {
    return (
      offset >= this.base &&
      offset + length <= this.base + this.count * this.size &&
      this.of(offset) === this.of(offset + length - 1)
    );
  }
  /** Two free ones are enough to pin both that are in use. */
  get mayPin(): boolean {
    return this.#free.length >= 2;
  }
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

/** Read slots: a socket that moves bulk owns one while it does. Counted: the reader, an undelivered event, a pinned write. */
export class Slots {
  readonly base: number;
  readonly size: number;
  readonly count: number;
  readonly #references: Int32Array;
  readonly #free: number[] = [];

  constructor(base: number, size: number, count: number) {
    this.base = base;
    this.size = size;
    this.count = count;
    this.#references = new Int32Array(count);
    for (let s = count - 1; s >= 0; s--) this.#free.push(s);
  }

  get freeCount(): number {
    return this.#free.length;
  }
  /** -1: none is free. */
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
  /** Nobody but its reader holds it. */
  isQuiet(slot: number): boolean {
    return this.#references[slot] === 1;
  }
  of(offset: number): number {
    return ((offset - this.base) / this.size) | 0;
  }
  holds(offset: number, length: number): boolean {
    return (
      offset >= this.base &&
      offset + length <= this.base + this.count * this.size &&
      this.of(offset) === this.of(offset + length - 1)
    );
  }
}
