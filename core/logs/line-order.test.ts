import { expect, it } from "vitest";
import { LineOrder } from "./line-order.ts";

function start() {
  const written: string[] = [];
  const asked: (() => void)[] = [];
  const askedAt: number[] = [];
  const appended: Uint8Array[] = [];
  const order = new LineOrder(
    (path, bytes) => {
      appended.push(bytes);
      written.push(`${path}: ${Buffer.from(bytes)}`);
    },
    () =>
      new Promise((answered) => {
        askedAt.push(performance.now());
        asked.push(answered);
      }),
  );
  return { order, written, asked, askedAt, appended };
}

it("puts lines of several threads in the order in which they were written, once all threads have told theirs", async () => {
  const { order, written, asked } = start();
  order.add("log", Buffer.from("a\nb\nd\n"), [1, 0, 2, 2, 4, 4]);
  order.add("log", Buffer.from("c\ne\n"), [3, 0, 5, 2]);
  order.add("other", Buffer.from("x\n"), [9, 0]);
  expect(asked).toHaveLength(1);
  expect(written).toEqual([]);
  asked[0]!();
  await expect.poll(() => written).toEqual(["log: a\nb\nc\nd\ne\n", "other: x\n"]);

  order.add("log", Buffer.from("f\n"), [6, 0]);
  await expect.poll(() => asked).toHaveLength(2);
});

it("asks again if lines have come while it asked, since their thread keeps further ones until then", async () => {
  const { order, written, asked, askedAt } = start();
  order.add("log", Buffer.from("a\n"), [1, 0]);
  order.add("log", Buffer.from("x".repeat(2 ** 22)), [1, 0]);
  expect(written).toHaveLength(2);
  expect(asked).toHaveLength(1);
  order.add("log", Buffer.from("b\n"), [2, 0]);
  asked[0]!();
  await expect.poll(() => asked).toHaveLength(2);
  // Each time wakes every thread.
  expect(askedAt[1]! - askedAt[0]!).toBeGreaterThan(98);
  asked[1]!();
  await expect.poll(() => written).toHaveLength(3);
});

it("keeps the order of one thread's lines of the same moment, and copies none of them", async () => {
  const { order, written, asked, appended } = start();
  const parts = [Buffer.from("a\nb\n"), Buffer.from("c\n")];
  for (const part of parts) order.add("log", part, [1, 0]);
  asked[0]!();
  await expect.poll(() => written).toEqual(["log: a\nb\n", "log: c\n"]);
  for (const [k, part] of parts.entries()) expect(appended[k]).toBe(part);
});

it("makes a file at once, and waits for nobody when very much has gathered", () => {
  const { order, written } = start();
  order.add("log", Buffer.from(""), []);
  expect(written).toEqual(["log: "]);
  const much = "x".repeat(1_200_000);
  order.add("log", Buffer.from(much), [2, 0]);
  order.add("log", Buffer.from(much), [1, 0]);
  expect(written).toHaveLength(3);
});

it("asks the threads anew when all that was written until now is wanted", async () => {
  const { order, written, asked } = start();
  order.add("log", Buffer.from("b\n"), [2, 0]);
  const flushed = order.flush();
  expect(asked).toHaveLength(2);
  order.add("log", Buffer.from("a\n"), [1, 0]);
  asked[1]!();
  await flushed;
  expect(written).toEqual(["log: a\n", "log: b\n"]);
});
