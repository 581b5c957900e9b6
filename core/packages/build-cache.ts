import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { isPacked, ROOT } from "../own-files.ts";

/** The folder of kept builds; in the npm package, that of Node's compile cache (bin/tsproxy.js). */
const FOLDER =
  (isPacked && process.env.NODE_COMPILE_CACHE) ||
  path.join(ROOT, "node_modules", ".cache", "tsproxy");

/** The folder of what V8 has made of our modules (compiled-code.ts). */
export const COMPILED = path.join(FOLDER, "isolates");

/**
 * True for a file whose build is kept on disk. For the next start of a checkout these are its own packages and preludes: to
 * bundle all of them takes two seconds of CPU, to see that nothing has changed 30 ms. The npm package comes already built.
 */
export function isKept(file: string): boolean {
  return !isPacked && file.startsWith(`${ROOT.replace(/\/$/, "")}/`);
}

/** A file name: a hash of these words. */
export function keyOf(...words: readonly string[]): string {
  return createHash("sha256").update(JSON.stringify(words)).digest("hex").slice(0, 32);
}

/** The kept text of that name. Undefined: there is none. */
export async function readKept(name: string): Promise<string | undefined> {
  return readFile(path.join(FOLDER, name), "utf8").catch(() => undefined);
}

/** As `readKept`, but synchronous; throws if there is none. */
export function readKeptNow(name: string): string {
  return readFileSync(path.join(FOLDER, name), "utf8");
}

/**
 * Keeps a text for later processes, in one turn: one that is asked to end leaves no draft behind. Never fails: a folder that cannot
 * be written costs the next start some time.
 */
export function keep(name: string, text: string): void {
  const file = path.join(FOLDER, name);
  const draft = `${file}.${process.pid}`;
  try {
    mkdirSync(FOLDER, { recursive: true });
    writeFileSync(draft, text);
    renameSync(draft, file);
  } catch {
    // The next start builds it again.
    rmSync(draft, { force: true });
  }
}

let version: string | undefined;

/** Part of the name of every kept bundle, since another esbuild makes other bundles. */
export function esbuildVersion(): string {
  const require = createRequire(import.meta.url);
  version ??= String(
    JSON.parse(readFileSync(require.resolve("esbuild/package.json"), "utf8")).version,
  );
  return version;
}
