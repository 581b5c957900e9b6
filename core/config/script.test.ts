import { writeFileSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { placeIn } from "@tsproxy/sdk";
import { describe, expect, it } from "vitest";
import { Report } from "./diagnostic.ts";
import { MapNode } from "./document.ts";
import { parseDocument } from "./parse.ts";
import { readScript } from "./script.ts";

function read(text: string, form: "module" | "body" | "file" = "module", file = "front.yaml") {
  const report = new Report(file, text, { strict: false });
  const root = parseDocument(text, "yaml", report);
  const node = root instanceof MapNode ? root.get("a") : undefined;
  const script = node && readScript(node, form, report);
  const told = report.errors.map((e) => `${e.line}:${e.column}: ${e.message}`);
  return { script, told };
}

describe("a script's text", () => {
  it("loses its types and nothing else, so that every character stands where it stood", () => {
    const { script } = read("# c\na: |\n\n  const n: number = 1;\n    let x = n as any;\n");
    expect(script).toEqual({
      code: "\nconst n         = 1;\n  let x = n       ;\n",
      file: "front.yaml",
      line: 3,
      indent: 2,
    });
  });

  it("may stand on one line", () => {
    expect(read('a: "f();"').script).toMatchObject({ code: "f();", runs: [[0, 0, 4, 1, 5]] });
    expect(read("a: f();").script).toMatchObject({ code: "f();", runs: [[0, 0, 4, 1, 4]] });
  });

  it("may be the statements of a function", () => {
    const { script } = read("a: |\n  if (await x) return 1;\n", "body");
    expect(script?.code).toBe("if (await x) return 1;\n");
    expect(read("a: |\n  return 1;\n").told).toHaveLength(1);
  });

  it("may export what it defines", () => {
    const { script } = read("a: |\n  export async function f() {}\n  export const b = 1;\n");
    expect(script?.code).toBe("       async function f() {}\n       const b = 1;\n");
  });

  it("comes from a file beside the config", async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "script-"));
    writeFileSync(path.join(folder, "s.ts"), "let a: string;\n");
    const config = path.join(folder, "front.yaml");
    const { script } = read("a: s.ts", "file", config);
    expect(script).toMatchObject({ code: "let a        ;\n", line: 1, indent: 0 });
    expect(script?.file).toBe(path.join(folder, "s.ts"));
    expect(read("a: none.ts", "file", config).told).toEqual([
      '1:4: cannot read "none.ts": no such file or directory',
    ]);
  });
});

/** One text in every form that YAML and JSON have for it. */
const FORMS = [
  ["literal", "# c\na: |\n\n  const n: number = 1;\n    f(`é`, MARK);\n"],
  ["literal, stripped", "a: |-\n  const n = '日本';\n\n  \tf('日', MARK);"],
  ["literal, indented by a number", "a: |2\n     const n = 1;\n  f(MARK);\n"],
  ["literal with an anchor", "a: &s |\n  const n = 1;\n  f(MARK);\n"],
  ["literal that an alias means", "b: &s |\n  const n = 1;\n  f(MARK);\na: *s\n"],
  ["literal with a tag", "a: !!str |\n  const n = 1;\n  f(MARK);\n"],
  ["folded", "a: >\n  const n = 1;\n  g();\n\n  f(\n     1, MARK);\n"],
  ["folded, stripped, with an anchor", "a: &s >-\n  const n: number = 1;\n  f(MARK);\n"],
  ["plain", "a: const n = 1; f(MARK)\n"],
  ["plain of many lines", "a:\n  const n = 1;\n    g();\n\n\n  f(1,\n  MARK);\n"],
  ["single quotes", "a: 'const n = ''x''; f(''\\n'', MARK);'\n"],
  ["single quotes of many lines", "a: 'const n = ''x'';\n\n   f(\n   1, MARK);'\n"],
  ["double quotes", 'a: "const n = \\"x\\";\\n\\tf(\\u0061, MARK);"\n'],
  [
    "double quotes of many lines",
    'a: "const n = \\"\\U0001f600\\"; \\\n   \\  f(1,\n\n  MARK);"\n',
  ],
  ["flow", '{ b: 1, a: "const n = 1;\\n f(MARK);" }\n'],
  ["JSON", '{"b": 1,\n "a": "const n = \\"x\\ty\\";\\n  f(\\"\\ud83d\\ude00\\", MARK);"}'],
] as const;

describe.each(FORMS)("a script as a %s scalar", (_form, text) => {
  /** Line and column of the mark. */
  const at = (in_: string) => {
    const before = in_.slice(0, in_.indexOf("MARK")).split("\n");
    return { line: before.length, column: before.at(-1)!.length + 1 };
  };

  it("keeps the place of its characters", () => {
    const { script, told } = read(text);
    expect(told).toEqual([]);
    const { line, column } = at(script!.code);
    expect(placeIn(script!, line - 1, column - 1)).toEqual(at(text));
  });

  it("has its errors told at their places", () => {
    const wrong = text.replace("MARK", "MARK MARK");
    const { line, column } = at(wrong);
    expect(read(wrong).told).toEqual([
      expect.stringMatching(new RegExp(`^${line}:${column + "MARK ".length}: Expected ','`)),
    ]);
  });
});

describe("what is no script", () => {
  it("is told with its line and column in the config", () => {
    expect(read("a: |\n  let a = 1;\n  let b = (;\n").told).toEqual([
      expect.stringMatching(/^3:\d+: Expression expected/),
    ]);
    expect(read("a: |\n  let a = 1;\n  \tlet a = 2;\n").told).toEqual([
      "3:8: Identifier 'a' has already been declared",
    ]);
    expect(read('a: "1;\\n await f()"').told).toEqual([
      expect.stringMatching(/^1:10: await is only valid in async functions/),
    ]);
    expect(read("a: |\n\n  f(/(/);\n", "body").told).toEqual([
      expect.stringMatching(/^3:5: Invalid regular expression/),
    ]);
    expect(read("a: |\n  enum A { B }\n").told[0]).toMatch(/^2:\d+: TypeScript enum/);
    expect(read("a: 5").told).toEqual([
      "1:4: a script belongs here: text in TypeScript or JavaScript",
    ]);
  });
});
