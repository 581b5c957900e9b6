import { expect, it, vi } from "vitest";
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
  new BigUint64Array(counts, 0, COUNTS_BYTES / 12).fill(0xffff_0001n);
  let told = 0;
  const shared = new SharedCounts(counts, ledgers[0]!, () => told++);
  const count = shared.of("x");
  shared.of("y");
  expect([told, count.tryAcquire(1), count.tryAcquire(1), count.release()]).toEqual([1, 1, 0, 0]);
});

it("searches a table whose slots all have names near a name's first slot only", () => {
  const { of, counts } = threads(1);
  const names = new BigUint64Array(counts, 0, COUNTS_BYTES / 12);
  names.fill(0xffff_0000n);
  const load = vi.spyOn(Atomics, "load");
  const count = of[0]!.of("x");
  const loads = load.mock.calls.length;
  load.mockRestore();
  count.acquire();
  expect(loads).toBeLessThan(1000);
  expect(count.value).toBe(1);
  expect(names.filter((word) => word & 0xffffn)).toHaveLength(1);
});

it("takes the slots of names that nobody uses any more for others", () => {
  const { of, counts, ledgers } = threads(2);
  const [a, b] = of;
  const kept = b!.of("host 0");
  kept.acquire();
  for (let k = 0; k < 200_000; k++) {
    const count = a!.of(`host ${k}`);
    count.acquire();
    count.release();
    count.dispose!();
  }
  expect(kept.value).toBe(1);
  expect(a!.of("host 0").value).toBe(1);
  const held = a!.of("held");
  held.acquire();
  held.dispose!();
  expect(b!.of("held").value).toBe(1);
  const users = () => new BigUint64Array(counts, 0, COUNTS_BYTES / 12).filter((w) => w & 0xffffn);
  expect(users()).toHaveLength(2);
  giveBack(counts, ledgers[0]!);
  giveBack(counts, ledgers[1]!);
  expect(users()).toHaveLength(0);
});

it("gives a slot back with the last release, and keeps who comes later out of it", () => {
  const { of } = threads(1);
  const [shared] = of;
  const held = shared!.of("removed");
  held.acquire();
  held.dispose!();
  expect(shared!.of("removed").value).toBe(1);
  shared!.of("removed").dispose!();
  const removed = shared!.of("removed");
  removed.dispose!();
  removed.dispose!();
  held.release();
  const next = shared!.of("removed");
  held.acquire();
  expect([next.value, held.value]).toEqual([0, 1]);
});
