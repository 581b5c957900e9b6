import type { PackageUnit } from "./package-unit.ts";

/** Those that are packages: a file that another one imports, and that exports nothing as default, is none. */
export function withoutImported(units: Iterable<PackageUnit>): PackageUnit[] {
  const all = [...units];
  return all.filter((unit) => !all.some((other) => unit.isPartOf(other)));
}
