import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { builtinModules, SourceMap } from "node:module";
import path from "node:path";
import type { Message, Plugin } from "esbuild";
import { codeFrame, type Problem, problem, shortPath } from "../problem.ts";
import { esbuildVersion, isKept, keep, keyOf, readKept, readKeptNow } from "./build-cache.ts";
import { sharedCode, textOf } from "./module-code.ts";

interface BundleParts {
  readonly shared: Uint8Array;
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
  /** The code in memory that all threads share, as ASCII. */
  readonly shared: Uint8Array;
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

/** esbuild runs in a process of its own, which is stopped after so long without a build. */
const IDLE_MS = 60_000;
let idle: NodeJS.Timeout | undefined;

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
  /** False: `inputs` stays empty, and esbuild reads the files itself, which is quicker. */
  readonly keepInputs?: boolean;
}

/** Bundles a package or a prelude, or takes a kept build of the same files. Rejects with a BundleError. */
export async function bundle(options: BundleOptions): Promise<Bundle> {
  if (!isKept(options.entry)) return build(options);
  const found = await readBundle(keptAs(options), options.filename);
  if (found !== undefined) return found;
  const made = await build({ ...options, keepInputs: true });
  void keepBundle(made, options);
  return made;
}

/** A bundle as text, for another process. */
export interface KeptBundle {
  readonly code: string;
  readonly hash: string;
  readonly inputs: readonly (readonly [string, string])[];
  /** The source map. */
  readonly map: string;
}

export function keptBundle({ code, hash, inputs, sources }: Bundle): KeptBundle {
  return { code, hash, inputs: [...inputs], map: sources.json };
}

export function restored({ code, hash, inputs, map }: KeptBundle, filename: string): Bundle {
  const sources = new SourcePositions(() => map);
  return new Bundle({ shared: sharedCode(code), hash, filename, inputs: new Map(inputs), sources });
}

/** Writes a bundle into the build cache, for a later process. */
async function keepBundle(made: Bundle, options: BundleOptions): Promise<void> {
  const { code, hash, inputs, sources } = made;
  const name = keptAs(options);
  await keep(`${name}.js.map`, sources.json);
  await keep(`${name}.json`, JSON.stringify({ code, hash, inputs: [...inputs] }));
}

function keptAs({ entry, filename, ...options }: BundleOptions): string {
  const { external = [], alias = {}, format = "esm" } = options;
  const words = [esbuildVersion(), CHARSET, format, entry, filename];
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
  const sources = new SourcePositions(() => readKeptNow(`${key}.js.map`));
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
  const {
    entry,
    filename,
    external = ["@tsproxy/sdk"],
    alias = {},
    format = "esm",
    keepInputs = true,
  } = options;
  const inputs = new Map<string, string>();
  // Imported with the first build: the npm package starts without building anything.
  const esbuild = await import("esbuild");
  clearTimeout(idle);
  idle = setTimeout(() => void esbuild.stop(), IDLE_MS).unref();
  try {
    const result = await esbuild.build({
      entryPoints: [entry],
      outfile: "/out.js",
      absWorkingDir: process.cwd(),
      bundle: true,
      write: false,
      alias: { ...alias },
      format,
      platform: "neutral",
      target: "esnext",
      mainFields: ["module", "main"],
      conditions: ["import", "module"],
      sourcemap: "external",
      logLevel: "silent",
      charset: CHARSET,
      // A tsconfig beside somebody's filter is for their editor; it never changes what runs.
      tsconfigRaw: { compilerOptions: { target: "esnext", verbatimModuleSyntax: true } },
      plugins: keepInputs ? [imports(external), readOnce(inputs)] : [imports(external)],
    });
    const [map, text] = [".map", ".js"].map(
      (end) => result.outputFiles.find((file) => file.path.endsWith(end))!.text,
    ) as [string, string];
    const code = ascii(text);
    return new Bundle({
      shared: sharedCode(code),
      hash: hashOf(code),
      filename,
      inputs,
      sources: new SourcePositions(() => map),
    });
  } catch (error) {
    const { errors } = error as { errors?: Message[] };
    if (errors === undefined) throw error;
    throw new BundleError(errors.slice(0, MAX_PROBLEMS).map(problemOf), inputs);
  }
}

/** The first 22 characters of the SHA-256 in base64url. */
export function hashOf(bytes: string | Uint8Array): string {
  return createHash("sha256").update(bytes).digest("base64url").slice(0, 22);
}

const NO_POSITIONS = JSON.stringify({ version: 3, sources: [], sourcesContent: [], mappings: "" });

/** Translates positions in a bundled module into positions in its source files. */
export class SourcePositions {
  readonly #read: () => string;
  #map: SourceMap | undefined;
  #contents = new Map<string, string>();

  /** `read` answers the source map as JSON. If it throws, as the file is gone, no position is known. */
  constructor(read: () => string) {
    this.#read = () => {
      try {
        return read();
      } catch {
        return NO_POSITIONS;
      }
    };
  }

  get json(): string {
    return this.#read();
  }

  /** Absolute paths of the source files. */
  get files(): string[] {
    return (JSON.parse(this.#read()).sources as string[]).map((source) =>
      path.resolve("/", source),
    );
  }

  /** The texts of the source files, by absolute path. */
  contents(): ReadonlyMap<string, string> {
    this.#parsed();
    return new Map([...this.#contents].map(([source, text]) => [path.resolve("/", source), text]));
  }

  /** Lines and columns count from 1; `text` is the whole source file. Undefined: the source map does not know the position. */
  find(
    line: number,
    column: number,
  ): { file: string; line: number; column: number; text: string } | undefined {
    const entry = this.#parsed().findEntry(line - 1, column - 1);
    if (!("originalSource" in entry) || entry.originalSource === undefined) return undefined;
    return {
      file: path.resolve("/", entry.originalSource),
      line: entry.originalLine + 1,
      column: entry.originalColumn + 1,
      text: this.#contents.get(entry.originalSource) ?? "",
    };
  }

  // Parsed on first use: positions are needed only when something fails.
  #parsed(): SourceMap {
    if (this.#map === undefined) {
      const payload = JSON.parse(this.#read());
      payload.sources.forEach((source: string, i: number) => {
        this.#contents.set(source, payload.sourcesContent[i] ?? "");
      });
      this.#map = new SourceMap(payload);
    }
    return this.#map;
  }
}

/** Describes an error thrown in bundled modules, at the first line of its stack that lies in one of them. */
export function locate(
  message: string,
  stack: string,
  find: (filename: string) => SourcePositions | undefined,
): Problem {
  for (const [, filename, line, column] of stack.matchAll(/([^\s()]+?):(\d+):(\d+)/g)) {
    const place = find(filename!)?.find(Number(line), Number(column));
    if (place === undefined) continue;
    const frame = codeFrame(place.text, place.line, place.column);
    return {
      ...problem(message),
      file: shortPath(place.file),
      line: place.line,
      column: place.column,
      frame,
    };
  }
  return problem(message);
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

/** What filters can use instead of Node's modules, for error messages. */
const INSTEAD: Readonly<Record<string, string>> = {
  buffer: "Uint8Array and the helpers of @tsproxy/sdk",
  crypto: "the global crypto, as in browsers",
  dns: 'cx.operation("dns.resolve", …)',
  events: "plain callbacks",
  fs: "DataSource() in the config's schema to read a file, cx.file(path) to append lines to one",
  http: 'cx.fetch("cluster:/path")',
  https: 'cx.fetch("cluster:/path")',
  net: "cx.connect(address, handler, options)",
  perf_hooks: "cx.now()",
  process: "the config, and cx.node",
  timers: "setTimeout, or cx.timer(onFired)",
  url: "the global URL",
};
const NODE_MODULE = new RegExp(
  `^(node:|(${builtinModules.filter((name) => !name.includes("/")).join("|")})(/|$))`,
);

/** Lets a filter import its own files, npm packages that run without Node, and the SDK; refuses Node's modules. */
function imports(external: readonly string[]): Plugin {
  return {
    name: "imports",
    setup(esbuild) {
      esbuild.onResolve({ filter: /^@tsproxy\// }, ({ path: name, kind }) => {
        if (kind === "entry-point") return undefined;
        if (external.includes(name)) return { path: name, external: true };
        // The preludes (no externals) bundle the SDK itself. `@tsproxy/sdk/lua` is bundled into each package that imports it.
        if (external.length === 0 || name === "@tsproxy/sdk/lua") return undefined;
        const why =
          name === "@tsproxy/sdk/testing"
            ? "the testing kit is for *.test.ts files"
            : "filters import @tsproxy/sdk alone; others are reached by name, through cx";
        return { errors: [{ text: `cannot import "${name}": ${why}` }] };
      });
      esbuild.onResolve({ filter: NODE_MODULE }, async ({ path: name, ...from }) => {
        if (from.pluginData === "tried") return undefined;
        // `buffer` or `events` may also be an npm package of that name that needs no Node.
        if (!name.startsWith("node:")) {
          const { resolveDir, kind, importer } = from;
          const found = await esbuild.resolve(name, {
            resolveDir,
            kind,
            importer,
            pluginData: "tried",
          });
          if (found.errors.length === 0 && !found.external) return found;
        }
        const instead = INSTEAD[name.replace(/^node:/, "").split("/")[0]!];
        const hint = instead === undefined ? "" : `; use ${instead}`;
        return { errors: [{ text: `cannot import "${name}": filters run without Node${hint}` }] };
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
