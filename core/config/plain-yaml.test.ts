import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { Report } from "./diagnostic.ts";
import type { Node } from "./document.ts";
import { parseYaml } from "./parse.ts";
import { readPlainYaml } from "./plain-yaml.ts";

const EXAMPLE = readFileSync(
  path.join(import.meta.dirname, "../../examples/front-proxy/front-envoy.yaml"),
  "utf8",
);

/** All that a tree says, places among it. */
function shown(node: Node | undefined): unknown {
  if (node === undefined) return undefined;
  const { offset, path: at } = node.place;
  if (node.kind === "scalar") return [node.constructor.name, offset, at, node.value, node.text];
  if (node.kind === "list") return [offset, at, node.items.map(shown)];
  const fields = [...node.entries].map(([key, entry]) => [
    key,
    entry.place.offset,
    entry.place.path,
    shown(entry.value),
  ]);
  return [offset, at, fields];
}

/** Undefined: left to the parser. */
function read(text: string): unknown {
  const node = readPlainYaml(text, new Report("a.yaml", text, { strict: false }));
  if (node === undefined) return undefined;
  const report = new Report("a.yaml", text, { strict: false });
  const parsed = parseYaml(text, report);
  expect(report.failed, text).toBe(false);
  expect(shown(node), text).toEqual(shown(parsed));
  return node;
}

test("an ordinary config is read as the parser reads it, to the last offset", () => {
  expect(read(EXAMPLE)).toBeDefined();
});

test.each([
  "a: 1\nb:\n- x\n- y: 0x10\n  z: ~\n",
  "a:\n  - - 1\n    - 2\n  -\n    b: 'it''s'\n",
  'a: { b: [1, "c d"], e: {} } # why\n\n# nothing\nf: "x\\n\\"y"',
  "a: http://b.c:80/d#e\nf: a  b # c",
])("%j is plain", (text) => {
  expect(read(text)).toBeDefined();
});

test.each([
  "a: &x 1\nb: *x",
  "a: |\n  b",
  "a: b\n  c",
  "a:\nb: 1",
  "a: 1\na: 2",
  "a: b: c",
  "---\na: 1",
  "a:\t1",
  "a: [1,2]",
  "a: 1\n b: 2",
])("%j is left to the parser", (text) => {
  expect(read(text)).toBeUndefined();
});

test("whatever is broken, it never reads what the parser reads otherwise", () => {
  const bits = [" ", "\n", "- ", ": ", "#", " #", "'", '"', "{", "]", ",", "\\", "|", "&x ", "? "];
  let seed = 7;
  const below = (n: number) => (seed = (seed * 1_103_515_245 + 12_345) & 0x7fff_ffff) % n;
  const lines = EXAMPLE.split("\n");
  for (let k = 0; k < 3_000; k++) {
    const from = below(lines.length);
    const text = lines.slice(from, from + 2 + below(12)).join("\n");
    const at = below(text.length + 1);
    read(text.slice(0, at) + bits[below(bits.length)] + text.slice(at + below(2)));
  }
});
