import { Catalog } from "../packages/catalog.ts";
import type { PackageUnit } from "../packages/package-unit.ts";
import { discoverDroppedIn } from "../packages/packages.ts";
import { formatProblem, noFilters, type Problem, problem, refuse } from "../problem.ts";

export interface ListOptions {
  readonly configPath?: string;
  readonly filters: readonly string[];
  /** Those of them that the user has named, and so expects filters in. */
  readonly named: readonly string[];
  readonly trust: readonly string[];
  readonly json: boolean;
  readonly admin?: string;
}

interface Row {
  readonly package: string;
  readonly kind: string;
  readonly name: string;
  readonly origin: string;
  readonly group: string;
  readonly state: string;
  /** Only a running proxy has generations. */
  readonly generation?: number;
  readonly errors?: readonly (Partial<Problem> & { readonly message: string })[];
}

/** Prints the packages of a running proxy (`--admin`), or those on disk. The exit code is 1 if any is broken. */
export async function listFilters(options: ListOptions): Promise<number> {
  const rows =
    options.admin === undefined ? await rowsOnDisk(options) : await rowsOfProxy(options.admin);
  if (typeof rows === "string") return refuse(rows, options.json);
  if (options.json) process.stdout.write(`${JSON.stringify({ filters: rows })}\n`);
  else process.stdout.write(table(rows));
  return rows.some((row) => row.errors !== undefined) ? 1 : 0;
}

/** A string: the reason why there is nothing to list. */
async function rowsOnDisk({ filters, named, trust }: ListOptions): Promise<Row[] | string> {
  const empty = named.filter((directory) => discoverDroppedIn(directory).length === 0);
  if (empty.length > 0) return noFilters(empty);
  const catalog = await Catalog.open(trust);
  const units = await catalog.units(filters);
  catalog.dispose();
  return units.flatMap(rowsOf);
}

function rowsOf(unit: PackageUnit): Row[] {
  const { origin } = unit.source;
  if (unit.next === undefined) {
    const errors = unit.problems.length > 0 ? unit.problems : [problem("cannot be read")];
    return [{ package: unit.name, kind: "", name: "", origin, group: "", state: "failed", errors }];
  }
  return unit.next.infos.map(({ package: id, kind, name }) => {
    return { package: id, kind, name, origin, group: unit.next!.group, state: "ready" };
  });
}

/** Asks a running proxy through its admin address. A string: the reason why it could not be asked. */
async function rowsOfProxy(url: string): Promise<Row[] | string> {
  const base = url.includes("://") ? url : `http://${url}`;
  try {
    const answer = await fetch(new URL("/filters?format=json", base), {
      signal: AbortSignal.timeout(5_000),
    });
    if (!answer.ok) throw new Error(`it answered ${answer.status}`);
    return ((await answer.json()) as { filters: Row[] }).filters;
  } catch (error) {
    const { message, cause } = error as Error;
    return `no tsproxy admin at ${url}: ${cause instanceof Error ? cause.message : message}`;
  }
}

function table(rows: readonly Row[]): string {
  const width = Math.max(0, ...rows.map((row) => row.package.length));
  return rows
    .map((row) => {
      const place =
        row.origin === "shipped"
          ? "shipped"
          : row.group === "builtin"
            ? "dropped-in, trusted"
            : "dropped-in, sandbox";
      const generation = row.generation === undefined ? "" : `  generation ${row.generation}`;
      const line = `${row.package.padEnd(width)}  ${row.state.padEnd(6)}  ${place}${generation}\n`;
      return [line, ...(row.errors ?? []).map(indented)].join("");
    })
    .join("");
}

function indented(error: NonNullable<Row["errors"]>[number]): string {
  const text = formatProblem({ ...problem(error.message), ...error, file: error.file ?? "" });
  return text
    .split("\n")
    .map((line) => `    ${line}\n`)
    .join("");
}
