import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Describer } from "./describe.ts";
import { withoutImported } from "./imported-files.ts";
import { ModuleReader } from "./module-reader.ts";
import { type Built, PackageUnit } from "./package-unit.ts";
import { bundlePreludes } from "./preludes.ts";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "unit-"));
const entry = path.join(folder, "mark.ts");
let describer: Describer;
beforeAll(async () => {
  const preludes = await bundlePreludes();
  describer = new Describer(preludes, new ModuleReader(preludes));
});
afterAll(() => {
  describer.dispose();
  fs.rmSync(folder, { recursive: true });
});

const source = { id: entry, origin: "dropped-in", entry, folder, trusted: false } as const;
const names = { shipped: new Set<string>(), trusted: new Set<string>() };

/** Saves a filter with these fields in its config, and builds it. */
async function saved(unit: PackageUnit, value: string, fields = "a: Type.String()") {
  fs.writeFileSync(
    entry,
    `import { defineHttpFilter, Type } from "@tsproxy/sdk";
    export default defineHttpFilter({
      name: "mark",
      config: Type.Object({ ${fields} }),
      setup: () => () => ({ onRequestHeaders: (headers) => headers.set("mark", "${value}") }),
    });`,
  );
  await unit.build(describer);
  expect(unit.problems).toEqual([]);
  return unit.next!;
}

test("what a package says of itself is taken apart again only by a save that changes it", async () => {
  const unit = new PackageUnit(source, names);
  const schema = ({ infos }: Built) => infos[0]!.schema;
  const first = await saved(unit, "1");
  const second = await saved(unit, "2");
  expect(second.bundle.hash).not.toBe(first.bundle.hash);
  expect(second.said).toBe(first.said);
  expect(schema(second)).toBe(schema(first));

  const third = await saved(unit, "2", "a: Type.String(), b: Type.String()");
  expect(third.said).not.toBe(first.said);
  expect(schema(third)).toMatchObject({ properties: { b: { type: "string" } } });
  expect(schema(await saved(unit, "3", "a: Type.String(), b: Type.String()"))).toBe(schema(third));

  const fourth = await saved(unit, "3");
  expect(fourth.said).toBe(first.said);
  expect(schema(fourth)).toEqual(schema(first));
});

test("a file without default export is a package only as long as no package imports it", async () => {
  const file = (name: string) => path.join(folder, name);
  fs.writeFileSync(file("shared.ts"), `export { deep } from "./deep.ts";`);
  fs.writeFileSync(file("deep.ts"), "export const deep = 1;");
  const units = [new PackageUnit(source, names)];
  for (const at of [file("shared.ts"), file("deep.ts")])
    units.push(new PackageUnit({ ...source, id: at, entry: at }, names));
  const build = () => Promise.all(units.map((unit) => unit.build(describer)));
  const shown = () => withoutImported(units).map((unit) => path.basename(unit.source.entry));
  await saved(units[0]!, "1");
  await build();
  // What imports the last one is no package itself.
  expect(shown()).toEqual(["mark.ts", "shared.ts", "deep.ts"]);
  fs.appendFileSync(entry, `\nexport { deep } from "./shared.ts";`);
  await build();
  expect(shown()).toEqual(["mark.ts"]);
  // With errors of its own it imports them still.
  fs.appendFileSync(entry, `\nimport "./missing.ts";`);
  await build();
  expect(shown()).toEqual(["mark.ts"]);
});

test("a save that cannot be read leaves what the package has said before as it was", async () => {
  const unit = new PackageUnit(source, names);
  const first = await saved(unit, "1");
  fs.writeFileSync(entry, "export default 7;");
  await unit.build(describer);
  expect(unit.problems).toMatchObject([{ file: entry, line: 1 }]);
  const third = await saved(unit, "2");
  expect(third.infos[0]!.schema).toBe(first.infos[0]!.schema);
});
