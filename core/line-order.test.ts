import { expect, it } from "vitest";
import { LineOrder } from "./line-order.ts";

function start() {
  const written: string[] = [];
  const order = new LineOrder((path, text) => void written.push(`${path}: ${text}`));
  return { order, written };
}

it("puts lines of several threads in the order in which they were written", () => {
  const { order, written } = start();
  order.add("log", "a\nb\nd\n", [1, 0, 2, 2, 4, 4]);
  order.add("log", "c\ne\n", [3, 0, 5, 2]);
  order.add("other", "x\n", [9, 0]);
  order.flush();
  expect(written).toEqual(["log: a\nb\nc\nd\ne\n", "other: x\n"]);
});

it("keeps the order of one thread's lines of the same moment", () => {
  const { order, written } = start();
  order.add("log", "a\nb\n", [1, 0]);
  order.add("log", "c\n", [1, 0]);
  order.flush();
  expect(written).toEqual(["log: a\nb\nc\n"]);
});

it("makes a file at once, and waits for nobody when very much has gathered", () => {
  const { order, written } = start();
  order.add("log", "", []);
  expect(written).toEqual(["log: "]);
  const much = "x".repeat(600_000);
  order.add("log", much, [2, 0]);
  order.add("log", much, [1, 0]);
  expect(written).toHaveLength(2);
});
