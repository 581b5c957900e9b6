import { readFileSync, statSync } from "node:fs";
import path from "node:path";
import { Bundle, hashOf, SourcePositions } from "./bundle.ts";
import { type Described, describedBy, type Schemas, type Told } from "./describe.ts";
import { sharedBytes } from "./module-code.ts";
import { isPacked } from "./own-files.ts";
import { type PackageSource, SHIPPED_ROOT } from "./packages.ts";

/** What pack.ts has found out of a shipped package, by its id. The hash is that of its code: an edited file is built as any other. */
export type PackedPackage = Omit<Told, "schemas"> & {
  readonly hash: string;
  /** Where its code stands in the file that has all of them. */
  readonly at: number;
  readonly size: number;
};
export const PACKED_LIST = "packages.json";
/** The code of all packages once more, one after the other: a start reads one file, not a hundred. */
export const PACKED_CODE = "packages.code";
/** Beside each package. */
export const PACKED_SCHEMAS = "schemas.json";

/** A module that pack.ts has bundled, its source map beside it. */
export function readPacked(file: string, filename: string): Bundle {
  const bytes = readFileSync(file);
  const hash = hashOf(bytes);
  const sources = new SourcePositions(() => readFileSync(`${file}.map`, "utf8"));
  const shared = sharedBytes(bytes);
  return new Bundle({ shared, hash, filename, inputs: new Map([[file, hash]]), sources });
}

/** Undefined: nothing is known of it as it lies there, so it has to be bundled and described. */
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

/** Undefined: its file may have been edited since the package was installed. One that was all the same is seen by the first look. */
function untouched({ entry, id }: PackageSource, { at, size, hash }: PackedPackage) {
  const { mtimeMs, code } = (all ??= allCode());
  const file = statSync(entry);
  if (file.size !== size || file.mtimeMs > mtimeMs) return undefined;
  const sources = new SourcePositions(() => readFileSync(`${entry}.map`, "utf8"));
  const shared = code.subarray(at, at + size);
  return new Bundle({ shared, hash, filename: id, inputs: new Map([[entry, hash]]), sources });
}

let all: { readonly mtimeMs: number; readonly code: Uint8Array } | undefined;

function allCode(): NonNullable<typeof all> {
  const file = path.join(SHIPPED_ROOT, PACKED_CODE);
  return { mtimeMs: statSync(file).mtimeMs, code: sharedBytes(readFileSync(file)) };
}

let read: Readonly<Record<string, PackedPackage>> | undefined;

function packages(): Readonly<Record<string, PackedPackage>> {
  read ??= JSON.parse(readFileSync(path.join(SHIPPED_ROOT, PACKED_LIST), "utf8"));
  return read!;
}
