import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { didYouMean } from "../config/diagnostic.ts";
import { isPacked, ROOT } from "../own-files.ts";
import { shortPath } from "../problem.ts";
import { filesOf, NEW_FILTER_KINDS, type NewFilterKind } from "./filter-templates.ts";

export interface NewFilterOptions {
  readonly name: string;
  /** One of NEW_FILTER_KINDS; anything else is refused. */
  readonly kind: string;
  /** The directory with the packages. */
  readonly dir: string;
  readonly json: boolean;
}

/** Writes a new package that works as it is: a small filter, its config, its test. Answers the exit code. */
export async function filterNew(options: NewFilterOptions): Promise<number> {
  const { name, dir, json } = options;
  const refuse = (error: string): number => {
    const { kind } = options;
    if (json) process.stdout.write(`${JSON.stringify({ name, kind, written: [], error })}\n`);
    else process.stderr.write(`${error}\n`);
    return 1;
  };
  const kind = NEW_FILTER_KINDS.find((each) => each === options.kind);
  if (kind === undefined) {
    const { kind: said } = options;
    const help =
      didYouMean(said, NEW_FILTER_KINDS) ?? `write one of ${NEW_FILTER_KINDS.join(", ")}`;
    return refuse(`--kind "${said}": there is no template of that kind; ${help}`);
  }
  if (!/^[a-z][a-z0-9_]*$/.test(name)) {
    const better = name
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, "_")
      .replace(/^[^a-z]+/, "");
    const hint = better === "" ? "" : `, say "${better}"`;
    return refuse(`"${name}" is no name for a filter: write small letters, digits and _${hint}`);
  }
  const folder = path.resolve(dir, name);
  if (existsSync(folder))
    return refuse(`${shortPath(folder)} is there already; choose another name`);
  await mkdir(folder, { recursive: true });
  for (const [file, text] of Object.entries(filesOf(name, kind)))
    await writeFile(path.join(folder, file), text);
  const editor = [await writeTsconfig(dir), await writeLaunch(dir)];
  const written = [folder, ...editor].filter((file) => file !== undefined).map(shortPath);
  if (json) {
    process.stdout.write(`${JSON.stringify({ name, kind, written })}\n`);
    return 0;
  }
  const last = written.pop()!;
  process.stdout.write(
    `wrote ${written.length > 0 ? `${written.join(", ")} and ` : ""}${last}\n${nextSteps(name, kind, folder)}`,
  );
  return 0;
}

/**
 * Writes a tsconfig.json for tsc and the editor: filters import the SDK that came with this proxy, and have no Node. It goes
 * beside the directory of packages, or into it if there is a tsconfig.json of another kind beside it. Undefined: none was
 * written.
 */
async function writeTsconfig(dir: string): Promise<string | undefined> {
  const above = path.dirname(path.resolve(dir));
  const places = [
    { at: above, include: path.basename(path.resolve(dir)) },
    { at: path.resolve(dir), include: "." },
  ];
  for (const { at, include } of places) {
    const file = path.join(at, "tsconfig.json");
    const found = await readFile(file, "utf8").catch(() => undefined);
    if (found !== undefined && isOurs(found)) return undefined;
    if (found !== undefined) continue;
    const config = { extends: kit(at), include: [include] };
    await writeFile(file, `${JSON.stringify(config, undefined, 2)}\n`);
    return file;
  }
  return undefined;
}

const KIT = isPacked ? "dist/tsconfig.json" : "core/tsconfig.filters.json";

function isOurs(tsconfig: string): boolean {
  return tsconfig.includes("tsproxy/tsconfig.json") || tsconfig.includes(KIT);
}

/**
 * What the tsconfig.json extends: a package name where the proxy is installed, which stays right when that moves; else a path.
 */
function kit(from: string): string {
  if (!isPacked) return path.join(ROOT, KIT);
  try {
    createRequire(path.join(from, "any.js")).resolve("tsproxy/tsconfig.json");
    return "tsproxy/tsconfig.json";
  } catch {
    return path.join(ROOT, KIT);
  }
}

/** Writes the launch.json by which F5 in VS Code attaches to `tsproxy filter dev --inspect`. Undefined: there is one already. */
async function writeLaunch(dir: string): Promise<string | undefined> {
  const file = path.join(path.dirname(path.resolve(dir)), ".vscode", "launch.json");
  if (existsSync(file)) return undefined;
  const attach = {
    name: "tsproxy filter dev --inspect",
    type: "node",
    request: "attach",
    address: "127.0.0.1",
    port: 9230,
    restart: true,
    skipFiles: ["@tsproxy/**", "tsproxy/**"],
  };
  const launch = { version: "0.2.0", configurations: [attach] };
  await mkdir(path.dirname(file), { recursive: true });
  await writeFile(file, `${JSON.stringify(launch, undefined, 2)}\n`);
  return file;
}

/** Says, for each kind, where a config names such a filter. Undefined: no config names it. */
const PLACES: Readonly<Record<NewFilterKind, ((name: string) => string) | undefined>> = {
  http: (name) => `- name: ${name}, under http_filters`,
  network: (name) => `- name: ${name}, under filters`,
  listener: (name) => `- name: ${name}, under listener_filters`,
  access_log: (name) => `- name: ${name}, under access_log`,
  balancer: (name) =>
    `typed_extension_config: { name: ${name}, config: {} }, in a load_balancing_policy`,
  service: undefined,
};

function nextSteps(name: string, kind: NewFilterKind, folder: string): string {
  const place = PLACES[kind];
  const dir = shortPath(path.dirname(folder));
  const [option, filters] = dir === "filters" ? ["", ""] : [` --dir ${dir}`, ` --filters ${dir}`];
  const commands = [
    [`npx tsproxy filter dev${filters} ${name}`, "run it, and see what each save changes"],
    [`npx tsproxy filter test${option} ${name}`, "run its tests"],
    [`npx tsproxy filter check${filters} ${name}`, "check its types"],
  ];
  if (kind === "http")
    commands.push([
      `npx tsproxy filter bench${filters} ${name}`,
      "measure what it costs a request",
    ]);
  const width = Math.max(...commands.map(([command]) => command!.length));
  const lines = commands
    .map(([command, what]) => `  ${command!.padEnd(width)}   ${what}\n`)
    .join("");
  const use = place?.(name) ?? "nothing: a proxy that finds it runs it";
  const found =
    dir === "filters" ? "filters/ beside the config that the proxy runs" : `--filters ${dir}`;
  return `
${lines}
  in the config   ${use}
  found in        ${found}
  documentation   ${shortPath(path.join(ROOT, "sdk/docs", `${kind}.md`))}
`;
}
