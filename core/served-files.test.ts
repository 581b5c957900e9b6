import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { ServedFiles } from "./served-files.ts";

let dir = "";
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "tsproxy-served-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const file = (name: string, text: string): string => {
  writeFileSync(path.join(dir, name), text);
  return path.join(dir, name);
};

/** The file is another one, and main has found that. */
function change(files: ServedFiles, name: string, text: string): void {
  const path = file(name, text);
  files.find([{ path, seen: text, bytes: Buffer.from(text) }]);
}

/** Those of a thread whose first generation has read these files. */
function serving(...paths: readonly string[]): ServedFiles {
  const files = new ServedFiles();
  files.prepare();
  for (const name of paths) {
    files.read(name);
    files.use(name);
  }
  files.commit();
  return files;
}

function successorOf(files: ServedFiles): ServedFiles {
  const next = new ServedFiles();
  next.adopt(files.text);
  next.prepare();
  return next;
}

it("gives the next thread what served, and its fingerprint, although the file is another one or gone", () => {
  const [kept, lost] = [file("kept", "1"), file("lost", "1")];
  const before = serving(kept, lost);
  const seen = before.seen(kept);
  file("kept", "twice");
  rmSync(lost);
  const next = successorOf(before);
  expect([kept, lost].map((name) => `${next.read(name)}`)).toEqual(["1", "1"]);
  expect(next.seen(kept)).toBe(seen);
  next.commit();
  // A part of the first generation that is set up later belongs to it.
  expect(`${next.read(kept)}`).toBe("1");
  next.prepare();
  expect(`${next.read(kept)}`).toBe("twice");
  expect(() => next.read(lost)).toThrow("ENOENT");
});

it("keeps what a refused change or generation has read from serving, and takes what its reader takes", () => {
  const name = file("a", "1");
  const files = serving(name);
  change(files, "a", "refused");
  files.beginChange();
  expect(`${files.read(name)}`).toBe("refused");
  files.endChange(false);
  files.prepare();
  expect(`${files.read(name)}`).toBe("refused");
  files.abort();
  expect(`${successorOf(files).read(name)}`).toBe("1");
  change(files, "a", "taken");
  files.beginChange();
  files.read(name);
  files.endChange(true);
  expect(`${successorOf(files).read(name)}`).toBe("taken");
});

it("an isolate that is built anew begins with what its thread has served", () => {
  const name = file("a", "1");
  const files = serving(name);
  files.prepare();
  files.commit();
  rmSync(name);
  files.restore();
  files.prepare();
  expect(`${files.read(name)}`).toBe("1");
});

it("forgets files that nothing uses any more", () => {
  const [a, b] = [file("a", "1"), file("b", "1")];
  const files = serving(a, b);
  files.prepare();
  files.read(a);
  files.use(a);
  files.commit();
  for (const name of [a, b]) files.release(name);
  expect((JSON.parse(files.text) as string[][]).map(([name]) => name)).toEqual([a]);
});
