// Hot path: a pick a request in clusters with weights.

/** Picks that a start may be ahead by at most. */
const MAX_PICKS = 1 << 29;

/** An entry's place in the order. */
interface Turn<T> {
  readonly entry: T;
  /** When it is due: `since` + `turns` / `weight`. Adding up 1 / `weight` instead would round, and ties would be lost. */
  deadline: number;
  /** Of entries that are due at the same time, the one put back first comes first. */
  order: number;
  weight: number;
  /** The deadline at which `weight` last changed, and the turns given since then. */
  since: number;
  turns: number;
}

/**
 * Earliest deadline first: whoever has weight w is due every 1/w, ties in the order they were put back. Over any stretch each
 * entry gets its share of the picks, and they are spread, not bunched.
 */
export class EdfScheduler<T> {
  /** A binary heap: due first, then put back first. */
  readonly #turns: Turn<T>[];
  readonly #weight: (entry: T) => number;
  #order = 0;

  /**
   * `entries` is not empty, weights are above 0. It begins as if `picks` had been made already: at random, so that workers do not
   * all begin with the same entry.
   */
  constructor(
    entries: readonly T[],
    weight: (entry: T) => number,
    picks: number = Math.random() * MAX_PICKS,
  ) {
    this.#weight = weight;
    let sum = 0;
    for (const entry of entries) sum += weight(entry);
    // Whole shares of the picks are given out at once; what rounding leaves (fewer than n) is played out.
    const wanted = Math.floor(picks) % MAX_PICKS;
    let given = 0;
    this.#turns = entries.map((entry) => {
      const w = weight(entry);
      const share = Math.floor((w / sum) * wanted);
      given += share;
      const turns = share + 1;
      return { entry, deadline: turns / w, order: 0, weight: w, since: 0, turns };
    });
    // An entry whose last turn is longer ago was put back earlier.
    const last = ({ turns, weight }: Turn<T>) => (turns - 1) / weight;
    for (const turn of this.#turns.toSorted((a, b) => last(a) - last(b)))
      turn.order = this.#order++;
    for (let k = (entries.length >> 1) - 1; k >= 0; k--) this.#sink(k);
    for (; given < wanted; given++) this.pick();
  }

  pick(): T {
    const turn = this.#turns[0]!;
    const weight = this.#weight(turn.entry);
    if (weight !== turn.weight) {
      turn.weight = weight;
      turn.since = turn.deadline;
      turn.turns = 0;
    }
    turn.deadline = turn.since + ++turn.turns / weight;
    turn.order = this.#order++;
    this.#sink(0);
    return turn.entry;
  }

  #sink(from: number): void {
    const turns = this.#turns;
    const n = turns.length;
    const turn = turns[from]!;
    let at = from;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= n) break;
      if (child + 1 < n && isBefore(turns[child + 1]!, turns[child]!)) child++;
      const next = turns[child]!;
      if (isBefore(turn, next)) break;
      turns[at] = next;
      at = child;
    }
    turns[at] = turn;
  }
}

function isBefore<T>(a: Turn<T>, b: Turn<T>): boolean {
  return a.deadline < b.deadline || (a.deadline === b.deadline && a.order < b.order);
}
