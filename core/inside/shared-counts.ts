// Hot path: a request acquires and releases one or two counts.
import { type SharedCount, xxHash64 } from "@tsproxy/sdk";

/** Number of slots, and so of names in use in the process; a power of two. */
const COUNT_SLOTS = 1 << 17;
/** How far from its first slot a name is searched: free slots keep names, so that the search in an old table may meet no other end. */
const MOST_PROBES = 256;
/** Size of the shared table: the names of all slots (64 bits each, see USERS), then all slots' counts (Int32). */
export const COUNTS_BYTES = COUNT_SLOTS * 12;
/** Size of one thread's ledger: how many it holds of each count (Int32), then whether it uses the slot (Uint8). */
export const LEDGER_BYTES = COUNT_SLOTS * 5;
/** The low 16 bits of a slot's name are the number of threads that use it, the others a hash. Without users the slot is free. */
const USERS = 0xffffn;

/** What `#tryTake` answers: no slot is free, or another thread was faster. */
const NONE = -1;
const AGAIN = -2;

/**
 * Exact counts by name, in memory that all threads share. A thread takes a slot, joins it and leaves it with one atomic operation.
 * A free slot keeps its name until another one takes it, so that the search for a name ends at the first slot without a name. If
 * a slot becomes free while two threads search for one, each may take another: they count by themselves until one leaves its slot.
 * Each thread keeps a ledger of what it holds, which core subtracts when the thread's isolate is lost.
 */
export class SharedCounts {
  readonly #names: BigUint64Array;
  readonly #totals: Int32Array;
  readonly #ledger: Int32Array;
  readonly #uses: Uint8Array;
  readonly #known = new Map<string, Count>();
  /** Called once, for the first name without a slot. */
  readonly #onFull: () => void;
  #isFull = false;

  constructor(counts: SharedArrayBuffer, ledger: SharedArrayBuffer, onFull: () => void) {
    this.#names = new BigUint64Array(counts, 0, COUNT_SLOTS);
    this.#totals = new Int32Array(counts, COUNT_SLOTS * 8, COUNT_SLOTS);
    this.#ledger = new Int32Array(ledger, 0, COUNT_SLOTS);
    this.#uses = new Uint8Array(ledger, COUNT_SLOTS * 4, COUNT_SLOTS);
    this.#onFull = onFull;
  }

  /** The count of that name. If no slot is free, a count of this thread alone. */
  of(name: string): SharedCount {
    let count = this.#known.get(name);
    if (count === undefined) {
      count = this.#make(name);
      this.#known.set(name, count);
    }
    count.callers++;
    return count;
  }

  #make(name: string): Count {
    const forget = () => void this.#known.delete(name);
    const slot = this.#take(xxHash64(name) & ~USERS || USERS + 1n);
    if (slot === NONE) return new Count(new Int32Array(1), new Int32Array(1), 0, forget);
    this.#uses[slot] = 1;
    return new Count(this.#totals, this.#ledger, slot, () => {
      forget();
      this.#uses[slot] = 0;
      Atomics.sub(this.#names, slot, 1n);
    });
  }

  #take(key: bigint): number {
    for (;;) {
      const slot = this.#tryTake(key);
      if (slot === NONE) {
        if (!this.#isFull) this.#onFull();
        this.#isFull = true;
      }
      if (slot !== AGAIN) return slot;
    }
  }

  /** Joins the slot of that name, or takes a free one. */
  #tryTake(key: bigint): number {
    const names = this.#names;
    const first = Number((key >> 16n) & BigInt(COUNT_SLOTS - 1));
    let free: number = NONE;
    let old = 0n;
    for (let k = 0; k < MOST_PROBES; k++) {
      const slot = (first + k) & (COUNT_SLOTS - 1);
      const word = Atomics.load(names, slot);
      if ((word & ~USERS) === key)
        return Atomics.compareExchange(names, slot, word, word + 1n) === word ? slot : AGAIN;
      if (free === NONE && (word & USERS) === 0n) {
        free = slot;
        old = word;
      }
      if (word === 0n) break;
    }
    if (free === NONE) return NONE;
    return Atomics.compareExchange(names, free, old, key + 1n) === old ? free : AGAIN;
  }
}

/** One slot, in the shared table and in this thread's ledger. */
class Count implements SharedCount {
  #totals: Int32Array;
  #ledger: Int32Array;
  #slot: number;
  readonly #onUnused: () => void;
  /** Number of callers of this thread that have not disposed of it. */
  callers = 0;

  constructor(totals: Int32Array, ledger: Int32Array, slot: number, onUnused: () => void) {
    this.#totals = totals;
    this.#ledger = ledger;
    this.#slot = slot;
    this.#onUnused = onUnused;
  }

  /** A count that is still held keeps its slot until it is released. */
  dispose(): void {
    this.callers--;
    this.#leave();
  }

  /** Leaves the slot once nobody here needs it. Who still calls counts by itself, and not in the slot of another name. */
  #leave(): void {
    if (this.callers > 0 || this.#ledger[this.#slot] !== 0) return;
    this.#onUnused();
    this.#totals = new Int32Array(1);
    this.#ledger = new Int32Array(1);
    this.#slot = 0;
    this.callers = Number.POSITIVE_INFINITY;
  }

  get value(): number {
    return Atomics.load(this.#totals, this.#slot);
  }

  tryAcquire(max: number): number {
    const slot = this.#slot;
    let seen = Atomics.load(this.#totals, slot);
    while (seen < max) {
      const before = Atomics.compareExchange(this.#totals, slot, seen, seen + 1);
      if (before === seen) {
        this.#ledger[slot]!++;
        return seen + 1;
      }
      seen = before;
    }
    return 0;
  }

  acquire(): number {
    this.#ledger[this.#slot]!++;
    return Atomics.add(this.#totals, this.#slot, 1) + 1;
  }

  release(): number {
    this.#ledger[this.#slot]!--;
    const left = Atomics.sub(this.#totals, this.#slot, 1) - 1;
    if (this.callers === 0) this.#leave();
    return left;
  }
}

/** Subtracts a ledger from the counts and clears it. Core calls it when the isolate that wrote the ledger has ended. */
export function giveBack(counts: SharedArrayBuffer, ledger: SharedArrayBuffer): void {
  const names = new BigUint64Array(counts, 0, COUNT_SLOTS);
  const totals = new Int32Array(counts, COUNT_SLOTS * 8, COUNT_SLOTS);
  const held = new Int32Array(ledger, 0, COUNT_SLOTS);
  const uses = new Uint8Array(ledger, COUNT_SLOTS * 4, COUNT_SLOTS);
  for (let slot = 0; slot < COUNT_SLOTS; slot++) {
    if (uses[slot] === 0) continue;
    Atomics.sub(totals, slot, held[slot]!);
    Atomics.sub(names, slot, 1n);
    held[slot] = uses[slot] = 0;
  }
}
