import { expect, test } from "vitest";
import { fromValue, plain } from "./document.ts";
import { loadConfig } from "./load.ts";
import { merge } from "./overlay.ts";
import { TEST_PACKAGES } from "./test-packages.ts";

const node = (value: unknown) => fromValue(value, { offset: 0, path: "" });

const BOOTSTRAP = "envoy.config.bootstrap.v3.Bootstrap";
const merged = (base: unknown, over: unknown) => plain(merge(node(base), node(over), BOOTSTRAP));

test("values are replaced, lists lengthened, messages merged, an Any is one value", () => {
  const base = {
    header_prefix: "a",
    flags_path: "f",
    static_resources: { clusters: [1] },
    node: { id: "n", locality: { zone: "z", region: "r" } },
    default_socket_interface: { "@type": "t/A", x: 1 },
  };
  const over = {
    header_prefix: "b",
    static_resources: { clusters: [2] },
    node: { locality: { zone: "y" } },
    default_socket_interface: { "@type": "t/B" },
  };
  expect(merged(base, over)).toEqual({
    header_prefix: "b",
    flags_path: "f",
    static_resources: { clusters: [1, 2] },
    node: { id: "n", locality: { zone: "y", region: "r" } },
    default_socket_interface: { "@type": "t/B" },
  });
});

test("a member of a oneof takes the place of the others", () => {
  const base = { admin: { address: { socket_address: { address: "::1", port_value: 1 } } } };
  const over = { admin: { address: { pipe: { path: "/a" } } } };
  expect(merged(base, over)).toEqual(over);
});

test("what a map or a Struct has under a key is one value", () => {
  const base = { node: { metadata: { a: { x: 1 }, b: 1 } } };
  const over = { node: { metadata: { a: { y: 2 }, c: 3 } } };
  expect(merged(base, over)).toEqual({ node: { metadata: { a: { y: 2 }, b: 1, c: 3 } } });
});

test("both spellings of a field are one", () => {
  const base = { static_resources: { clusters: [1] } };
  expect(merged(base, { staticResources: { clusters: [2] } })).toEqual({
    static_resources: { clusters: [1, 2] },
  });
});

test("null, and what is empty without presence, leave the value below", () => {
  const base = { node: { id: "a" }, header_prefix: "x", enable_dispatcher_stats: true };
  const over = { node: null, header_prefix: "", enable_dispatcher_stats: false };
  expect(merged(base, over)).toEqual(base);
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
