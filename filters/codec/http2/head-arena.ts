// Hot path: where heads lie until their turn ends.

const SIZE = 128 * 1024;

/** Memory for the heads that all connections of a setup decode. It is used again in the next turn: heads are lent until then. */
export class HeadArena {
  memory: Uint8Array = new Uint8Array(SIZE);
  at = 0;
  #turn = -1;
  readonly #now: () => number;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** The clock stands still within a turn. */
  begin(): void {
    const now = this.#now();
    if (now === this.#turn) return;
    this.#turn = now;
    this.at = 0;
  }

  /** Room for `size` bytes behind those from `from` on, which may move for it. Answers where they begin then. */
  grow(from: number, size: number): number {
    if (this.at + size <= this.memory.length) return from;
    // Heads of this turn still point into the old memory, so it is left to them.
    const kept = this.memory.subarray(from, this.at);
    const next = new Uint8Array(Math.max(SIZE, (kept.length + size) * 2));
    next.set(kept);
    this.memory = next;
    this.at = kept.length;
    return 0;
  }
}
