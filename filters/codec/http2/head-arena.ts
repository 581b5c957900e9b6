// Hot path: memory of received heads.

const SIZE = 128 * 1024;

/** Memory for the heads decoded by all connections of a setup; a head is valid until the turn ends, then the memory is reused. */
export class HeadArena {
  memory: Uint8Array = new Uint8Array(SIZE);
  at = 0;
  #turn = -1;
  readonly #now: () => number;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** Starts over at offset 0 in a new turn, which shows by the time: it does not change within a turn. */
  begin(): void {
    const now = this.#now();
    if (now === this.#turn) return;
    this.#turn = now;
    this.at = 0;
  }

  /** Makes room for `size` bytes at `at`. The bytes from `from` to `at` may be moved; returns where they begin afterwards. */
  grow(from: number, size: number): number {
    if (this.at + size <= this.memory.length) return from;
    // The old memory is not reused: heads of this turn still point into it.
    const kept = this.memory.subarray(from, this.at);
    const next = new Uint8Array(Math.max(SIZE, (kept.length + size) * 2));
    next.set(kept);
    this.memory = next;
    this.at = kept.length;
    return 0;
  }
}
