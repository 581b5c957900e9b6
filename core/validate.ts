import { readFile } from "node:fs/promises";
import { Canary } from "./canary.ts";
import { Catalog } from "./catalog.ts";
import { formatProblem, type Problem, problem } from "./problem.ts";
import { isRejected, rehearse } from "./rehearsal.ts";

export interface ValidateOptions {
  readonly files: readonly string[];
  readonly json: boolean;
  readonly strict: boolean;
  readonly trust: readonly string[];
  /** The drop-in directories that belong to a config file. */
  readonly filters: (file: string) => readonly string[];
}

interface Verdict {
  readonly file: string;
  readonly ok: boolean;
  readonly errors: readonly Problem[];
  readonly warnings: readonly Problem[];
}

/** Says of each file whether the proxy would take it. Everything is checked but whether addresses are free. */
export async function validate(options: ValidateOptions): Promise<number> {
  const catalog = await Catalog.open(options.trust);
  const verdicts: Verdict[] = [];
  const byDirectories = new Map<string, string[]>();
  for (const file of options.files) {
    const key = options.filters(file).join("\0");
    byDirectories.set(key, [...(byDirectories.get(key) ?? []), file]);
  }
  for (const files of byDirectories.values())
    verdicts.push(
      ...(await verdictsOf(files, options.filters(files[0]!), catalog, options.strict)),
    );
  catalog.dispose();
  const inOrder = options.files.map((file) => verdicts.find((verdict) => verdict.file === file)!);
  print(inOrder, options.json);
  return inOrder.every((verdict) => verdict.ok) ? 0 : 1;
}

async function verdictsOf(
  files: readonly string[],
  directories: readonly string[],
  catalog: Catalog,
  strict: boolean,
): Promise<Verdict[]> {
  const units = await catalog.units(directories);
  const broken = units.flatMap((unit) => unit.problems);
  const built = units.flatMap((unit) => unit.next ?? []);
  const packages = built.flatMap(({ infos }) => infos);
  const modules = built.flatMap((made) => made.modules);
  const node = { id: "", cluster: "" };
  const canary = new Canary({ prelude: catalog.preludes, node, sandboxed: "set up" });
  const verdicts: Verdict[] = [];
  for (const [k, file] of files.entries()) {
    const text = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => error);
    if (typeof text !== "string") {
      verdicts.push({
        file,
        ok: false,
        errors: [problem(`${file}: cannot be read (${text.code})`)],
        warnings: [],
      });
      continue;
    }
    const outcome = await rehearse({
      file,
      text,
      packages,
      strict,
      node,
      canary,
      change: { generation: k + 1, modules, removed: [] },
      live: undefined,
      find: (name) => built.find(({ bundle }) => bundle.filename === name)?.bundle.sources,
    });
    await canary.abort(k + 1);
    const ok = !isRejected(outcome);
    verdicts.push({
      file,
      ok,
      errors: ok ? [] : [...broken, ...outcome.problems],
      warnings: outcome.warnings,
    });
  }
  await canary.dispose();
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
  const entry = ({ message, help, line, column, path }: Problem) => ({
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
