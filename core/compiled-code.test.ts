import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { crc32 } from "node:zlib";
import { afterEach, beforeEach, expect, test } from "vitest";
import { CompiledCode, type CompileScripts } from "./compiled-code.ts";
import { compileScripts, Isolate } from "./isolate.ts";
import { moduleFunction } from "./packages/module-function.ts";

const SDK = "var base = 40;\nexport {\n  base\n};\n";
const CODE =
  'import { base } from "@tsproxy/sdk";\nfunction sum() {\n  return base + 2;\n}\nexport {\n  sum\n};\n';
/** Of the same length: what V8 itself compares. */
const OTHER = CODE.replace("+ 2", "+ 3");

let root = "";
let folder = "";
beforeEach(() => {
  root = mkdtempSync(path.join(tmpdir(), "tsproxy-compiled-"));
  folder = path.join(root, "isolates");
});
afterEach(() => rmSync(root, { recursive: true }));

/** Runs the module, and keeps what was missing. Answers the result, and which scripts were compiled for later. */
async function start(code: string): Promise<{ sum: unknown; made: string[] }> {
  const compiled = new CompiledCode(folder, true);
  const isolate = new Isolate({ memoryLimitMb: 64, sdk: SDK, compiled });
  const sum = isolate.loadOwn("http/sum", { code, filename: "sum" }).entry("sum")();
  isolate.dispose();
  const made: string[] = [];
  const compile: CompileScripts = (scripts) => {
    made.push(...scripts.map(({ name }) => name));
    return compileScripts(scripts);
  };
  compiled.keep(compile);
  await compiled.kept;
  return { sum, made };
}

const ALL = ["tsproxy:sdk", "http/sum"];
const file = () => path.join(folder, "http-sum");

/** Changes V8's part of the file. */
function change(edit: (data: Buffer) => void, isIntact: boolean): void {
  const bytes = readFileSync(file());
  edit(bytes.subarray(8));
  if (isIntact) bytes.writeUInt32LE(crc32(bytes.subarray(8)), 4);
  writeFileSync(file(), bytes);
}

test("what V8 has made of a module serves the next start", async () => {
  expect(await start(CODE)).toEqual({ sum: 42, made: ALL });
  expect(readdirSync(folder).sort()).toEqual(["http-sum", "tsproxy-sdk"]);
  expect(await start(CODE)).toEqual({ sum: 42, made: [] });
});

test("other code of the same length is compiled, and takes the place", async () => {
  await start(CODE);
  expect(await start(OTHER)).toEqual({ sum: 43, made: ["http/sum"] });
  expect(await start(OTHER)).toEqual({ sum: 43, made: [] });
  expect(readdirSync(folder)).toHaveLength(2);
});

test("a damaged file is not given to V8, which would crash", async () => {
  await start(CODE);
  change((data) => data.writeUInt8(data.readUInt8(60) ^ 1, 60), false);
  expect(await start(CODE)).toEqual({ sum: 42, made: ["http/sum"] });
  writeFileSync(file(), readFileSync(file()).subarray(0, 100));
  expect(await start(CODE)).toEqual({ sum: 42, made: ["http/sum"] });
  writeFileSync(file(), "");
  expect(await start(CODE)).toEqual({ sum: 42, made: ["http/sum"] });
  expect((await start(CODE)).made).toEqual([]);
});

test("what V8 refuses, as another version has made it, is made anew", async () => {
  await start(CODE);
  change((data) => data.writeUInt32LE(data.readUInt32LE(4) + 1, 4), true);
  const reader = new CompiledCode(folder, false);
  const isolate = new Isolate({ memoryLimitMb: 64, sdk: SDK, compiled: reader });
  isolate.loadOwn("http/sum", { code: CODE, filename: "sum" });
  isolate.dispose();
  expect(readdirSync(folder)).toContain("http-sum");
  expect(await start(CODE)).toEqual({ sum: 42, made: ["http/sum"] });
  expect((await start(CODE)).made).toEqual([]);
});

test("a file that others can write is not used, nor one in a folder of theirs", async () => {
  await start(CODE);
  chmodSync(file(), 0o620);
  expect(await start(CODE)).toEqual({ sum: 42, made: ["http/sum"] });
  chmodSync(folder, 0o777);
  const compiled = new CompiledCode(folder, false);
  const { code } = moduleFunction(SDK)!;
  const sdk = { name: "tsproxy:sdk", code, filename: "@tsproxy/sdk" };
  expect(compiled.find(sdk)).toBeUndefined();
  chmodSync(folder, 0o700);
  expect(compiled.find(sdk)).toBeDefined();
});

test("where no file can be written, modules run as well", async () => {
  writeFileSync(folder, "no folder");
  expect(await start(CODE)).toEqual({ sum: 42, made: [] });
});

test("an error names the line and column of the module", () => {
  const isolate = new Isolate({ memoryLimitMb: 64, sdk: SDK });
  const code = 'import { base } from "@tsproxy/sdk";\n  throw new Error(base);\n';
  const stackOf = (load: () => unknown) => {
    try {
      load();
      return "";
    } catch (error) {
      return (error as Error).stack ?? "";
    }
  };
  expect(stackOf(() => isolate.loadOwn("a", { code, filename: "a" }))).toContain("a:2:9");
  expect(stackOf(() => isolate.load({ code, filename: "a" }))).toContain("a:2:9");
  isolate.dispose();
});
