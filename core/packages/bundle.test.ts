import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { formatProblem, type Problem } from "../problem.ts";
import { type Bundle, BundleError, bundle } from "./bundle.ts";
import { hashOf } from "./content-hash.ts";
import { locate } from "./source-positions.ts";

let root: string;
beforeEach(() => {
  root = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "bundle-")));
});
afterEach(() => fs.rmSync(root, { recursive: true }));

function write(name: string, text: string): string {
  const file = path.join(root, name);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, text);
  return file;
}

async function refused(text: string): Promise<Problem> {
  const entry = write("filter.ts", text);
  const error = await bundle({ entry, filename: "x" }).then(
    () => expect.unreachable(),
    (e) => e,
  );
  expect(error).toBeInstanceOf(BundleError);
  return error.problems[0];
}

test("makes one module of a package's files, without its types, that still imports the SDK", async () => {
  write("part.ts", "export const part: number = 41;");
  const entry = write(
    "filter.ts",
    'import { Type } from "@tsproxy/sdk";\nimport { part } from "./part.ts";\nexport default [Type, part];',
  );
  const made = await bundle({ entry, filename: "x" });
  expect(made.code).toContain('from "@tsproxy/sdk"');
  expect(made.code).toContain("41");
  expect(made.code).not.toContain("number");
  expect([...made.inputs.keys()].sort()).toEqual([entry, path.join(root, "part.ts")]);
});

test("the same code has the same hash, whatever its comments and types", async () => {
  const entry = write("filter.ts", "export default 1;");
  const { hash } = await bundle({ entry, filename: "x" });
  write("filter.ts", "// a word\nexport default 1 as number;");
  expect((await bundle({ entry, filename: "x" })).hash).toBe(hash);
  write("filter.ts", "export default 2;");
  expect((await bundle({ entry, filename: "x" })).hash).not.toBe(hash);
});

test("leads a stack back to the line of the source, with the lines around it", async () => {
  const entry = write(
    "filter.ts",
    'interface Unused { a: 1 }\n\nexport default function setup() {\n  throw new Error("no");\n}\n',
  );
  const made = await bundle({ entry, filename: "http/x.bundle" });
  const line = made.code.split("\n").findIndex((text) => text.includes("throw")) + 1;
  const stack = `Error: no\n    at other (file:///elsewhere.js:1:1)\n    at setup (http/x.bundle:${line}:9)`;
  const found = locate("no", stack, (name) =>
    name === "http/x.bundle" ? made.sources : undefined,
  );
  expect(found).toMatchObject({ file: entry, line: 4, column: 9 });
  expect(found.frame).toBe(
    '  3 | export default function setup() {\n> 4 |   throw new Error("no");\n    |         ^\n  5 | }',
  );
});

test("refuses Node, at the place of the import, with what to use instead", async () => {
  const found = await refused(
    'import { Type } from "@tsproxy/sdk";\nimport net from "node:net";\nexport default [Type, net];',
  );
  expect(formatProblem(found)).toMatch(
    /filter\.ts:2:17: cannot import "node:net": filters run without Node; use cx\.connect\(address, handler, options\)\n> 2 \| import net from "node:net";/,
  );
});

test("refuses Node's modules without their prefix too, but not a package of that name", async () => {
  expect((await refused('import z from "zlib";\nexport default z;')).message).toBe(
    'cannot import "zlib": filters run without Node',
  );
  write("node_modules/events/package.json", '{ "name": "events", "main": "events.js" }');
  write("node_modules/events/events.js", "export const pure = 42;");
  const entry = write("filter.ts", 'import { pure } from "events";\nexport default pure;');
  expect((await bundle({ entry, filename: "x" })).code).toContain("42");
});

test("refuses another package of ours, and the testing kit", async () => {
  for (const [name, why] of [
    ["@tsproxy/http-router", "filters import @tsproxy/sdk alone"],
    ["@tsproxy/sdk/testing", "is for *.test.ts files"],
  ])
    expect((await refused(`import "${name}";\nexport default 1;`)).message).toContain(why);
});

test("tells a syntax error at its place", async () => {
  expect(await refused("const a = ;\n")).toMatchObject({
    line: 1,
    column: 11,
    message: 'unexpected ";"',
  });
});

test("a tsconfig beside a filter changes nothing", async () => {
  write(
    "tsconfig.json",
    '{ "compilerOptions": { "paths": { "./part.ts": ["./other.ts"] }, "target": "es5" } }',
  );
  write("part.ts", "export const part = 1;");
  write("other.ts", "export const part = 2;");
  const entry = write("filter.ts", 'import { part } from "./part.ts";\nexport default () => part;');
  const { code } = await bundle({ entry, filename: "x" });
  expect(code).toContain("part = 1");
  expect(code).toContain("=>");
});

/** True if esbuild has read the files itself: then the texts are not in its map. */
const isQuick = (made: Bundle) => made.sources.parts.texts !== undefined;

test("builds known files again in a quicker way, to the same", async () => {
  write("part.ts", "export const part: number = 41;\nexport const unused = 1;");
  write("data.json", '{ "a": 1 }');
  const entry = write(
    "filter.ts",
    'import { part } from "./part.ts";\nimport data from "./data.json";\nexport default () => { throw new Error(part + data.a); };',
  );
  const { inputs: known } = await bundle({ entry, filename: "x" });
  write("part.ts", "// moved\nexport const part: number = 42;");
  const exact = await bundle({ entry, filename: "x" });
  const quick = await bundle({ entry, filename: "x", known });
  expect(quick.code).toBe(exact.code);
  expect(quick.inputs).toEqual(exact.inputs);
  const line = quick.code.split("\n").findIndex((text) => text.includes("= 42")) + 1;
  expect(quick.sources.find(line, 1)).toEqual(exact.sources.find(line, 1));
  expect(quick.sources.find(line, 1)).toMatchObject({ file: path.join(root, "part.ts"), line: 2 });
});

test("knows the files that a later build has found", async () => {
  const entry = write("filter.ts", "export default 1;");
  const { inputs: known } = await bundle({ entry, filename: "x" });
  const part = write("part.ts", "export const part = 42;");
  write("filter.ts", 'export { part as default } from "./part.ts";');
  const made = await bundle({ entry, filename: "x", known });
  expect(made.code).toContain("42");
  expect([...made.inputs.keys()].sort()).toEqual([entry, part]);
  expect(isQuick(made)).toBe(true);
  fs.rmSync(part);
  const gone = bundle({ entry, filename: "x", known: made.inputs });
  await expect(gone).rejects.toThrow('could not resolve "./part.ts"');
});

test("records of a file that is written while it is built what was built of it", async () => {
  const entry = write("filter.ts", "export default 0;");
  let { inputs: known } = await bundle({ entry, filename: "x" });
  for (let n = 1; n <= 60; n++) {
    const building = bundle({ entry, filename: "x", known });
    // At another moment of the build each time.
    const written = performance.now() + (n % 12) / 2;
    while (performance.now() < written) await new Promise(setImmediate);
    write("filter.ts", `export default ${n};`);
    const made = await building;
    const built = /= (\d+);/.exec(made.code)![1];
    expect(made.inputs.get(entry)).toBe(hashOf(`export default ${built};`));
    expect(isQuick(made)).toBe(true);
    known = made.inputs;
  }
});
