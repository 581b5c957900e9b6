import { expect, test } from "vitest";
import { fromValue, plain } from "./document.ts";
import { loadConfig } from "./load.ts";
import { merge } from "./overlay.ts";
import { TEST_PACKAGES } from "./test-packages.ts";

const node = (value: unknown) => fromValue(value, { offset: 0, path: "" });

test("values are replaced, lists lengthened, messages merged, an Any is one value", () => {
  const base = { a: 1, list: [1], m: { x: 1, y: 2 }, any: { "@type": "t/A", x: 1 } };
  const over = { a: 2, list: [2], m: { y: 3 }, any: { "@type": "t/B" } };
  expect(plain(merge(node(base), node(over)))).toEqual({
    a: 2,
    list: [1, 2],
    m: { x: 1, y: 3 },
    any: { "@type": "t/B" },
  });
});

test("what is wrong is told at its own line of the overlay", () => {
  const load = (text: string, overlay: string) =>
    loadConfig(
      { file: "a.yaml", text, overlays: [{ name: "--config-yaml", text: overlay }] },
      TEST_PACKAGES,
      { strict: false },
    );
  const loaded = load("node:\n  id: a\n  idd: b\n", "node:\n  cluster: c\n\n  clustr: d");
  expect(loaded.ok ? [] : loaded.errors).toMatchObject([
    { file: "a.yaml", line: 3, column: 3, path: "node.idd" },
    { file: "--config-yaml", line: 4, column: 3, path: "node.clustr" },
  ]);
  const alone = load("", "node: { id: x }");
  expect(alone.ok && alone.config.node.id).toBe("x");
  const broken = load("node: { id: a }", "node: {");
  expect(broken.ok ? [] : broken.errors).toMatchObject([{ file: "--config-yaml", line: 1 }]);
});

test("fields that Envoy does not know may be let pass", () => {
  const input = { file: "a.yaml", text: "node: { idd: a }" };
  const loaded = loadConfig(input, TEST_PACKAGES, { strict: false, allowUnknown: true });
  expect(loaded.ok && loaded.warnings).toMatchObject([{ path: "node.idd" }]);
});
