import { expect, it } from "vitest";
import { COUNTS_BYTES, giveBack, LEDGER_BYTES, SharedCounts } from "./shared-counts.ts";

function threads(n: number) {
  const counts = new SharedArrayBuffer(COUNTS_BYTES);
  const ledgers = Array.from({ length: n }, () => new SharedArrayBuffer(LEDGER_BYTES));
  const full = () => {
    throw new Error("full");
  };
  return { counts, ledgers, of: ledgers.map((ledger) => new SharedCounts(counts, ledger, full)) };
}

it("is one count for all threads, with one limit", () => {
  const { of } = threads(2);
  const [a, b] = of.map((counts) => counts.of("cluster.a"));
  expect([a!.tryAcquire(3), b!.tryAcquire(3), a!.tryAcquire(3)]).toEqual([1, 2, 3]);
  expect(b!.tryAcquire(3)).toBe(0);
  expect(b!.acquire()).toBe(4);
  expect(a!.release()).toBe(3);
  expect(b!.value).toBe(3);
  expect(of[1]!.of("cluster.b").value).toBe(0);
});

it("gives back what a lost thread held, and nothing of the others'", () => {
  const { of, counts, ledgers } = threads(2);
  const [a, b] = of.map((shared) => shared.of("x"));
  a!.acquire();
  a!.acquire();
  b!.acquire();
  giveBack(counts, ledgers[0]!);
  expect(b!.value).toBe(1);
  giveBack(counts, ledgers[0]!);
  expect(b!.value).toBe(1);
});

it("counts by itself, and says so once, when no name is left", () => {
  const { counts, ledgers } = threads(1);
  new BigInt64Array(counts, 0, COUNTS_BYTES / 12).fill(-1n);
  let told = 0;
  const shared = new SharedCounts(counts, ledgers[0]!, () => told++);
  const count = shared.of("x");
  shared.of("y");
  expect([told, count.tryAcquire(1), count.tryAcquire(1), count.release()]).toEqual([1, 1, 0, 0]);
});
