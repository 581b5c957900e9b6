import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, expect, test } from "vitest";
import { filedCode, openCode } from "./filed-code.ts";
import { bytesOf, textOf } from "./module-code.ts";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "filed-code-"));
afterAll(() => fs.rmSync(folder, { recursive: true }));

const PARTS = [
  { at: 0, size: 5 },
  { at: 5, size: 3 },
] as const;

function written(name: string) {
  const file = path.join(folder, name);
  fs.writeFileSync(file, "firstnew");
  const [first, second] = filedCode(openCode(file), PARTS);
  return { file, first: first!, second: second! };
}

/** Has the file written in place at another time. */
function writeOver(file: string): void {
  fs.writeFileSync(file, "otherold");
  fs.utimesSync(file, 1, 1);
}

test("code is read when it is first run, and stays in memory", () => {
  const { file, first, second } = written("kept");
  expect(first.bytes).toEqual(new Uint8Array(5));
  expect(textOf({ code: first })).toBe("first");
  expect(second.bytes).toEqual(new Uint8Array(3));
  writeOver(file);
  expect(textOf({ code: structuredClone(first) })).toBe("first");
});

test("what is only looked at does not stay", () => {
  const { first } = written("seen");
  expect(Buffer.from(bytesOf(first)).toString()).toBe("first");
  expect(first.bytes).toEqual(new Uint8Array(5));
});

test("another version in its place changes nothing", () => {
  const { file, second } = written("replaced");
  fs.rmSync(file);
  fs.writeFileSync(file, "otherold");
  expect(textOf({ code: second })).toBe("new");
});

test("code that was written over is not run", () => {
  const { file, second } = written("over");
  writeOver(file);
  expect(() => textOf({ code: second })).toThrow(`${file} was written over while the proxy runs`);
  expect(() => bytesOf(second)).toThrow("restart it");
});
