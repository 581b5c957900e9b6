import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";

const root = path.join(import.meta.dirname, "..");
const manifest = (
  folder: string,
): { dependencies?: Record<string, string>; name: string; exports?: unknown } =>
  JSON.parse(readFileSync(path.join(root, folder, "package.json"), "utf8"));
const folders = (at: string): string[] =>
  readdirSync(path.join(root, at), { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && entry.name !== "node_modules")
    .map((entry) => path.join(at, entry.name));
const packages = folders("filters").flatMap(folders);

test("the SDK depends on TypeBox alone", () => {
  expect(Object.keys(manifest("sdk").dependencies ?? {})).toEqual(["@sinclair/typebox"]);
});

test("core depends on the SDK and on no filter", () => {
  const names = Object.keys(manifest("core").dependencies ?? {}).filter((n) =>
    n.startsWith("@tsproxy/"),
  );
  expect(names).toEqual(["@tsproxy/sdk"]);
});

test.each(packages)("%s depends on the SDK and on nothing else of ours", (folder) => {
  const { dependencies, name, exports } = manifest(folder);
  expect(Object.keys(dependencies ?? {}).filter((n) => n.startsWith("@tsproxy/"))).toEqual([
    "@tsproxy/sdk",
  ]);
  const [kind, own] = folder.split(path.sep).slice(1);
  expect(name).toBe(`@tsproxy/${`${kind}-${own}`.replaceAll("_", "-")}`);
  expect(exports).toEqual({ ".": "./filter.ts" });
});

test.each(packages)("%s has a README of one screen and tests", (folder) => {
  const files = readdirSync(path.join(root, folder));
  expect(existsSync(path.join(root, folder, "README.md"))).toBe(true);
  expect(
    readFileSync(path.join(root, folder, "README.md"), "utf8").split("\n").length,
  ).toBeLessThan(80);
  expect(files.some((file) => file.endsWith(".test.ts"))).toBe(true);
});

test("no source of core's inside, the SDK or a filter names Node", () => {
  const sources = ["sdk", "core/inside", ...packages].flatMap((folder) =>
    readdirSync(path.join(root, folder), { recursive: true, encoding: "utf8" })
      .filter(
        (file) =>
          file.endsWith(".ts") && !file.endsWith(".test.ts") && !file.includes("node_modules"),
      )
      .map((file) => path.join(root, folder, file)),
  );
  expect(sources.length).toBeGreaterThan(20);
  for (const file of sources)
    expect(readFileSync(file, "utf8"), file).not.toMatch(/from "node:|require\(/);
});

/** The exported names of a source, and of these the ones with a docstring at any of their declarations. */
function namesOf(source: string): { all: Set<string>; documented: Set<string> } {
  const all = new Set<string>();
  const documented = new Set<string>();
  const lines = source.split("\n");
  lines.forEach((line, k) => {
    const name = /^export (?:abstract |async )?(?:class|const|function|interface|type) (\w+)/.exec(
      line,
    )?.[1];
    if (name === undefined) return;
    all.add(name);
    if (/\*\/$/.test(lines[k - 1] ?? "")) documented.add(name);
  });
  return { all, documented };
}

test.each(["sdk", "sdk/testing"])(
  "every name that %s exports says in a docstring what it is",
  (folder) => {
    const index = readFileSync(path.join(root, folder, "index.ts"), "utf8");
    const files = Array.from(
      index.matchAll(/^export \* from "\.\/([^"]+)"/gm),
      ([, file]) => file!,
    );
    const bare: string[] = [];
    for (const file of files) {
      const { all, documented } = namesOf(readFileSync(path.join(root, folder, file), "utf8"));
      for (const name of all) if (!documented.has(name)) bare.push(`${file}: ${name}`);
    }
    expect(files.length).toBeGreaterThan(10);
    expect(bare).toEqual([]);
  },
);

test("the docstring of `cx.sandboxed` names every member that throws there", () => {
  const context = readFileSync(path.join(root, "core/inside/sandbox/context.ts"), "utf8");
  const thrown = Array.from(context.matchAll(/unavailable\("cx\.(\w+)"\)/g), ([, name]) => name);
  const contract = readFileSync(path.join(root, "sdk/extension.ts"), "utf8");
  const text = /where what would need another one throws: ([^.]*)\./.exec(contract)?.[1] ?? "";
  const named = Array.from(text.matchAll(/`(\w+)`/g), ([, name]) => name);
  expect(named.toSorted()).toEqual(thrown.toSorted());
});
