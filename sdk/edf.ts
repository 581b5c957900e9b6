// Hot path: a pick a request in clusters with weights.

const MAX_PICKS = 1 << 29;

/**
 * Earliest deadline first: whoever has weight w is due every 1/w, ties in the order they were put back. Over any stretch each
 * entry gets its share of the picks, and they are spread, not bunched.
 */
export class EdfScheduler<T> {
  readonly #entries: T[];
  readonly #weight: (entry: T) => number;
  /** A binary heap over these three arrays: due first, then put back first. */
  readonly #deadlines: Float64Array;
  readonly #orders: Float64Array;
  #order = 0;

  /** `entries` is not empty, weights are above 0. It begins as if `picks` had been made, so that many workers spread. */
  constructor(entries: readonly T[], weight: (entry: T) => number, picks: number) {
    const n = entries.length;
    this.#entries = [...entries];
    this.#weight = weight;
    this.#deadlines = new Float64Array(n);
    this.#orders = new Float64Array(n);
    let sum = 0;
    for (const entry of entries) sum += weight(entry);
    // Whole shares of the picks are given out at once; what rounding leaves (fewer than n) is played out.
    const wanted = Math.floor(picks) % MAX_PICKS;
    let given = 0;
    for (let k = 0; k < n; k++) {
      const w = weight(entries[k]!);
      const share = Math.floor((w / sum) * wanted);
      this.#deadlines[k] = (share + 1) / w;
      this.#orders[k] = this.#order++;
      given += share;
    }
    for (let k = (n >> 1) - 1; k >= 0; k--) this.#sink(k);
    for (; given < wanted; given++) this.pick();
  }

  pick(): T {
    const entry = this.#entries[0]!;
    this.#deadlines[0]! += 1 / this.#weight(entry);
    this.#orders[0] = this.#order++;
    this.#sink(0);
    return entry;
  }

  #sink(from: number): void {
    const deadlines = this.#deadlines;
    const orders = this.#orders;
    const entries = this.#entries;
    const n = entries.length;
    const deadline = deadlines[from]!;
    const order = orders[from]!;
    const entry = entries[from]!;
    let at = from;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= n) break;
      if (child + 1 < n && this.#before(child + 1, child)) child++;
      if (deadlines[child]! > deadline || (deadlines[child] === deadline && orders[child]! > order))
        break;
      deadlines[at] = deadlines[child]!;
      orders[at] = orders[child]!;
      entries[at] = entries[child]!;
      at = child;
    }
    deadlines[at] = deadline;
    orders[at] = order;
    entries[at] = entry;
  }

  #before(a: number, b: number): boolean {
    const difference = this.#deadlines[a]! - this.#deadlines[b]!;
    return difference < 0 || (difference === 0 && this.#orders[a]! < this.#orders[b]!);
  }
}
