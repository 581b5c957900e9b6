import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { isPacked, ROOT } from "./own-files.ts";

/** In the npm package beside what Node keeps of compiled code (bin/tsproxy.js). */
const FOLDER =
  (isPacked && process.env.NODE_COMPILE_CACHE) ||
  path.join(ROOT, "node_modules", ".cache", "tsproxy");

/**
 * What the checkout's own packages and preludes were built to, for the next start: to bundle all of them takes two seconds of CPU,
 * to see that nothing has changed 30 ms. The npm package needs none of it. What lies elsewhere is kept when a process is given up, for
 * the one that takes its place and must not wait for esbuild.
 */
export function isKept(file: string): boolean {
  return isSuccessor || (!isPacked && file.startsWith(`${ROOT.replace(/\/$/, "")}/`));
}

let isSuccessor = false;
/** This process takes the place of one that hung. */
export function succeed(): void {
  isSuccessor = true;
}

/** The name of what these words make. */
export function keyOf(...words: readonly string[]): string {
  return createHash("sha256").update(JSON.stringify(words)).digest("hex").slice(0, 32);
}

export async function readKept(name: string): Promise<string | undefined> {
  return readFile(path.join(FOLDER, name), "utf8").catch(() => undefined);
}

export function readKeptNow(name: string): string {
  return readFileSync(path.join(FOLDER, name), "utf8");
}

/** Never fails: a folder that cannot be written costs the next start some time. */
export async function keep(name: string, text: string): Promise<void> {
  const file = path.join(FOLDER, name);
  const draft = `${file}.${process.pid}`;
  try {
    await mkdir(FOLDER, { recursive: true });
    await writeFile(draft, text);
    await rename(draft, file);
  } catch {
    // Nobody waits for it.
  }
}

let version: string | undefined;

/** Another esbuild makes other bundles. */
export function esbuildVersion(): string {
  const require = createRequire(import.meta.url);
  version ??= String(
    JSON.parse(readFileSync(require.resolve("esbuild/package.json"), "utf8")).version,
  );
  return version;
}
