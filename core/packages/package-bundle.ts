import { readFileSync } from "node:fs";
import { hashOf } from "./content-hash.ts";

/** The manifest in the first line of a packed filter. */
export interface BundleManifest {
  readonly name: string;
  readonly kind: string;
  readonly version: string;
  /** Hash of the text below the first line. */
  readonly hash: string;
  /** Version of the proxy that packed it. */
  readonly packedBy: string;
  readonly trusted?: boolean;
  readonly schema: unknown;
  readonly routeSchema?: unknown;
}

const MARK = "// tsproxy-filter ";
const MAP = "//# sourceMappingURL=data:application/json;base64,";

/** Packs a filter into one file: a line with the manifest, the module, its source map. Dropped in, it works as the folder did. */
export function packBundle(
  manifest: Omit<BundleManifest, "hash">,
  code: string,
  sourceMap: string,
): string {
  const { mappings, ...rest } = JSON.parse(sourceMap) as { readonly mappings: string };
  // The manifest's line stands before the code, so an empty line before its mappings.
  const map = Buffer.from(JSON.stringify({ ...rest, mappings: `;${mappings}` })).toString("base64");
  const body = `${code.trimEnd()}\n${MAP}${map}\n`;
  return `${MARK}${JSON.stringify({ ...manifest, hash: hashOf(body) })}\n${body}`;
}

/** Reads the manifest of a packed filter. Undefined: the file is not one. Throws if the file was changed after it was packed. */
export function readBundle(file: string): BundleManifest | undefined {
  const text = readFileSync(file, "utf8");
  if (!text.startsWith(MARK)) return undefined;
  const end = text.indexOf("\n");
  let manifest: BundleManifest;
  try {
    manifest = JSON.parse(text.slice(MARK.length, end));
  } catch {
    throw new Error("its first line is no manifest: it was cut or edited; pack it again");
  }
  if (hashOf(text.slice(end + 1)) !== manifest.hash)
    throw new Error(
      `it is not what was packed (hash ${manifest.hash}): it was cut or edited; pack it again`,
    );
  return manifest;
}
