import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import type { Definition } from "@tsproxy/sdk";
import type { PackageInfo } from "../protocol.ts";

/**
 * Describes the packages in a `filters` folder by importing their sources into Node. For tests alone: in the proxy no code of a
 * package runs outside an isolate.
 */
export async function describeFromSources(filters: string): Promise<PackageInfo[]> {
  const found: PackageInfo[] = [];
  for (const kind of folders(filters))
    for (const name of folders(path.join(filters, kind))) {
      const folder = path.join(filters, kind, name);
      const main = path.join(folder, "filter.ts");
      if (!fs.existsSync(main)) continue;
      const module = (await import(pathToFileURL(main).href)) as { readonly default: unknown };
      const definitions = Array.isArray(module.default) ? module.default : [module.default];
      for (const definition of definitions as Definition[])
        found.push(describe(definition, `${definition.kind}/${name}`, folder));
    }
  return found;
}

function folders(folder: string): string[] {
  const entries = fs.readdirSync(folder, { withFileTypes: true });
  return entries
    .filter((e) => e.isDirectory() && e.name !== "node_modules")
    .map((e) => e.name)
    .sort();
}

/** Describes a definition in plain JSON, as the Describer does. */
export function describe(definition: Definition, packageName: string, folder = ""): PackageInfo {
  return {
    package: packageName,
    kind: definition.kind,
    name: definition.name,
    aliases: definition.aliases ?? [],
    types: definition.types ?? [],
    terminal: definition.terminal ?? false,
    runs: definition.runs ?? "workers",
    section: definition.section,
    schema: JSON.parse(JSON.stringify(definition.config)),
    routeSchema:
      definition.routeConfig === undefined
        ? undefined
        : JSON.parse(JSON.stringify(definition.routeConfig)),
    origin: "shipped",
    folder,
  };
}
