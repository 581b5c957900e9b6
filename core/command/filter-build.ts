import { realpathSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { Catalog } from "../packages/catalog.ts";
import { packBundle } from "../packages/package-bundle.ts";
import type { PackageUnit } from "../packages/package-unit.ts";
import { formatProblem, noFilters, refuse, shortPath } from "../problem.ts";
import { VERSION } from "../version.ts";
import { find, versionOf } from "./filter-info.ts";

export interface FilterBuildOptions {
  /** Filters to build; empty: all. */
  readonly names: readonly string[];
  readonly filters: readonly string[];
  readonly trust: readonly string[];
  /** Where the files are written. */
  readonly out: string;
  readonly json: boolean;
}

interface Written {
  readonly package: string;
  readonly version: string;
  readonly file: string;
  readonly bytes: number;
  readonly hash: string;
}

/** Packs each filter into one file, which works in `filters/` as its folder does. Answers the exit code. */
export async function filterBuild(options: FilterBuildOptions): Promise<number> {
  const { names, filters, trust, out, json } = options;
  const catalog = await Catalog.open(trust);
  const units = (await catalog.units(filters)).filter((u) => u.source.origin === "dropped-in");
  catalog.dispose();
  const meant = new Map<string, PackageUnit>();
  const missing: string[] = [];
  for (const name of names) {
    const unit = find(units, name)?.unit ?? units.find((u) => path.basename(u.source.id) === name);
    if (unit === undefined) missing.push(name);
    else meant.set(unit.source.id, unit);
  }
  if (names.length === 0) for (const unit of units) meant.set(unit.source.id, unit);
  const where = filters.map(shortPath).join(", ") || "filters/";
  const there = units.map(({ source }) => path.basename(source.id)).join(", ") || "none";
  const wrong = missing.map((name) => `no filter "${name}" in ${where}; there: ${there}`);
  for (const unit of meant.values()) wrong.push(...unit.problems.map(formatProblem));
  if (meant.size === 0 && missing.length === 0) wrong.push(noFilters(filters));
  if (wrong.length > 0) return refuse(wrong.join("\n"), json);

  await mkdir(out, { recursive: true });
  const written: Written[] = [];
  for (const unit of meant.values()) written.push(await write(unit, out));
  if (json) process.stdout.write(`${JSON.stringify({ built: written })}\n`);
  else
    for (const { package: name, version, file, bytes, hash } of written)
      process.stdout.write(
        `${file}  ${name} ${version}, ${(bytes / 1024).toFixed(1)} KiB, ${hash}\n`,
      );
  return 0;
}

async function write(unit: PackageUnit, out: string): Promise<Written> {
  const { bundle, infos } = unit.next!;
  const [info] = infos;
  const version = versionOf(unit) || "0.0.0";
  const own = { name: info!.name, kind: info!.kind, version, packedBy: `tsproxy ${VERSION}` };
  const manifest = {
    ...own,
    ...(unit.source.trusted && { trusted: true }),
    schema: info!.schema,
    ...(info!.routeSchema !== undefined && { routeSchema: info!.routeSchema }),
  };
  const text = packBundle(manifest, bundle.code, portable(bundle.sources.json, unit.source.id));
  const base = path.basename(unit.source.id).replace(/(?:-\d[\w.+-]*)?\.[cm]?[jt]s$/, "");
  const file = path.join(out, `${base}-${version}.js`);
  await writeFile(file, text);
  const hash = JSON.parse(text.slice(text.indexOf("{"), text.indexOf("\n"))).hash as string;
  return {
    package: info!.package,
    version,
    file: shortPath(file),
    bytes: Buffer.byteLength(text),
    hash,
  };
}

/** The source map with files named as beside the package, `hello/filter.ts`, so that no path of this machine is in what is built. */
function portable(sourceMap: string, source: string): string {
  const map = JSON.parse(sourceMap) as { sources: string[] };
  const beside = path.dirname(realpathSync(source));
  map.sources = map.sources.map((file) =>
    path.relative(beside, path.resolve("/", file)).replace(/^(\.\.\/)+/, ""),
  );
  return JSON.stringify(map);
}
