import { existsSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { didYouMean } from "../config/diagnostic.ts";
import { type Loaded, loadConfig } from "../config/load.ts";
import { fileError } from "../file-error.ts";
import { HOOK_NAMES } from "../inside/sandbox/layout.ts";
import { Catalog } from "../packages/catalog.ts";
import { readBundle } from "../packages/package-bundle.ts";
import type { Built, PackageUnit } from "../packages/package-unit.ts";
import { formatProblem, refuse, shortPath } from "../problem.ts";
import type { PackageInfo } from "../protocol.ts";
import { sampleOf } from "./dev-chain.ts";

export interface FilterInfoOptions {
  readonly name: string;
  readonly filters: readonly string[];
  readonly trust: readonly string[];
  /** Configs to search for uses of the filter. */
  readonly configs: readonly string[];
  readonly json: boolean;
}

export interface FilterInfo {
  readonly package: string;
  readonly name: string;
  readonly kind: string;
  readonly version: string;
  readonly origin: "shipped" | "dropped-in";
  readonly placement: "builtin" | "sandbox";
  readonly folder: string;
  readonly aliases: readonly string[];
  readonly types: readonly string[];
  readonly hash: string;
  readonly bytes: number;
  /** Hooks that its code names. */
  readonly hooks: readonly string[];
  readonly stats: readonly { readonly kind: string; readonly name: string }[];
  readonly schema: unknown;
  readonly routeSchema: unknown;
  readonly uses: readonly { readonly file: string; readonly line: number; readonly path: string }[];
}

/** Prints what is known of a package, from its code and from configs. Answers the exit code. */
export async function filterInfo(options: FilterInfoOptions): Promise<number> {
  const { name, json } = options;
  const catalog = await Catalog.open(options.trust);
  const units = await catalog.units(options.filters);
  catalog.dispose();
  const found = find(units, name);
  if (found === undefined) {
    const broken = units.find((unit) => unit.broken?.names.includes(name));
    if (broken?.problems[0] !== undefined) return refuse(formatProblem(broken.problems[0]), json);
    const names = units
      .flatMap((unit) => unit.next?.infos ?? [])
      .flatMap((i) => [i.package, i.name]);
    const help = didYouMean(name, names) ?? "tsproxy filter list tells what there is";
    return refuse(`no filter "${name}"; ${help}`, json);
  }
  const infos = units.flatMap((unit) => unit.next?.infos ?? []);
  const uses = [];
  for (const file of options.configs) {
    const text = await readFile(file, "utf8").catch((error: Error) => error);
    if (typeof text !== "string")
      return refuse(`${file}: cannot be read: ${fileError(text)}`, json);
    const broken = units.flatMap((unit) => unit.broken ?? []);
    const loaded = loadConfig({ file, text }, infos, { strict: false, broken });
    if (loaded.ok) uses.push(...usesIn(loaded, found.info.package));
    else
      for (const error of loaded.errors)
        process.stderr.write(`${formatProblem({ ...error, frame: "" })}\n`);
  }
  const told = infoOf(found.unit, found.info, found.built, uses);
  process.stdout.write(json ? `${JSON.stringify(told)}\n` : shown(told));
  return 0;
}

/** Finds a package by `kind/name`, name, alias or folder name. Undefined: there is none that could be built. */
export function find(units: readonly PackageUnit[], name: string) {
  const all = units.flatMap((unit) => {
    const built = unit.next;
    return (built?.infos ?? []).map((info) => ({ unit, info, built: built! }));
  });
  // A dropped-in package takes precedence over a shipped one of the same name, as in configs.
  const inOrder = [...all].sort((a, b) => a.info.origin.localeCompare(b.info.origin));
  return (
    inOrder.find(({ info }) => info.package === name) ??
    inOrder.find(({ info }) => info.name === name || info.aliases.includes(name)) ??
    inOrder.find(
      ({ info, unit }) =>
        info.package.split("/")[1] === name || path.basename(unit.source.id) === name,
    )
  );
}

function infoOf(
  unit: PackageUnit,
  info: PackageInfo,
  { bundle, group }: Built,
  uses: FilterInfo["uses"],
): FilterInfo {
  return {
    package: info.package,
    name: info.name,
    kind: info.kind,
    version: versionOf(unit),
    origin: info.origin,
    placement: group === "builtin" ? "builtin" : "sandbox",
    folder: shortPath(unit.source.id === unit.source.entry ? unit.source.entry : info.folder),
    aliases: info.aliases,
    types: info.types,
    hash: bundle.hash,
    bytes: bundle.code.length,
    hooks: hooksIn(info.kind, bundle.code),
    stats: statsIn(bundle.code),
    schema: info.schema,
    routeSchema: info.routeSchema,
    uses,
  };
}

/** The package's version; "": it has none. */
export function versionOf({ source }: PackageUnit): string {
  if (source.id === source.entry) return readBundle(source.entry)?.version ?? "";
  const manifest = path.join(source.folder, "package.json");
  if (!existsSync(manifest)) return "";
  const { version } = JSON.parse(readFileSync(manifest, "utf8")) as { version?: unknown };
  return typeof version === "string" ? version : "";
}

const OTHER_HOOKS: Readonly<Record<string, readonly string[]>> = {
  listener: ["onBytes", "onAbandoned"],
  access_log: ["log"],
  balancer: ["create", "choose", "compose"],
  service: ["listener", "clusters"],
};

/** Names of the hooks of this kind that the code mentions. */
export function hooksIn(kind: string, code: string): string[] {
  const names = OTHER_HOOKS[kind] ?? [...HOOK_NAMES].map(([name]) => name);
  return names.filter((name) => new RegExp(`\\b${name}\\b\\s*[(:,]`).test(code));
}

/** Stats whose names stand in the code as literals; `…` stands for parts that are inserted at run time. */
function statsIn(code: string): { kind: string; name: string }[] {
  const found = new Map<string, { kind: string; name: string }>();
  const call = /\.(counter|gauge|histogram)\(\s*(?:"([^"]*)"|'([^']*)'|`([^`]*)`)/g;
  for (const [, kind, ...forms] of code.matchAll(call)) {
    const name = forms.find((form) => form !== undefined)!.replace(/\$\{[^}]*\}/g, "…");
    found.set(`${kind} ${name}`, { kind: kind!, name });
  }
  return [...found.values()].sort((a, b) => a.name.localeCompare(b.name));
}

/** Places in a config that use the package, with the user's lines. */
function usesIn(loaded: Loaded & { ok: true }, name: string): FilterInfo["uses"] {
  const found: { file: string; line: number; path: string }[] = [];
  const walk = (value: unknown, place: string): void => {
    if (typeof value !== "object" || value === null) return;
    if ((value as { package?: unknown }).package === name) {
      const at = loaded.source.diagnostic({ package: name, message: "", path: "", place });
      found.push({ file: at.file, line: at.line, path: at.path });
    }
    for (const [key, part] of Object.entries(value))
      walk(part, `${place}/${key.replaceAll("~", "~0").replaceAll("/", "~1")}`);
  };
  walk(loaded.config, "");
  return found;
}

interface Schema {
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly extension?: string;
  readonly duration?: boolean;
}

function shown(info: FilterInfo): string {
  const version = info.version === "" ? "" : ` ${info.version}`;
  const place = info.placement === "builtin" ? "among the shipped ones" : "in a sandbox of its own";
  const rows: [string, string][] = [
    ["kind", `${info.kind}, ${info.origin}, ${place}`],
    ["at", info.folder],
    ["code", `${(info.bytes / 1024).toFixed(1)} KiB, ${info.hash}`],
    ["hooks", info.hooks.join(", ") || "none"],
    ["stats", info.stats.map(({ name }) => name).join(", ") || "none"],
  ];
  if (info.types.length > 0) rows.push(["types", info.types.join(", ")]);
  if (info.aliases.length > 0) rows.push(["also", info.aliases.join(", ")]);
  const lines = rows.map(([label, text]) => `  ${label.padEnd(6)} ${text}`);
  const config = fieldLines(info.schema as Schema, "    ");
  lines.push(`  config ${config.length === 0 ? "takes nothing" : ""}`.trimEnd(), ...config);
  if (info.routeSchema !== undefined)
    lines.push("  per route", ...fieldLines(info.routeSchema as Schema, "    "));
  if (info.uses.length > 0)
    lines.push(
      "  used at",
      ...info.uses.map(({ file, line, path: at }) => `    ${file}:${line}  ${at}`),
    );
  else if (info.kind === "service")
    lines.push("  used   as long as it is there; no config names it");
  else {
    const sample = JSON.stringify(sampleOf(info.schema));
    lines.push(
      `  as     - name: ${info.origin === "shipped" ? info.package : info.name}`,
      `           config: ${sample}`,
    );
  }
  return `${info.package}${version}${info.name === info.package.split("/")[1] ? "" : `  (${info.name})`}\n${lines.join("\n")}\n`;
}

/** One line for each field of a schema, with its type and default; nested fields down to two levels below. */
function fieldLines(schema: Schema, indent: string, depth = 0): string[] {
  const { properties = {}, required = [] } = schema;
  return Object.entries(properties).flatMap(([name, field]) => {
    const isWanted = required.includes(name) && field.default === undefined;
    const value = field.default === undefined ? "" : ` = ${JSON.stringify(field.default)}`;
    const said = field.description === undefined ? "" : `  ${field.description}`;
    const line = `${indent}${name}${isWanted ? "" : "?"}: ${typeName(field)}${value}${said}`;
    const inner = field.type === "array" ? field.items : field;
    return depth < 2 && inner?.properties !== undefined
      ? [line, ...fieldLines(inner, `${indent}  `, depth + 1)]
      : [line];
  });
}

function typeName(schema: Schema): string {
  if (schema.duration) return "duration";
  if (schema.extension !== undefined) return `a ${schema.extension}`;
  if (schema.enum !== undefined) return schema.enum.map(String).join(" | ");
  if (schema.anyOf !== undefined) return schema.anyOf.map(typeName).join(" | ");
  if (schema.type === "array") return `list of ${typeName(schema.items ?? {})}`;
  return schema.type ?? "any";
}
