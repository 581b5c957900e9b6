/** Envoy hands out a sixteenth of a second's bytes at a time. */
const SLICES = 16;
const SLICE_MS = 1000 / SLICES;

/** Slows one response down: tells how long bytes that have come have to wait. */
export class Throttle {
  readonly #sliceBytes: number;
  /** When the last of the bytes given out so far may go. */
  #freeAt = Number.NEGATIVE_INFINITY;

  constructor(kbps: number) {
    this.#sliceBytes = (kbps * 1024) / SLICES;
  }

  /** Milliseconds to wait before these bytes go on. The first slice goes at once; a second's slices can be saved up. */
  waitMs(bytes: number, now: number): number {
    if (bytes === 0) return 0;
    const saved = this.#freeAt === Number.NEGATIVE_INFINITY ? 1 : SLICES;
    this.#freeAt = Math.max(this.#freeAt, now - saved * SLICE_MS);
    this.#freeAt += (bytes / this.#sliceBytes) * SLICE_MS;
    return Math.max(0, this.#freeAt - now);
  }
}
