import { closeSync, fstatSync, openSync } from "node:fs";
import { expect, test } from "vitest";
import { Marks, openMarks, takeMarks } from "./marks.ts";

test("tells which sandboxes the threads of a process were inside when it ended", () => {
  const file = openMarks()!;
  const control = new Marks(file, 0);
  const worker = new Marks(file, 1);
  control.of("access_log/left").enter();
  control.of("access_log/left").leave();
  worker.of("http/inside").enter();
  const leave = worker.of("http/ended").leaveAlone();
  worker.of("http/aside").leaveAlone();
  leave();
  expect([...takeMarks(file)]).toEqual(["http/inside", "http/aside"]);
});

test("a thread that takes the place of another one begins without marks", () => {
  const file = openMarks()!;
  new Marks(file, 1).of("http/inside").enter();
  new Marks(file, 1);
  expect(takeMarks(file).size).toBe(0);
});

test("a long name is cut, and calls beyond the slots go unmarked", () => {
  const file = openMarks()!;
  const marks = new Marks(file, 0).of("x".repeat(1000));
  const leaves = Array.from({ length: 100 }, () => marks.leaveAlone());
  for (const leave of leaves) leave();
  marks.enter();
  expect(fstatSync(file).size).toBeLessThan(10_000);
  expect([...takeMarks(file)]).toEqual(["x".repeat(255)]);
});

test("where nothing can be written, a sandbox is entered without a mark", () => {
  const file = openSync("/dev/full", "w");
  const marks = new Marks(file, 0).of("http/inside");
  marks.enter();
  marks.leaveAlone()();
  closeSync(file);
});
