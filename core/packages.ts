import { existsSync, readdirSync, readFileSync, realpathSync, type Stats, statSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { isPacked } from "./own-files.ts";

/** A package as it lies on disk, before anybody has read what it says of itself. */
export interface PackageSource {
  /** Shipped: `kind/folder`. Dropped-in: its path. */
  readonly id: string;
  readonly origin: "shipped" | "dropped-in";
  /** What is bundled. */
  readonly entry: string;
  /** Whose files belong to it: a folder, or the directory that the single file is in. */
  readonly folder: string;
  /** `"tsproxy": { "trusted": true }` in its package.json: may live in the group `builtin`. */
  readonly trusted: boolean;
}

/** The tree that comes with the proxy. Tests of reloads edit a copy and name it in the environment. */
export const SHIPPED_ROOT =
  process.env.TSPROXY_SHIPPED_FILTERS ?? fileURLToPath(new URL("../filters", import.meta.url));

/** `filters/<kind>/<name>/filter.ts`; `filter.js` in the npm package. */
export function discoverShipped(root = SHIPPED_ROOT): PackageSource[] {
  const found: PackageSource[] = [];
  for (const kind of folders(root))
    for (const name of folders(path.join(root, kind))) {
      const folder = path.join(root, kind, name);
      const entry = path.join(folder, isPacked ? "filter.js" : "filter.ts");
      if (!existsSync(entry)) continue;
      found.push({ id: `${kind}/${name}`, origin: "shipped", entry, folder, trusted: true });
    }
  return found;
}

/** The packages of a drop-in directory: a folder each, or a single file. A directory that is not there has none. */
export function discoverDroppedIn(directory: string): PackageSource[] {
  const root = path.resolve(directory);
  const found: PackageSource[] = [];
  for (const name of names(root).sort()) {
    // Dot names: editors' files, and what Kubernetes keeps behind its links.
    if (name.startsWith(".") || name === "node_modules") continue;
    const source = packageAt(path.join(root, name));
    if (source !== undefined) found.push(source);
  }
  return found;
}

/** True for the tree of the shipped packages, which is never a drop-in directory. */
export function isShippedTree(directory: string): boolean {
  try {
    return realpathSync(directory) === realpathSync(SHIPPED_ROOT);
  } catch {
    return false;
  }
}

function packageAt(at: string): PackageSource | undefined {
  const entry = statOf(at);
  if (entry?.isFile()) {
    if (!/\.[cm]?[jt]s$/.test(at) || /\.(test|spec|d|config)\.[cm]?[jt]s$/.test(at))
      return undefined;
    const trusted = saysTrusted(at);
    return { id: at, origin: "dropped-in", entry: at, folder: path.dirname(at), trusted };
  }
  if (!entry?.isDirectory()) return undefined;
  const manifest = readManifest(path.join(at, "package.json"));
  const file = [
    exported(manifest?.exports) ?? manifest?.main,
    ...["filter.ts", "index.ts", "filter.js", "index.js"],
  ].find((name) => name !== undefined && existsSync(path.join(at, name)));
  if (file === undefined) return undefined;
  const trusted = manifest?.tsproxy?.trusted === true;
  return { id: at, origin: "dropped-in", entry: path.join(at, file), folder: at, trusted };
}

/** What a packed filter (package-bundle.ts) says in its first line; anything wrong with it is told when it is built. */
function saysTrusted(file: string): boolean {
  try {
    return /^\/\/ tsproxy-filter \{[^\n]*?"trusted":true/.test(readFileSync(file, "utf8"));
  } catch {
    return false;
  }
}

interface Manifest {
  readonly exports?: unknown;
  readonly main?: string;
  readonly tsproxy?: { readonly trusted?: boolean };
}

/** Undefined for a manifest in the middle of being written: the entry's usual names are tried then. */
function readManifest(file: string): Manifest | undefined {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch {
    return undefined;
  }
}

/** The file behind `"."` of a manifest's exports. */
function exported(exports: unknown): string | undefined {
  if (typeof exports === "string") return exports;
  if (typeof exports !== "object" || exports === null) return undefined;
  const conditions = exports as Record<string, unknown>;
  return exported(conditions["."] ?? conditions.import ?? conditions.default);
}

function folders(directory: string): string[] {
  try {
    const isPackage = (name: string) => !name.startsWith(".") && name !== "node_modules";
    return readdirSync(directory, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && isPackage(entry.name))
      .map((entry) => entry.name)
      .sort();
  } catch {
    return [];
  }
}

function statOf(at: string): Stats | undefined {
  try {
    return statSync(at, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

function names(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
