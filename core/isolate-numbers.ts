/** Of an isolate's number, the bits that all isolates of its thread have in common. */
export const THREAD_BITS = -0x1_0000;

/** Numbers the isolates of one thread: who uses shared cells is known by it. */
export class IsolateNumbers {
  readonly #thread: number;
  #count = 0;

  /** `thread`: a number that no thread of the process has had. */
  constructor(thread: number) {
    this.#thread = thread;
  }

  /** After 65,535 of them the first ones, which have long ended, come again. */
  next(): number {
    return (this.#thread << 16) | ((this.#count++ % 0xffff) + 1);
  }
}
