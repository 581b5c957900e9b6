import { existsSync, readdirSync, readFileSync, realpathSync, type Stats, statSync } from "node:fs";
import path from "node:path";
import { CORE, isPacked } from "../own-files.ts";

/** A package on disk, before its definitions have been read. */
export interface PackageSource {
  /** Shipped: `kind/folder`. Dropped-in: its path. */
  readonly id: string;
  readonly origin: "shipped" | "dropped-in";
  /** The file that bundling starts from. */
  readonly entry: string;
  /** The package's folder, or the directory of its single file. */
  readonly folder: string;
  /** True: it may run in the builtin isolate. Set by `"tsproxy": { "trusted": true }` in its package.json. */
  readonly trusted: boolean;
}

/** The folder of the shipped packages. Tests of reloads edit a copy and name it in the environment. */
export const SHIPPED_ROOT = process.env.TSPROXY_SHIPPED_FILTERS ?? path.join(CORE, "../filters");

/** Finds the shipped packages: `filters/<kind>/<name>/filter.ts`, or `filter.js` in the npm package. */
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

/** Finds the packages of a drop-in directory, each a folder or a single file. None if there is no such directory. */
export function discoverDroppedIn(directory: string): PackageSource[] {
  const root = path.resolve(directory);
  const found: PackageSource[] = [];
  for (const name of names(root).sort()) {
    // Dot names belong to editors, or to Kubernetes (`..data` and what it points to).
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

/** True if the first line of a packed filter (package-bundle.ts) says that it is trusted. Errors in it are left to its build. */
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

/** Undefined: there is none, or it is only half written. The usual names of the entry are tried then. */
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
  } catch (error) {
    return unlessOutOfFiles(error);
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
  } catch (error) {
    return unlessOutOfFiles(error);
  }
}

/**
 * Answers an empty list for a directory that cannot be read. Throws the error if connections have taken all file descriptors:
 * otherwise all packages, even the shipped cluster manager, would count as removed and be put out of service.
 */
function unlessOutOfFiles(error: unknown): [] {
  const { code } = error as NodeJS.ErrnoException;
  if (code === "EMFILE" || code === "ENFILE") throw error;
  return [];
}
