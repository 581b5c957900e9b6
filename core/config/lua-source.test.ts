import { expect, it } from "vitest";
import { Report } from "./diagnostic.ts";
import { MapNode } from "./document.ts";
import { readLuaSource } from "./lua-source.ts";
import { parseDocument } from "./parse.ts";

function read(text: string) {
  const report = new Report("front.yaml", text, { strict: false });
  const root = parseDocument(text, "yaml", report);
  const node = root instanceof MapNode ? root.get("a") : undefined;
  return node && readLuaSource(node, report);
}

it.each([
  ["a block", "a: |\n  -- one\n  f()\n", 2],
  ["a block that begins with blank lines", "# c\na: |\n\n\n  f()\n", 3],
  ["a block with its indent given", "b: 1\na: |2-\n    f()\n  g()\n", 3],
  ["a folded block of one line", "a: >\n  f()\n", 2],
  ["quotes", 'b: 1\na: "f(\\"x\\")"\n', 2],
  ["quotes whose line goes on in the next one", 'a: "f()\n  g()"\n', undefined],
  ["quotes with line breaks in escapes", 'a: "f()\\ng()"\n', undefined],
  ["a plain scalar", "b: 1\na: f()\n", 2],
  ["flow JSON", '{ b: 1,\n  a: "f()" }\n', 2],
  ["a data source", "a:\n  inline_string: |\n    f()\n", 3],
])("where lines of the script stand is known of %s", (_form, text, line) => {
  expect(read(text)?.place).toEqual(line === undefined ? undefined : { file: "front.yaml", line });
});
