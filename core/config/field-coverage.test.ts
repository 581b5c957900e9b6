import { describe, expect, it } from "vitest";
import { Catalog } from "../packages/catalog.ts";
import type { PackageInfo } from "../protocol.ts";
import { descriptor } from "./descriptor.ts";
import { fieldCoverage } from "./field-coverage.ts";
import { loadConfig } from "./load.ts";

async function shipped(): Promise<readonly PackageInfo[]> {
  const catalog = await Catalog.open([]);
  const units = await catalog.units([]);
  catalog.dispose();
  return units.flatMap((unit) => unit.next ?? []).flatMap(({ infos }) => infos);
}

describe("field coverage", async () => {
  const packages = await shipped();
  const all = fieldCoverage(packages, descriptor());

  it("tells of every package how many of the fields of Envoy's messages it has", () => {
    const lines = all.map(
      ({ package: name, implemented, missing }) =>
        `${name}: ${implemented.length} of ${implemented.length + missing.length}`,
    );
    console.log(lines.join("\n"));
    expect(all.length).toBeGreaterThan(30);
    expect(new Set(all.map((one) => one.package)).size).toBe(all.length);
  });

  it("names only fields that Envoy's messages have, each once and on one side", () => {
    for (const { implemented, missing } of all) {
      const names = [...implemented, ...missing];
      expect(new Set(names).size).toBe(names.length);
      for (const name of names) {
        const at = name.lastIndexOf(".");
        const fields = descriptor().message(name.slice(0, at))?.fields ?? {};
        expect(Object.hasOwn(fields, name.slice(at + 1)), name).toBe(true);
      }
    }
  });

  it("names as implemented what a config is not warned about, and as missing what it is", () => {
    const cluster = all.find((one) => one.package === "service/cluster_manager")!;
    const scalar = (name: string) => {
      const at = name.lastIndexOf(".");
      const field = descriptor().message(name.slice(0, at))!.fields[name.slice(at + 1)]!;
      return name.startsWith("envoy.config.cluster.v3.Cluster.") && field.t === "bool" && at === 31;
    };
    const bools = {
      implemented: cluster.implemented.filter(scalar),
      missing: cluster.missing.filter(scalar),
    };
    for (const [side, names] of Object.entries(bools))
      for (const name of names) {
        const field = name.slice(name.lastIndexOf(".") + 1);
        const written = `{"static_resources": {"clusters": [{"name": "a", "${field}": true}]}}`;
        const loaded = loadConfig({ text: written, format: "json" }, packages, { strict: false });
        const isWarned = loaded.warnings.some((warning) => warning.path.endsWith(field));
        expect(isWarned, `${side} ${name}`).toBe(side === "missing");
      }
  });
});
