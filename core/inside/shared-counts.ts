// Hot path: a request acquires and releases one or two counts.
import { type SharedCount, xxHash64 } from "@tsproxy/sdk";

/** Most names of counts in the process; a power of two. */
const COUNT_SLOTS = 1 << 17;
/** Size of the shared table: the 64-bit hashes of all slots' names, then all slots' counts (Int32). */
export const COUNTS_BYTES = COUNT_SLOTS * 12;
/** Size of one thread's ledger: how many it holds of each count (Int32). */
export const LEDGER_BYTES = COUNT_SLOTS * 4;

/**
 * Exact counts by name, in memory that all threads share. The first thread to use a name takes a slot with one atomic operation;
 * slots are never freed. Each thread keeps a ledger of what it holds, which core subtracts when the thread's isolate is lost.
 */
export class SharedCounts {
  readonly #names: BigInt64Array;
  readonly #totals: Int32Array;
  readonly #ledger: Int32Array;
  readonly #known = new Map<string, SharedCount>();
  /** Called once, for the first name without a slot. */
  readonly #onFull: () => void;
  #isFull = false;

  constructor(counts: SharedArrayBuffer, ledger: SharedArrayBuffer, onFull: () => void) {
    this.#names = new BigInt64Array(counts, 0, COUNT_SLOTS);
    this.#totals = new Int32Array(counts, COUNT_SLOTS * 8, COUNT_SLOTS);
    this.#ledger = new Int32Array(ledger);
    this.#onFull = onFull;
  }

  /** The count of that name. If no slot is left, a count of this thread alone. */
  of(name: string): SharedCount {
    let count = this.#known.get(name);
    if (count === undefined) {
      const slot = this.#slotOf(BigInt.asIntN(64, xxHash64(name) | 1n));
      count =
        slot < 0
          ? new Count(new Int32Array(new SharedArrayBuffer(4)), new Int32Array(1), 0)
          : new Count(this.#totals, this.#ledger, slot);
      this.#known.set(name, count);
    }
    return count;
  }

  /** -1: no slot is left. */
  #slotOf(key: bigint): number {
    const names = this.#names;
    const first = Number(BigInt.asUintN(32, key >> 1n)) & (COUNT_SLOTS - 1);
    for (let k = 0; k < COUNT_SLOTS; k++) {
      const slot = (first + k) & (COUNT_SLOTS - 1);
      const found = Atomics.compareExchange(names, slot, 0n, key);
      if (found === 0n || found === key) return slot;
    }
    if (!this.#isFull) this.#onFull();
    this.#isFull = true;
    return -1;
  }
}

/** One slot, in the shared table and in this thread's ledger. */
class Count implements SharedCount {
  readonly #totals: Int32Array;
  readonly #ledger: Int32Array;
  readonly #slot: number;

  constructor(totals: Int32Array, ledger: Int32Array, slot: number) {
    this.#totals = totals;
    this.#ledger = ledger;
    this.#slot = slot;
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
    return Atomics.sub(this.#totals, this.#slot, 1) - 1;
  }
}

/** Subtracts a ledger from the counts and clears it. Core calls it when the isolate that wrote the ledger has ended. */
export function giveBack(counts: SharedArrayBuffer, ledger: SharedArrayBuffer): void {
  const totals = new Int32Array(counts, COUNT_SLOTS * 8, COUNT_SLOTS);
  const held = new Int32Array(ledger);
  for (let slot = 0; slot < COUNT_SLOTS; slot++) {
    if (held[slot] === 0) continue;
    Atomics.sub(totals, slot, held[slot]!);
    held[slot] = 0;
  }
}
