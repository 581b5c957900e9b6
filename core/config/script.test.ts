import { writeFileSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { Report } from "./diagnostic.ts";
import { MapNode, parseDocument } from "./document.ts";
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
    expect(read('a: "f();"').script).toMatchObject({ code: "f();", line: 1, indent: 4 });
    expect(read("a: f();").script).toMatchObject({ code: "f();", line: 1, indent: 3 });
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
    expect(read("a: none.ts", "file", config).told).toEqual(['1:4: cannot read "none.ts": ENOENT']);
  });
});

describe("what is no script", () => {
  it("is told with its line and column in the config", () => {
    expect(read("a: |\n  let a = 1;\n  let b = (;\n").told).toEqual([
      expect.stringMatching(/^3:\d+: Expression expected/),
    ]);
    expect(read("a: |\n  enum A { B }\n").told[0]).toMatch(/^2:\d+: TypeScript enum/);
    expect(read("a: 5").told).toEqual([
      "1:4: a script belongs here: text in TypeScript or JavaScript",
    ]);
  });
});
