import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import type { RuntimeValue } from "@tsproxy/sdk";
import { afterEach, describe, expect, it, vi } from "vitest";
import { RuntimeLayers, readRuntimeText } from "./runtime.ts";

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

function layers() {
  const seen: Map<string, RuntimeValue>[] = [];
  let told: (() => void) | undefined;
  const runtime = new RuntimeLayers({
    serviceCluster: () => "front",
    onChange: (values) => {
      seen.push(new Map(values));
      told?.();
    },
    onError: (message) => {
      throw new Error(message);
    },
  });
  cleanups.push(() => runtime.close());
  const changed = () =>
    new Promise<void>((resolve) => {
      told = resolve;
    });
  return { runtime, values: () => Object.fromEntries(seen.at(-1)!), changed };
}

describe("values", () => {
  it.each([
    ["12", 12],
    [" 5 ", 5],
    ["1e6", 1e6],
    ["-1", -1],
    ["0x10", "0x10"],
    ["TRUE", true],
    ["word", "word"],
    ["{numerator: 3}", { numerator: 3, denominator: 100 }],
    ["numerator: 3\ndenominator: million", { numerator: 3, denominator: 1_000_000 }],
    ["{numerator: 3, other: 1}", "{numerator: 3, other: 1}"],
    ["{numerator: [", "{numerator: ["],
  ])("reads %j as %j", (text, value) => {
    expect(readRuntimeText(text)).toEqual(value);
  });
});

it("flattens maps into dotted keys, but for fractions", () => {
  const { runtime, values } = layers();
  const tree = { a: { b: 1, c: { numerator: 5, denominator: "TEN_THOUSAND" } }, "x.y": "yes" };
  runtime.configure([{ name: "base", static_layer: tree }]);
  expect(values()).toEqual({
    "a.b": 1,
    "a.c": { numerator: 5, denominator: 10_000 },
    "x.y": "yes",
  });
});

it("takes a map with a fraction's keys for one value, even if it is no fraction, and an empty one too", () => {
  const { runtime, values } = layers();
  const tree = {
    odd: { numerator: 3, other: 2 },
    unit: { denominator: "MILLION" },
    none: {},
    missing: { numerator: null, denominator: "HUNDRED" },
    text: { numerator: "3", denominator: "HUNDRED" },
    half: { numerator: 0.5 },
    below: { numerator: -1 },
    lower: { numerator: 3, denominator: "hundred" },
    written: "{numerator: 3}",
  };
  runtime.configure([{ name: "base", static_layer: tree }]);
  expect(values()).toEqual({
    odd: '{"numerator":3,"other":2}',
    unit: { numerator: 0, denominator: 1_000_000 },
    none: { numerator: 0, denominator: 100 },
    missing: { numerator: 0, denominator: 100 },
    text: { numerator: 0, denominator: 100 },
    half: { numerator: 0, denominator: 100 },
    below: { numerator: 0xffff_ffff, denominator: 100 },
    lower: '{"numerator":3,"denominator":"hundred"}',
    written: "{numerator: 3}",
  });
});

it("lets the last layer win, and operators take their overrides back", () => {
  const { runtime, values } = layers();
  runtime.configure([
    { name: "base", static_layer: { a: 1 } },
    { name: "admin", admin_layer: {} },
  ]);
  expect(runtime.modify({ a: "7", b: "word" })).toBe(true);
  expect(values()).toEqual({ a: 7, b: "word" });
  expect(runtime.dump()).toEqual({
    layers: ["base", "admin"],
    entries: {
      a: { layer_values: ["1", "7"], final_value: "7" },
      b: { layer_values: ["", "word"], final_value: "word" },
    },
  });
  runtime.modify({ a: "" });
  expect(values()).toEqual({ a: 1, b: "word" });
});

it("takes no overrides without an admin layer", () => {
  const { runtime } = layers();
  runtime.configure([]);
  expect(runtime.modify({ a: "1" })).toBe(false);
});

it("reads directories, and again when the symbolic link is moved", async () => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "runtime-"));
  cleanups.push(() => fs.rmSync(root, { recursive: true }));
  for (const [version, n] of [
    ["v1", "5"],
    ["v2", "6"],
  ] as const) {
    fs.mkdirSync(path.join(root, version, "envoy/front/health"), { recursive: true });
    fs.writeFileSync(path.join(root, version, "envoy/front/health/min"), `# why\n${n}\n`);
  }
  const link = path.join(root, "current");
  fs.symlinkSync("v1", link);
  const { runtime, values, changed } = layers();
  const disk = { symlink_root: link, subdirectory: "envoy", append_service_cluster: true };
  runtime.configure([{ name: "disk", disk_layer: disk }]);
  expect(values()).toEqual({ "health.min": 5 });
  const swapped = changed();
  fs.symlinkSync("v2", `${link}.new`);
  fs.renameSync(`${link}.new`, link);
  await swapped;
  expect(values()).toEqual({ "health.min": 6 });
});

it("reads files as Envoy does: comments and empty lines fall away, line ends stay but at the end", () => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "runtime-"));
  cleanups.push(() => fs.rmSync(root, { recursive: true }));
  fs.writeFileSync(path.join(root, "lines"), "# why\n\none \ntwo \n");
  fs.writeFileSync(path.join(root, "number"), "5\n# why\n");
  const { runtime, values } = layers();
  const disk = { symlink_root: root, subdirectory: "", append_service_cluster: false };
  runtime.configure([{ name: "disk", disk_layer: disk }]);
  expect(values()).toEqual({ lines: "one \ntwo", number: 5 });
  expect(runtime.dump().entries.number?.final_value).toBe("5\n");
});

it("has no layer for a directory that is not there", () => {
  const { runtime, values } = layers();
  const disk = { symlink_root: "/nowhere/at/all", subdirectory: "", append_service_cluster: false };
  const errors: string[] = [];
  const quiet = new RuntimeLayers({
    serviceCluster: () => "",
    onChange: () => {},
    onError: (message) => errors.push(message),
  });
  quiet.configure([{ name: "disk", disk_layer: disk }]);
  expect(errors).toEqual(["runtime: /nowhere/at is not there; its values count once it is"]);
  expect(quiet.dump()).toEqual({ layers: [], entries: {} });
  expect(quiet.layers).toBe(0);
  quiet.configure([]);
  runtime.configure([]);
  expect(values()).toEqual({});
});

it("has the layer of a directory from when it is there", async () => {
  const top = fs.mkdtempSync(path.join(os.tmpdir(), "runtime-"));
  cleanups.push(() => fs.rmSync(top, { recursive: true }));
  const disk = {
    symlink_root: path.join(top, "late/current"),
    subdirectory: "",
    append_service_cluster: false,
  };
  const quiet = new RuntimeLayers({
    serviceCluster: () => "",
    onChange: () => {},
    onError: () => {},
  });
  quiet.configure([{ name: "disk", disk_layer: disk }]);
  cleanups.push(() => quiet.configure([]));
  fs.mkdirSync(path.join(top, "new"));
  fs.writeFileSync(path.join(top, "new/number"), "5");
  fs.mkdirSync(path.join(top, "late"));
  fs.symlinkSync(path.join(top, "new"), path.join(top, "late/current"));
  await vi.waitFor(() => expect(quiet.dump().entries.number?.final_value).toBe("5"), 60_000);
});
