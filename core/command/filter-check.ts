import { readFileSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { loadConfig } from "../config/load.ts";
import type { BrokenPackage } from "../config/registry.ts";
import { fileError } from "../file-error.ts";
import { Catalog } from "../packages/catalog.ts";
import type { PackageUnit } from "../packages/package-unit.ts";
import {
  codeFrame,
  formatProblem,
  noFilters,
  type Problem,
  problem,
  shortPath,
} from "../problem.ts";
import type { PackageInfo } from "../protocol.ts";
import { type FoundScript, globalNames, ScriptFile, scriptsIn } from "./script-types.ts";
import {
  findCompiler,
  findNodeTypes,
  HOW_TO_GET_IT,
  type TypeProblem,
  typeProblems,
} from "./typescript.ts";

export interface FilterCheckOptions {
  /** Filters to check; empty: all. */
  readonly names: readonly string[];
  readonly filters: readonly string[];
  readonly trust: readonly string[];
  /** Configs whose scripts are checked. */
  readonly configs: readonly string[];
  readonly json: boolean;
}

/**
 * Checks that filters load, and the types of filters, their tests and the scripts of configs. The exit code is 1 if anything
 * fails.
 */
export async function filterCheck(options: FilterCheckOptions): Promise<number> {
  const catalog = await Catalog.open(options.trust);
  const units = await catalog.units(options.filters);
  catalog.dispose();
  const own = units.filter((unit) => isMeant(unit, options.names));
  const missing = options.names.filter((name) => !own.some((unit) => isMeant(unit, [name])));
  const problems = missing.map((name) => problem(noFilter(name, units, options.filters)));
  for (const unit of own) problems.push(...unit.problems);

  const infos = units.flatMap((unit) => unit.next?.infos ?? []);
  const broken = units.flatMap((unit) => unit.broken ?? []);
  const scripts: FoundScript[] = [];
  for (const file of options.configs) {
    const found = await scriptsOf(file, infos, broken);
    scripts.push(...found.scripts);
    problems.push(...found.problems);
  }
  const compiler = await findCompiler();
  if (compiler === undefined) {
    print([...problems, problem(HOW_TO_GET_IT)], NOTHING_CHECKED, options.json);
    return 1;
  }
  if (own.length === 0 && options.configs.length === 0 && problems.length === 0)
    problems.push(problem(noFilters(options.filters)));
  const files = (await Promise.all(own.map((unit) => sourcesOf(unit)))).flat();
  const nodeTests = files.filter(isNodeTest);
  const others = files.filter((file) => !nodeTests.includes(file));
  // Files with a problem already, such as a syntax error, get no type errors on top.
  const isTold = new Set(problems.map((found) => path.resolve(found.file)));
  const said = await typeProblems(compiler, others);
  const nodeTypes = findNodeTypes();
  if (nodeTypes !== undefined) said.push(...(await typeProblems(compiler, nodeTests, nodeTypes)));
  problems.push(...distinct(said.filter((found) => !isTold.has(found.file)).map(problemOf)));
  problems.push(...(await scriptProblems(compiler, scripts, infos)));
  const checked = { filters: own.length, scripts: scripts.length };
  print(problems, checked, options.json);
  return problems.length === 0 ? 0 : 1;
}

const NOTHING_CHECKED = { filters: 0, scripts: 0 };

function isMeant({ source, next, broken }: PackageUnit, names: readonly string[]): boolean {
  if (source.origin === "shipped") return false;
  if (names.length === 0) return true;
  const known = [
    path.basename(source.id),
    ...(broken?.names ?? []),
    ...(next?.infos ?? []).flatMap((i) => [i.name, i.package]),
  ];
  return names.some((name) => known.includes(name));
}

function noFilter(name: string, units: readonly PackageUnit[], filters: readonly string[]): string {
  const there = units.filter((unit) => unit.source.origin === "dropped-in");
  const where = filters.map(shortPath).join(", ") || "filters/";
  const list = there.map((unit) => path.basename(unit.source.id)).join(", ") || "none";
  return `no filter "${name}" in ${where}; there: ${list}`;
}

/** The TypeScript files of a package, tests included. */
async function sourcesOf({ source }: PackageUnit): Promise<string[]> {
  const isSingle = source.id === source.entry;
  if (isSingle) return /\.[cm]?ts$/.test(source.entry) ? [source.entry] : [];
  const names = await readdir(source.folder, { recursive: true });
  return names
    .filter((name) => /\.[cm]?ts$/.test(name) && !name.includes("node_modules"))
    .map((name) => path.join(source.folder, name));
}

/** True for a test that imports Node's modules, as tests may. It is checked only where Node's types are installed. */
function isNodeTest(file: string): boolean {
  return /\.test\.[cm]?ts$/.test(file) && /from "node:/.test(readFileSync(file, "utf8"));
}

/** Drops repetitions: an error in a file is found once for each program that imports it. */
function distinct(problems: readonly Problem[]): Problem[] {
  return [...new Map(problems.map((found) => [JSON.stringify(found), found])).values()];
}

/** What filters can use instead of globals that they do not have, for error messages. */
const INSTEAD: Readonly<Record<string, string>> = {
  Buffer: "Uint8Array, and the helpers of @tsproxy/sdk",
  fetch: 'cx.fetch("cluster:/path")',
  process: "the config, and cx.node",
  require: "import",
  setInterval: "setTimeout, or cx.timer",
};

function hintFor(message: string): string {
  const [, name = ""] = /^Cannot find name '(\w+)'/.exec(message) ?? [];
  const instead = INSTEAD[name];
  if (instead === undefined) return message;
  return `Cannot find name '${name}': filters run without Node; use ${instead}`;
}

async function scriptsOf(
  file: string,
  infos: readonly PackageInfo[],
  broken: readonly BrokenPackage[],
): Promise<{ scripts: FoundScript[]; problems: Problem[] }> {
  const text = await readFile(file, "utf8").catch((error: Error) => error);
  if (typeof text !== "string")
    return { scripts: [], problems: [problem(`${file}: cannot be read: ${fileError(text)}`)] };
  const loaded = loadConfig({ file, text }, infos, { strict: false, broken });
  if (!loaded.ok)
    return { scripts: [], problems: loaded.errors.map((found) => ({ ...found, frame: "" })) };
  return { scripts: scriptsIn(loaded.config), problems: [] };
}

/** Checks the scripts of each package as a program of their own, since each package provides other global names. */
async function scriptProblems(
  compiler: readonly string[],
  scripts: readonly FoundScript[],
  infos: readonly PackageInfo[],
): Promise<Problem[]> {
  const problems: Problem[] = [];
  for (const name of new Set(scripts.map((script) => script.package))) {
    const owner = infos.find((info) => info.package === name)!.folder;
    const folder = await mkdtemp(path.join(tmpdir(), "tsproxy-scripts-"));
    try {
      const names = path.join(folder, "names.d.ts");
      await writeFile(names, globalNames(owner));
      const files = new Map<string, ScriptFile>();
      for (const [k, script] of scripts.filter((one) => one.package === name).entries()) {
        const made = new ScriptFile(script);
        const file = path.join(folder, `script${k}.ts`);
        files.set(file, made);
        await writeFile(file, made.text);
      }
      for (const found of await typeProblems(compiler, [names, ...files.keys()])) {
        const script = files.get(found.file);
        problems.push(problemOf(script ? { ...found, ...script.place(found) } : found));
      }
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
  return problems;
}

function problemOf({ file, line, column, code, message }: TypeProblem): Problem {
  const said = `${hintFor(message).replace(/\.$/, "")} (${code})`;
  if (line === 0) return problem(said);
  return {
    ...problem(said),
    file: shortPath(path.resolve(file)),
    line,
    column,
    frame: frameOf(file, line, column),
  };
}

function frameOf(file: string, line: number, column: number): string {
  try {
    return codeFrame(readFileSync(file, "utf8"), line, column);
  } catch {
    return "";
  }
}

function print(
  problems: readonly Problem[],
  checked: { readonly filters: number; readonly scripts: number },
  json: boolean,
): void {
  if (json) {
    const ok = problems.length === 0;
    process.stdout.write(`${JSON.stringify({ ok, ...checked, errors: problems })}\n`);
    return;
  }
  for (const found of problems) process.stderr.write(`${formatProblem(found)}\n`);
  const many = (n: number, what: string) => `${n} ${what}${n === 1 ? "" : "s"}`;
  const parts = [many(checked.filters, "filter")];
  if (checked.scripts > 0) parts.push(many(checked.scripts, "script"));
  const verdict = problems.length === 0 ? "OK" : many(problems.length, "error");
  process.stdout.write(`${parts.join(" and ")}: ${verdict}\n`);
}
