import { expect, test } from "vitest";
import { Report } from "./diagnostic.ts";
import { type Node, plain } from "./document.ts";
import { parseDocument } from "./parse.ts";

function read(text: string) {
  const report = new Report("a.yaml", text, { strict: false });
  const root = parseDocument(text, "yaml", report);
  return { root, report, value: root && plain(root) };
}

function errorAt(text: string): string | undefined {
  const [error] = read(text).report.errors;
  return error && `${error.line}:${error.column}: ${error.message}`;
}

test.each([
  ["a: [\nb,\nc\n]\n", { a: ["b", "c"] }],
  [
    "a:\n  b: [\n  { c: d },\n{ e: [\nf ] }\n]\n  g: h\n",
    { a: { b: [{ c: "d" }, { e: ["f"] }], g: "h" } },
  ],
  ["a:\n  b: \"c\nd\"\n  e: 'f\n\n  it''s'\n", { a: { b: "c d", e: "f\nit's" } }],
  ["a: {\n# nothing\nb: c#d, # ]\n\"e\": 'f' }\n", { a: { b: "c#d", e: "f" } }],
  ['a:\n- - "b\n  c"\n- d: [e\n  f]', { a: [["b c"], { d: ["e f"] }] }],
  // Neither words nor block scalars have brackets or quotes of their own.
  [
    "a: b\n  \"c\nd: |\n  {\n  'e\nf: >-\n   [\ng: it's [\nh: {\ni: j }\n",
    { a: 'b "c', d: "{\n'e\n", f: "[", g: "it's [", h: { i: "j" } },
  ],
  ["a: [\r\nb ]\r\n", { a: ["b"] }],
  ['"a": !t &x [\nb ]\nc: *x\n', { a: ["b"], c: ["b"] }],
])("%j is read as by Envoy", (text, value) => {
  const { report, value: got } = read(text);
  expect(report.errors).toEqual([]);
  expect(got).toEqual(value);
});

test("every value keeps its place in the file", () => {
  const { root, report } = read('a:\n  b: [\n x,\n{ c: "d\ne", f: g }\n]\n  h: i\n');
  const seen: string[] = [];
  const walk = (node: Node): void => {
    const { line, column, path } = report.diagnostic(node.place, "");
    seen.push(`${line}:${column} ${path}`);
    if (node.kind === "list") node.items.forEach(walk);
    if (node.kind === "map") for (const [, { value }] of node.entries) walk(value);
  };
  walk(root!);
  expect(seen).toEqual([
    "1:1 ",
    "2:3 a",
    "2:6 a.b",
    "3:2 a.b[0]",
    "4:1 a.b[1]",
    "4:6 a.b[1].c",
    "5:8 a.b[1].f",
    "7:6 a.h",
  ]);
});

test.each([
  ["a:\n  b: {c: d,\n  e: f }\n  g: [\n", "5:1: "],
  ["a: [\nb }\n", "2:3: "],
  ["a: { b: [\n--- ] }\n", "2:1: "],
  ["a: [\nb ]\nc: d\n e: f\n", "3:4: "],
  ["a:\n  b: c\n  d\n  e: f\n", "3:3: "],
])("%j is refused, as by Envoy, where it is wrong", (text, place) => {
  expect(errorAt(text)).toMatch(new RegExp(`^${place}`));
});
