import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { Report } from "../config/diagnostic.ts";
import type { MapNode } from "../config/document.ts";
import { parseDocument } from "../config/parse.ts";
import { readScript } from "../config/script.ts";
import { ScriptFile } from "./script-types.ts";

const SCRIPT = [
  'const key: "a" | "b" = "a", n: Map<string, number> = new Map();',
  "",
  "  function onRequest(req) { MARK; }",
].join("\n");

const FORMS = [
  ["literal", `a: |-\n${SCRIPT.replace(/^(?=.)/gm, "    ")}\n`, SCRIPT],
  ["double quotes", `a: ${JSON.stringify(SCRIPT)}\n`, SCRIPT],
  ["single quotes", `a: '${SCRIPT.replace(/\n+ +/g, " ")}'\n`, SCRIPT.replace(/\n+ +/g, " ")],
  ["folded", `a: >-\n  ${SCRIPT.replace(/\n\n +/, "\n\n  ")}\n`, SCRIPT.replace(/\n\n +/, "\n")],
] as const;

describe.each(FORMS)("a script as a %s scalar", (_form, text, script) => {
  const file = path.join(mkdtempSync(path.join(tmpdir(), "types-")), "front.yaml");
  writeFileSync(file, text);
  const report = new Report(file, text, { strict: false });
  const root = parseDocument(text, "yaml", report) as MapNode;
  const source = readScript(root.get("a")!, "module", report)!;
  const made = new ScriptFile({ package: "http/script", source, hook: undefined });
  const typed = '(req: Parameters<ScriptHooks["onRequest"]>[0])';

  it("has its types back for the check", () => {
    expect(made.text).toBe(`export {};\n${script.replace("(req)", typed)}\n`);
  });

  it("has its problems told at their places in the config", () => {
    const placeOf = (whole: string, word: string) => {
      const before = whole.slice(0, whole.indexOf(word)).split("\n");
      return { line: before.length, column: before.at(-1)!.length + 1 };
    };
    for (const word of ["const", "n: Map", "MARK"]) {
      const problem = { file: "", message: "", code: "", ...placeOf(made.text, word) };
      expect(made.place(problem as never)).toEqual({ file, ...placeOf(text, word) });
    }
  });
});
