import { readFile } from "node:fs/promises";
import { readLayers, valuesOf } from "../admin/runtime.ts";
import type { Overlay } from "../config/overlay.ts";
import { fileError } from "../file-error.ts";
import { unknownComponents } from "../logs/log-levels.ts";
import type { LogOptions } from "../logs/log-options.ts";
import { Catalog } from "../packages/catalog.ts";
import { formatProblem, type Problem, problem } from "../problem.ts";
import { Canary } from "../reload/canary.ts";
import { isRejected, rehearse } from "../reload/rehearsal.ts";

export interface ConfigSource {
  /** The file's path, or a name for the text. */
  readonly name: string;
  /** Undefined: it is read from the file. */
  readonly text?: string | undefined;
  readonly overlays: readonly Overlay[];
}

export interface ValidateOptions {
  readonly files: readonly ConfigSource[];
  readonly json: boolean;
  readonly strict: boolean;
  readonly allowUnknown: boolean;
  readonly trust: readonly string[];
  /** Of `--component-log-level`; undefined: the command has no such flag. */
  readonly components?: LogOptions["components"];
  /** The drop-in directories that belong to a config file. */
  readonly filters: (file: string) => readonly string[];
}

interface Verdict {
  readonly file: string;
  readonly ok: boolean;
  readonly errors: readonly Problem[];
  readonly warnings: readonly Problem[];
}

/** Prints for each file whether the proxy would accept it; whether addresses are free is not checked. Answers the exit code. */
export async function validate(options: ValidateOptions): Promise<number> {
  const catalog = await Catalog.open(options.trust);
  const verdicts: Verdict[] = [];
  const byDirectories = new Map<string, ConfigSource[]>();
  for (const source of options.files) {
    const key = options.filters(source.name).join("\0");
    byDirectories.set(key, [...(byDirectories.get(key) ?? []), source]);
  }
  for (const sources of byDirectories.values())
    verdicts.push(...(await verdictsOf(sources, catalog, options)));
  catalog.dispose();
  const inOrder = options.files.map(({ name }) => verdicts.find((v) => v.file === name)!);
  print(inOrder, options.json);
  return inOrder.every((verdict) => verdict.ok) ? 0 : 1;
}

async function verdictsOf(
  sources: readonly ConfigSource[],
  catalog: Catalog,
  options: ValidateOptions,
): Promise<Verdict[]> {
  const directories = options.filters(sources[0]!.name);
  const units = await catalog.units(directories);
  const wrong = units.flatMap((unit) => unit.problems);
  const broken = units.flatMap((unit) => unit.broken ?? []);
  const built = units.flatMap((unit) => unit.next ?? []);
  const packages = built.flatMap(({ infos }) => infos);
  const modules = built.flatMap((made) => made.modules);
  const ofCode = built.flatMap((made) => made.warnings);
  const names = packages.map((info) => info.package);
  const unknown = unknownComponents(options.components ?? {}, names);
  const node = { id: "", cluster: "" };
  const canary = new Canary({ prelude: catalog.preludes, node: () => node, sandboxed: "set up" });
  const verdicts: Verdict[] = [];
  for (const [k, { name: file, text: given, overlays }] of sources.entries()) {
    const text =
      given ?? (await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => error));
    if (typeof text !== "string") {
      const errors = [problem(`${file}: cannot be read: ${fileError(text)}`)];
      verdicts.push({ file, ok: false, errors, warnings: [] });
      continue;
    }
    const outcome = await rehearse({
      file,
      text,
      named: "",
      overlays,
      packages,
      broken,
      strict: options.strict,
      allowUnknown: options.allowUnknown,
      node,
      runtime: (layers, cluster) => valuesOf(readLayers(layers, cluster)),
      canary,
      trial: canary,
      change: { generation: k + 1, modules, removed: [] },
      said: "",
      live: undefined,
      find: (name) => built.find(({ bundle }) => bundle.filename === name)?.bundle.sources,
    });
    await canary.abort(k + 1);
    const taken = !isRejected(outcome);
    verdicts.push({
      file,
      ok: taken && unknown.length === 0,
      errors: taken ? unknown : [...wrong, ...outcome.problems, ...unknown],
      warnings: [...ofCode, ...outcome.warnings],
    });
  }
  canary.dispose();
  return verdicts;
}

function print(verdicts: readonly Verdict[], json: boolean): void {
  if (json) {
    process.stdout.write(`${JSON.stringify(verdicts.map(shown))}\n`);
    return;
  }
  for (const { file, ok, errors, warnings } of verdicts) {
    for (const found of errors) process.stderr.write(`${formatProblem(found)}\n`);
    for (const found of warnings) process.stderr.write(`warning: ${formatProblem(found)}\n`);
    process.stdout.write(`${file}: ${ok ? "OK" : count(errors.length)}\n`);
  }
}

function shown({ file, ok, errors, warnings }: Verdict): unknown {
  const entry = ({ file: own, message, help, line, column, path }: Problem) => ({
    file: own === "" ? file : own,
    message: help === undefined ? message : `${message}; ${help}`,
    line,
    column,
    path,
  });
  return { file, ok, errors: errors.map(entry), warnings: warnings.map(entry) };
}

function count(errors: number): string {
  return errors === 1 ? "1 error" : `${errors} errors`;
}
