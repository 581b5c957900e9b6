import { Readable } from "node:stream";
import { getHeapSnapshot } from "node:v8";
import { expect, it } from "vitest";
import { Isolate } from "../isolate.ts";
import { HeapDumps } from "./heap-dump.ts";

function all(dumps: HeapDumps, id: number): string[] {
  const pieces: string[] = [];
  for (let piece = dumps.next(id); piece !== ""; piece = dumps.next(id)) pieces.push(piece!);
  return pieces;
}

it("hands a snapshot of this thread out in pieces, which together are JSON", async () => {
  const dumps = new HeapDumps();
  const { dump } = await dumps.open(async () => getHeapSnapshot());
  const pieces = all(dumps, dump!);
  expect(pieces.length).toBeGreaterThan(1);
  expect(Math.max(...pieces.map((piece) => piece.length))).toBeLessThanOrEqual(256 * 1024);
  expect(JSON.parse(pieces.join("")).snapshot.node_count).toBeGreaterThan(1000);
}, 300_000);

it("takes a snapshot of an isolate, which serves afterwards", async () => {
  const isolate = new Isolate({ memoryLimitMb: 64, sdk: "" });
  const code = "class Marked {} export const kept = new Marked(); export const one = () => 1;";
  const one = isolate.load({ code, filename: "marked" }).numberEntry("one");
  const snapshot = JSON.parse(await isolate.heapSnapshot());
  expect(snapshot.strings).toContain("Marked");
  await expect(isolate.heapSnapshot(1 << 16)).rejects.toThrow("the heap snapshot is larger");
  expect(one(0)).toBe(1);
  isolate.dispose();
}, 300_000);

it("keeps characters whole that lie across two pieces", async () => {
  const dumps = new HeapDumps();
  const bytes = Buffer.from("aé");
  const { dump } = await dumps.open(async () =>
    Readable.from([bytes.subarray(0, 2), bytes.subarray(2)]),
  );
  expect(all(dumps, dump!).join("")).toBe("aé");
});

it("keeps one dump at a time, until its end or until it is closed", async () => {
  const dumps = new HeapDumps();
  const { dump } = await dumps.open(async () => "{}");
  expect((await dumps.open(async () => "{}")).error).toBe("another heap dump is under way");
  dumps.close(dump!);
  expect(dumps.next(dump!)).toBe(undefined);
  const second = (await dumps.open(async () => "{}")).dump!;
  expect([dumps.next(second), dumps.next(second)]).toEqual(["{}", ""]);
  expect((await dumps.open(() => Promise.reject(new Error("no such thread")))).error).toBe(
    "no such thread",
  );
  expect((await dumps.open(async () => "{}")).dump).toBeDefined();
});
