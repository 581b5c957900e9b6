import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { discoverDroppedIn, discoverShipped, isShippedTree, SHIPPED_ROOT } from "./packages.ts";

let root: string;
beforeEach(() => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), "packages-"));
});
afterEach(() => fs.rmSync(root, { recursive: true }));

function write(name: string, text = ""): void {
  const file = path.join(root, name);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, text);
}
const entries = async () => discoverDroppedIn(root).map(({ entry }) => path.relative(root, entry));

test("a shipped package is kind/name/filter.ts, and nothing else is one", async () => {
  for (const file of [
    "http/a/filter.ts",
    "http/b/other.ts",
    "network/c/filter.ts",
    "tsconfig.json",
    "node_modules/x/y/filter.ts",
  ])
    write(file);
  expect(discoverShipped(root).map(({ id }) => id)).toEqual(["http/a", "network/c"]);
});

test("the tree that comes with the proxy has its packages", async () => {
  const ids = discoverShipped().map(({ id }) => id);
  expect(ids).toContain("network/http_connection_manager");
  expect(isShippedTree(SHIPPED_ROOT)).toBe(true);
  expect(isShippedTree(root)).toBe(false);
});

test("a dropped-in package is a file, a folder with filter.ts or index.ts, or what its exports say", async () => {
  write("one.ts");
  write("two.js");
  write("three/filter.ts");
  write("four/index.js");
  write("five/package.json", '{ "exports": { ".": { "import": "./lib/main.ts" } } }');
  write("five/lib/main.ts");
  write("six/package.json", '{ "exports": "./six.js" }');
  write("six/six.js");
  expect(await entries()).toEqual([
    "five/lib/main.ts",
    "four/index.js",
    "one.ts",
    "six/six.js",
    "three/filter.ts",
    "two.js",
  ]);
});

test("tests, declarations, hidden files, other folders and what is no source are no packages", async () => {
  for (const file of [
    "a.test.ts",
    "a.d.ts",
    "vitest.config.ts",
    "README.md",
    ".hidden.ts",
    "node_modules/x/index.ts",
    "docs/page.md",
  ])
    write(file);
  expect(await entries()).toEqual([]);
});

test("a manifest in the middle of being written does not hide the package", async () => {
  write("a/package.json", '{ "exports": ');
  write("a/filter.ts");
  expect(await entries()).toEqual(["a/filter.ts"]);
});

test("a manifest may say that its package is trusted", async () => {
  write("a/package.json", '{ "exports": "./filter.ts", "tsproxy": { "trusted": true } }');
  write("a/filter.ts");
  write("b/filter.ts");
  expect(discoverDroppedIn(root).map(({ trusted }) => trusted)).toEqual([true, false]);
});

test("a directory that is not there has no packages", async () => {
  expect(discoverDroppedIn(path.join(root, "none"))).toEqual([]);
});

test("a directory that no file descriptor is left for is not taken for an empty one", () => {
  const { readdirSync } = fs;
  fs.readdirSync = (() => {
    throw Object.assign(new Error("EMFILE: too many open files"), { code: "EMFILE" });
  }) as never;
  syncBuiltinESMExports();
  try {
    expect(() => discoverDroppedIn(root)).toThrow("EMFILE");
    expect(() => discoverShipped()).toThrow("EMFILE");
  } finally {
    fs.readdirSync = readdirSync;
    syncBuiltinESMExports();
  }
});
