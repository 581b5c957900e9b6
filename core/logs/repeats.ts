/** Within the first of these times a repeated message is counted, not printed; if it goes on, twice as long each time, up to the second. */
const FIRST_MS = 1_000;
const LONGEST_MS = 60_000;
/** How many different messages are remembered for that; if there are more, all are forgotten. */
const REMEMBERED = 1_000;

/** Messages that threads report: what concerns all of them comes from each, and what a filter gets wrong with each request. */
export class Repeats {
  readonly #now: () => number;
  readonly #said = new Map<string, { since: number; waitMs: number; times: number }>();

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Calls `print` unless the same key was printed a short while ago. `times`: how often it has come since, if more than once. */
  once(key: string, print: (more: { times?: number }) => void): void {
    const since = this.#now();
    const known = this.#said.get(key);
    if (known !== undefined && since - known.since < known.waitMs) {
      known.times++;
      return;
    }
    if (this.#said.size >= REMEMBERED) this.#said.clear();
    const times = known?.times ?? 1;
    const waitMs = times > 1 ? Math.min(known!.waitMs * 2, LONGEST_MS) : FIRST_MS;
    this.#said.set(key, { since, waitMs, times: 1 });
    print(times > 1 ? { times } : {});
  }
}
