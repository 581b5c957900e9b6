import type { CellSpec } from "@tsproxy/sdk";

/** As in Envoy an interval has ten parts, and the one that runs counts beside those before it. */
const PARTS = 10;
const SLOTS = PARTS + 1;
/** A slot has the number of its part in the upper half, and how many have begun in it in the lower one. */
const HALF = 32n;
const PART_NUMBERS = 2 ** 31;

/** How many requests have begun within the last interval, on all workers. */
export interface RequestWindow {
  add(): void;
  readonly sum: number;
}

export function requestWindow(intervalMs: number): CellSpec<RequestWindow> {
  const partMs = Math.max(1, intervalMs / PARTS);
  return {
    kind: `request_window ${intervalMs}`,
    bytes: SLOTS * 8,
    open(memory, at) {
      const { longs } = memory;
      const first = at / 8;
      const part = () => Math.floor(memory.now() / partMs) % PART_NUMBERS;
      return {
        add() {
          const nth = part();
          const slot = first + (nth % SLOTS);
          for (;;) {
            const before = Atomics.load(longs, slot);
            const isOwn = Number(before >> HALF) === nth;
            const after = isOwn ? before + 1n : (BigInt(nth) << HALF) + 1n;
            if (Atomics.compareExchange(longs, slot, before, after) === before) return;
          }
        },
        get sum() {
          const nth = part();
          let sum = 0;
          for (let k = 0; k < SLOTS; k++) {
            const word = Atomics.load(longs, first + k);
            const age = nth - Number(word >> HALF);
            if (age >= 0 && age <= PARTS) sum += Number(BigInt.asUintN(32, word));
          }
          return sum;
        },
      };
    },
  };
}
