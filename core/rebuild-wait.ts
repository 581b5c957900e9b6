/** Milliseconds to wait before an isolate that was lost is built again, by the number of its losses in succession. */
const WAITS_MS = [0, 250, 1000, 5000] as const;

/** How long to wait before the builtin isolate is built again, so that code which is lost at once does not take the whole CPU. */
export class RebuildWait {
  readonly #forgetMs: number;
  #lostAt = Number.NEGATIVE_INFINITY;
  #losses = 0;

  /** After `forgetMs` without a loss the next one counts as the first. */
  constructor(forgetMs: number) {
    this.#forgetMs = forgetMs;
  }

  /** The isolate was lost at `now`. `isReplaced`: other code takes the place of what was lost, so there is nothing to wait for. */
  afterLoss(now: number, isReplaced: boolean): number {
    if (isReplaced || now - this.#lostAt > this.#forgetMs) this.#losses = 0;
    this.#lostAt = now;
    return WAITS_MS[Math.min(this.#losses++, WAITS_MS.length - 1)]!;
  }
}
