import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { TrialProcess } from "../trial-process.ts";
import { bundle } from "./bundle.ts";
import { DescribeError, Describer } from "./describe.ts";
import { bundlePreludes } from "./preludes.ts";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "describe-"));
const entry = path.join(folder, "bomb.ts");
let describer: Describer;
beforeAll(async () => {
  const preludes = await bundlePreludes();
  describer = new Describer(preludes, new TrialProcess(preludes));
});
afterAll(() => {
  describer.dispose();
  fs.rmSync(folder, { recursive: true });
});

const FILTER = `import { defineHttpFilter, Type } from "@tsproxy/sdk";
export default defineHttpFilter({ name: "bomb", config: Type.Object({}), setup: () => () => ({}) });`;

/** Why a dropped-in module with this line is refused; undefined: it is not. */
async function refusal(line: string, filter = FILTER): Promise<string | undefined> {
  fs.writeFileSync(entry, `${filter}\n${line}\n`);
  try {
    await describer.describe(entry, await bundle({ entry, filename: "bomb" }), "dropped-in");
    return undefined;
  } catch (error) {
    expect(error).toBeInstanceOf(DescribeError);
    return (error as DescribeError).message;
  }
}

// Each of them ends a process whose isolate has V8's own built-ins.
test.each([
  ['"x".repeat(5e8).split("");', "a text of 500000000 chars"],
  ["Array.from({ length: 1e9 });", "an array of 1000000000 elements"],
  ["new Array(4e9).fill(1);", "an array of 4000000000 elements"],
])(
  "a dropped-in module that asks V8 at its top level for too much, %s, is refused",
  async (line, what) => {
    expect(await refusal(line)).toBe(`${what} is more than a sandboxed filter may do at once`);
    expect(await refusal("")).toBeUndefined();
  },
);

test.each([
  ["config: { n: Type.Integer() }", "config is no schema; write: config: Type.Object({ n: … })"],
  [
    "config: Type.Object({}), routeConfig: { a: 1, b: 2 }",
    "routeConfig is no schema; write: routeConfig: Type.Object({ a: …, b: … })",
  ],
])("a definition whose schema would let every config pass, %s, is refused", async (text, why) => {
  const filter = FILTER.replace("config: Type.Object({})", text);
  expect(await refusal("", filter)).toBe(`"bomb": ${why}`);
});

const USUAL = "write: export default defineHttpFilter({ … })";
const PLAIN = `const filter = {
  kind: "http",
  config: 1,
  setup() {},
};
export default filter;`;
test.each([
  ["export const a = 1;", 1, 1, `no default export; ${USUAL}`],
  ["\nexport default {\n  setup: 1 };", 2, 8, `the default export is no filter; ${USUAL}`],
  [PLAIN, 6, 8, 'the filter has no name; write: name: "…"'],
  [
    PLAIN.replace("config: 1", 'name: "a"'),
    6,
    8,
    '"a" has no config schema; write: config: Type.Object({})',
  ],
  [PLAIN.replace("config: 1", 'name: "a", config: {}'), 3, 14, "config is no schema"],
])(
  "what keeps a module from being a package has a place: %s",
  async (filter, line, column, why) => {
    fs.writeFileSync(entry, filter);
    const made = await bundle({ entry, filename: "bomb" });
    const described = describer.describe(entry, made, "dropped-in");
    await expect(described).rejects.toMatchObject({
      problem: { file: entry, line, column, message: expect.stringContaining(why) },
    });
  },
);

test.each(["a first", "another"])(
  "a package without a default export is told at its own file, not at one that it imports (%s build)",
  async (build) => {
    const imported = path.join(folder, "aside.ts");
    fs.writeFileSync(imported, "export const word = String(Math.random());");
    fs.writeFileSync(entry, 'import { word } from "./aside.ts";\nexport const text = word;');
    const known = new Map([entry, imported].map((file) => [file, ""]));
    const made = await bundle({ entry, filename: "bomb", ...(build === "another" && { known }) });
    await expect(describer.describe(entry, made, "dropped-in")).rejects.toMatchObject({
      problem: { file: entry, line: 1, frame: expect.stringContaining("import { word }") },
    });
  },
);

test("a dropped-in module that grows without end while it is loaded is refused, and the next one is read", async () => {
  expect(await refusal("for (const all = []; ; ) all.push(new Array(1e6).fill(7));")).toBe(
    `${entry}: took more than 128 MiB while it was loaded`,
  );
  expect(await refusal("")).toBeUndefined();
});

test("a dropped-in module whose top level nothing can stop is refused, keeps this thread from nothing, and the next one is read", async () => {
  let turns = 0;
  const timer = setInterval(() => turns++, 100);
  // On a quick machine V8 comes to the end of its numbers first.
  expect(await refusal("for (let x = 7n; ; ) x *= x;")).toMatch(
    /did not finish loading within 5 s|ended the process that tried it|Maximum BigInt size/,
  );
  clearInterval(timer);
  expect(turns).toBeGreaterThan(5);
  expect(await refusal("")).toBeUndefined();
});
