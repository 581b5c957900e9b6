import { readFileSync, statSync } from "node:fs";
import path from "node:path";
import { isPacked } from "../own-files.ts";
import type { FiledCode, SharedCode } from "../protocol.ts";
import { Bundle } from "./bundle.ts";
import { hashOf } from "./content-hash.ts";
import { type Described, describedBy, type Schemas, type Told } from "./describe.ts";
import { filedCode, openCode } from "./filed-code.ts";
import { bytesOf, sharedBytes } from "./module-code.ts";
import { type PackageSource, SHIPPED_ROOT } from "./packages.ts";
import { SourcePositions } from "./source-positions.ts";

/** A shipped package as pack.ts has described it. `hash`: of its code; if the file was edited, it is built like any other. */
export type PackedPackage = Omit<Told, "schemas"> & {
  readonly hash: string;
  /** Byte offset of its code in PACKED_CODE. */
  readonly at: number;
  readonly size: number;
};
/** The PackedPackages by id, as JSON. */
export const PACKED_LIST = "packages.json";
/**
 * The code of all packages, one after the other, so that a start reads one file instead of a hundred. npm sorts what it packs by
 * extension, and unpacks in that order: this file has to come after the packages' own (.js), which are read if they are newer.
 */
export const PACKED_CODE = "packages.txt";
/** The schemas of one package, in its folder. */
export const PACKED_SCHEMAS = "schemas.json";

/** Reads a module that pack.ts has bundled; its source map lies beside it. */
function readPacked(file: string, filename: string): Bundle {
  const bytes = readFileSync(file);
  return made(sharedBytes(bytes), hashOf(bytes), file, filename);
}

/** The same for a module that is never compared with another, and needs no hash: it is read when it is first needed. */
export function readPrelude(file: string, filename: string): Bundle {
  const opened = openCode(file);
  const [code] = filedCode(opened, [{ at: 0, size: opened.size }]);
  return made(code!, "", file, filename);
}

function made(shared: SharedCode, hash: string, file: string, filename: string): Bundle {
  const sources = new SourcePositions(() => ({ map: readFileSync(`${file}.map`, "utf8") }));
  return new Bundle({ shared, hash, filename, inputs: new Map([[file, hash]]), sources });
}

/** A shipped package as pack.ts has built it. Undefined in a checkout, of other packages, or if the file was edited since. */
export function packedPackage(
  source: PackageSource,
): ({ readonly bundle: Bundle } & Described) | undefined {
  if (!isPacked || source.origin !== "shipped") return undefined;
  const known = packages()[source.id];
  if (known === undefined) return undefined;
  const bundle = untouched(source, known) ?? readPacked(source.entry, source.id);
  if (bundle.hash !== known.hash) return undefined;
  const file = path.join(source.folder, PACKED_SCHEMAS);
  const schemas = (): readonly Schemas[] => JSON.parse(readFileSync(file, "utf8"));
  return { bundle, ...describedBy(known, schemas) };
}

/** The package's code in PACKED_CODE. Undefined: its own file holds something else now. */
function untouched({ entry, id }: PackageSource, { size, hash }: PackedPackage) {
  all ??= allCode();
  const shared = all.get(id)!;
  const file = statSync(entry);
  if (file.size !== size) return undefined;
  if (file.mtimeMs > shared.file.mtimeMs && !readFileSync(entry).equals(bytesOf(shared)))
    return undefined;
  return made(shared, hash, entry, id);
}

/** By id. */
let all: ReadonlyMap<string, FiledCode> | undefined;

function allCode(): NonNullable<typeof all> {
  const ids = Object.keys(packages());
  const codes = filedCode(
    openCode(path.join(SHIPPED_ROOT, PACKED_CODE)),
    Object.values(packages()),
  );
  return new Map(ids.map((id, k) => [id, codes[k]!]));
}

let read: Readonly<Record<string, PackedPackage>> | undefined;

function packages(): Readonly<Record<string, PackedPackage>> {
  read ??= JSON.parse(readFileSync(path.join(SHIPPED_ROOT, PACKED_LIST), "utf8"));
  return read!;
}
