import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { type Bundle, hashOf, SourcePositions } from "./bundle.ts";
import type { Description } from "./describe.ts";
import { isPacked } from "./own-files.ts";
import { type PackageSource, SHIPPED_ROOT } from "./packages.ts";

/** What pack.ts has found out of a shipped package, by its id. The hash is that of its code: an edited file is built as any other. */
export interface PackedPackage {
  readonly hash: string;
  readonly descriptions: readonly Description[];
}
export const PACKED_LIST = "packages.json";

/** A module that pack.ts has bundled, its source map beside it. */
export function readPacked(file: string, filename: string): Bundle {
  return packedBundle(file, filename, readFileSync(file, "utf8"));
}

/** Undefined: nothing is known of it as it lies there, so it has to be bundled and described. */
export async function packedPackage(
  source: PackageSource,
): Promise<{ bundle: Bundle; descriptions: readonly Description[] } | undefined> {
  if (!isPacked || source.origin !== "shipped") return undefined;
  const known = packages()[source.id];
  if (known === undefined) return undefined;
  const bundle = packedBundle(source.entry, source.id, await readFile(source.entry, "utf8"));
  return bundle.hash === known.hash ? { bundle, descriptions: known.descriptions } : undefined;
}

function packedBundle(file: string, filename: string, code: string): Bundle {
  const hash = hashOf(code);
  const sources = new SourcePositions(() => readFileSync(`${file}.map`, "utf8"));
  return { code, hash, filename, inputs: new Map([[file, hash]]), sources };
}

let read: Readonly<Record<string, PackedPackage>> | undefined;

function packages(): Readonly<Record<string, PackedPackage>> {
  read ??= JSON.parse(readFileSync(path.join(SHIPPED_ROOT, PACKED_LIST), "utf8"));
  return read!;
}
