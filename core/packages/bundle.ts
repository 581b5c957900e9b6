import { readFileSync, statSync } from "node:fs";
import path from "node:path";
import type { BuildOptions, Message, Plugin } from "esbuild";
import { type Problem, problem, shortPath } from "../problem.ts";
import type { SharedCode } from "../protocol.ts";
import { esbuildVersion, isKept, keep, keyOf, readKept, readKeptNow } from "./build-cache.ts";
import { withBundler } from "./bundler.ts";
import { hashOf } from "./content-hash.ts";
import { imports } from "./imports.ts";
import { sharedCode, textOf } from "./module-code.ts";
import { type MapAndTexts, SourcePositions } from "./source-positions.ts";

interface BundleParts {
  readonly shared: SharedCode;
  /** Hash of the code. New code is a new generation; the same code is not. */
  readonly hash: string;
  /** The module's name in stack traces. */
  readonly filename: string;
  /** Hashes of the bundled files' bytes, by absolute path. */
  readonly inputs: ReadonlyMap<string, string>;
  readonly sources: SourcePositions;
}

/** One module (or script) made of a package's files. It still imports `@tsproxy/sdk`, and nothing else. */
export class Bundle implements BundleParts {
  /** The code, for all threads. */
  readonly shared: SharedCode;
  readonly hash: string;
  readonly filename: string;
  readonly inputs: ReadonlyMap<string, string>;
  readonly sources: SourcePositions;

  constructor({ shared, hash, filename, inputs, sources }: BundleParts) {
    this.shared = shared;
    this.hash = hash;
    this.filename = filename;
    this.inputs = inputs;
    this.sources = sources;
  }

  get code(): string {
    return textOf({ code: this.shared });
  }

  /** The same bundle under another name in stack traces. */
  named(filename: string): Bundle {
    return new Bundle({ ...this, filename });
  }
}

/** Why esbuild refused a package. `inputs`: hashes of the files that it had read until then. */
export class BundleError extends Error {
  readonly problems: readonly Problem[];
  readonly inputs: ReadonlyMap<string, string>;

  constructor(problems: readonly Problem[], inputs: ReadonlyMap<string, string>) {
    super(problems.map((found) => found.message).join("\n"));
    this.problems = problems;
    this.inputs = inputs;
  }
}

/** How often known files are built in the quick way, as long as somebody saves them meanwhile. */
const QUICK_TIMES = 3;

/** ASCII, since V8 would keep a text with one character above Latin-1 in two bytes a character, in every isolate. */
const CHARSET = "ascii";

/** Replaces the characters that esbuild does not escape: those in the comments that it keeps. */
export function ascii(code: string): string {
  return code.replace(/[^\0-\x7f]/g, "?");
}

/** Errors beyond these mostly follow from the first ones. */
const MAX_PROBLEMS = 5;

export interface BundleOptions {
  readonly entry: string;
  readonly filename: string;
  /** Modules that are imported at run time instead of bundled. */
  readonly external?: readonly string[];
  /** Files to bundle instead of a module, by the module's name. */
  readonly alias?: Readonly<Record<string, string>>;
  /** `iife`: a script that imports nothing. */
  readonly format?: "esm" | "iife";
  /** Without white space that only people need: a third less text in each isolate. */
  readonly isCompact?: boolean;
  /** False: `inputs` stays empty, and esbuild reads the files itself, which is quicker. */
  readonly keepInputs?: boolean;
  /** `inputs` of the build before: as long as no file has come, the next one is quicker. */
  readonly known?: ReadonlyMap<string, string>;
}

/** Bundles a package or a prelude, or takes a kept build of the same files. Rejects with a BundleError. */
export async function bundle(options: BundleOptions): Promise<Bundle> {
  if (!isKept(options.entry)) return build(options);
  const found = await readBundle(keptAs(options), options.filename);
  if (found !== undefined) return found;
  const made = await build({ ...options, keepInputs: true });
  keepBundle(made, options);
  return made;
}

/** A bundle as text, for another process. */
export interface KeptBundle {
  readonly code: string;
  readonly hash: string;
  readonly inputs: readonly (readonly [string, string])[];
  /** The source map, and the texts of its sources, by absolute path, if they are not in it. Absent: no position is known. */
  readonly map?: string | undefined;
  readonly texts?: readonly (readonly [string, string])[] | undefined;
}

/** Source positions are three times as long as the code. */
export function keptBundle(
  { code, hash, inputs, sources }: Bundle,
  positions: "with positions" | "without positions",
): KeptBundle {
  const kept = { code, hash, inputs: [...inputs] };
  if (positions === "without positions") return kept;
  const { map, texts } = sources.parts;
  return { ...kept, map, texts: texts && [...texts] };
}

export function restored({ code, hash, inputs, map, texts }: KeptBundle, filename: string): Bundle {
  const parts = { map, texts: texts && new Map(texts) };
  const sources = new SourcePositions(() => parts);
  return new Bundle({ shared: sharedCode(code), hash, filename, inputs: new Map(inputs), sources });
}

/** Writes a bundle into the build cache, for a later process. */
function keepBundle(made: Bundle, options: BundleOptions): void {
  const { code, hash, inputs, sources } = made;
  const name = keptAs(options);
  keep(`${name}.js.map`, sources.json);
  keep(`${name}.json`, JSON.stringify({ code, hash, inputs: [...inputs] }));
}

function keptAs({ entry, filename, ...options }: BundleOptions): string {
  const { external = [], alias = {}, format = "esm", isCompact = false } = options;
  const words = [esbuildVersion(), CHARSET, format, `${isCompact}`, entry, filename];
  return keyOf(...words, ...external, JSON.stringify(alias));
}

/** The bundle that an earlier process kept. Undefined: there is none, or one of its files has changed since. */
async function readBundle(key: string, filename: string): Promise<Bundle | undefined> {
  const text = await readKept(`${key}.json`);
  if (text === undefined) return undefined;
  const { code, hash, inputs } = JSON.parse(text) as Pick<Bundle, "code" | "hash"> & {
    readonly inputs: readonly (readonly [string, string])[];
  };
  if (!inputs.every(([file, known]) => hashOfFile(file) === known)) return undefined;
  const sources = new SourcePositions(() => ({ map: readKeptNow(`${key}.js.map`) }));
  return new Bundle({
    shared: sharedCode(code),
    hash,
    filename,
    inputs: new Map(inputs),
    sources,
  });
}

/**
 * Undefined: the file cannot be read. Synchronous, one file after the other: reading all at once could take most of the 1,024
 * file descriptors that a process often has.
 */
function hashOfFile(file: string): string | undefined {
  try {
    return hashOf(readFileSync(file));
  } catch {
    return undefined;
  }
}

async function build(options: BundleOptions): Promise<Bundle> {
  const { keepInputs = true, known } = options;
  const quick = known && (await buildAgain(options, [...known.keys()]));
  if (quick !== undefined) return quick;
  const inputs = new Map<string, string>();
  try {
    const { code, map } = await run(options, keepInputs ? { plugins: [readOnce(inputs)] } : {});
    return made(code, options, inputs, { map });
  } catch (error) {
    const { errors } = error as { errors?: Message[] };
    if (errors === undefined) throw error;
    throw new BundleError(errors.slice(0, MAX_PROBLEMS).map(problemOf), inputs);
  }
}

/**
 * Lets esbuild read the files itself: to ask this process for each of 30 files takes half of the build. Where it is not sure what
 * it has read, since a file is new, or was saved meanwhile, that is built once more. Undefined: there is an error in a file, or
 * saves do not end.
 */
async function buildAgain(
  options: BundleOptions,
  known: readonly string[],
): Promise<Bundle | undefined> {
  let files = known;
  for (let times = 0; times < QUICK_TIMES; times++) {
    const before = readAll(files);
    const built = await run(options, { metafile: true, sourcesContent: false }).catch(
      () => undefined,
    );
    files = built?.inputs ?? [...before.keys()];
    const after = readAll(files);
    if (files.every((file) => isSame(before.get(file), after.get(file))))
      return built && madeOf(built, options, after);
  }
  return undefined;
}

function madeOf(built: Ran, options: BundleOptions, read: ReadonlyMap<string, FileRead>): Bundle {
  const hashes = new Map([...read].map(([file, { bytes }]) => [file, hashOf(bytes)]));
  const texts = new Map([...read].map(([file, { bytes }]) => [file, bytes.toString()]));
  return made(built.code, options, hashes, { map: built.map, texts });
}

interface FileRead {
  readonly bytes: Buffer;
  /** When it or its name last changed, in ns. */
  readonly changed: bigint;
}

/** Without those that cannot be read. */
function readAll(files: readonly string[]): Map<string, FileRead> {
  const found = new Map<string, FileRead>();
  for (const file of files) {
    try {
      const changed = statSync(file, { bigint: true }).ctimeNs;
      found.set(file, { bytes: readFileSync(file), changed });
    } catch {
      // A file that is gone differs from one that is there.
    }
  }
  return found;
}

/** Of the same content, and not written in between. */
function isSame(before: FileRead | undefined, after: FileRead | undefined): boolean {
  if (before === undefined || after === undefined) return false;
  return before.changed === after.changed && before.bytes.equals(after.bytes);
}

function made(
  text: string,
  { filename }: BundleOptions,
  inputs: ReadonlyMap<string, string>,
  parts: MapAndTexts,
): Bundle {
  const code = ascii(text);
  const sources = new SourcePositions(() => parts);
  return new Bundle({ shared: sharedCode(code), hash: hashOf(code), filename, inputs, sources });
}

interface Ran {
  readonly code: string;
  readonly map: string;
  /** Absolute paths of the bundled files, with `metafile`. */
  readonly inputs: readonly string[];
}

/** Runs esbuild. */
async function run(
  {
    entry,
    external = ["@tsproxy/sdk"],
    alias = {},
    format = "esm",
    isCompact = false,
  }: BundleOptions,
  { plugins = [], ...more }: Pick<BuildOptions, "plugins" | "metafile" | "sourcesContent">,
): Promise<Ran> {
  const { outputFiles, metafile } = await withBundler(({ build }) =>
    build({
      entryPoints: [entry],
      outfile: "/out.js",
      absWorkingDir: process.cwd(),
      bundle: true,
      write: false,
      external: [...external],
      alias: { ...alias },
      format,
      platform: "neutral",
      target: "esnext",
      mainFields: ["module", "main"],
      conditions: ["import", "module"],
      sourcemap: "external",
      logLevel: "silent",
      charset: CHARSET,
      minifyWhitespace: isCompact,
      minifySyntax: isCompact,
      // A tsconfig beside somebody's filter is for their editor; it never changes what runs.
      tsconfigRaw: { compilerOptions: { target: "esnext", verbatimModuleSyntax: true } },
      plugins: [imports(external.length === 0), ...plugins],
      ...more,
    }),
  );
  const output = (end: string) => outputFiles!.find((file) => file.path.endsWith(end))!.text;
  const inputs = Object.keys(metafile?.inputs ?? {}).map((file) => path.resolve(file));
  return { code: output(".js"), map: output(".map"), inputs };
}

/** Reads the files for esbuild and records their hashes, so that later changes on disk can be noticed. */
function readOnce(inputs: Map<string, string>): Plugin {
  return {
    name: "read-once",
    setup(esbuild) {
      esbuild.onLoad({ filter: /\.([cm]?[jt]s|json)$/ }, ({ path: file }) => {
        const contents = readFileSync(file);
        inputs.set(file, hashOf(contents));
        const loader = file.endsWith(".json") ? "json" : /\.[cm]?ts$/.test(file) ? "ts" : "js";
        return { contents, loader };
      });
    },
  };
}

function problemOf({ text, location }: Message): Problem {
  if (location === null) return problem(text);
  const column = location.column + 1;
  const mark = `${" ".repeat(location.column)}${"^".repeat(Math.max(1, location.length))}`;
  const gutter = " ".repeat(String(location.line).length);
  return {
    ...problem(text.charAt(0).toLowerCase() + text.slice(1)),
    file: shortPath(path.resolve(location.file)),
    line: location.line,
    column,
    frame: `> ${location.line} | ${location.lineText}\n  ${gutter} | ${mark}`,
  };
}
