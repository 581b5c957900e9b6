import { existsSync } from "node:fs";
import path from "node:path";
import type { LuaModule, LuaSource, ScriptPlace } from "@tsproxy/sdk";
import { readDataSource } from "./data-source.ts";
import type { Report } from "./diagnostic.ts";
import type { Node } from "./document.ts";
import type { NamedFiles } from "./named-files.ts";
import { runsOf } from "./script-runs.ts";

/** Limit on the modules of one script. */
const MODULES_MAX = 256;
const REQUIRE = /\brequire\s*\(?\s*(["'])([\w./-]+)\1/g;

/**
 * Reads a Lua script and the modules that it, or one of them, names in a `require`. Scripts run where there are no files, so
 * modules are read now, as Envoy reads them when it loads the script. A missing one is no error: the script may never require it.
 * Undefined: an error has been reported.
 */
export function readLuaSource(node: Node, report: Report): LuaSource | undefined {
  const text =
    node.kind === "map"
      ? readDataSource(node, report)
      : node.kind === "scalar" && typeof node.value === "string"
        ? node.value
        : undefined;
  if (text === undefined) {
    if (node.kind !== "map") report.error(node.place, "a Lua script belongs here");
    return undefined;
  }
  const { file } = report.diagnostic(node.place, "");
  const place = placeOf(node, report);
  const folders = [...new Set([path.dirname(path.resolve(file)), process.cwd()])];
  const modules: Record<string, LuaModule> = {};
  gather(text, folders, modules, report.files);
  return { text, modules, ...(place && { place }) };
}

/** Where the script's first line stands. Undefined: lines of the script are not consecutive lines of a file. */
function placeOf(node: Node, report: Report): ScriptPlace | undefined {
  if (node.kind === "map") {
    const named = node.get("filename");
    if (named?.kind === "scalar") return { file: path.resolve(String(named.value)), line: 1 };
    const inline = node.get("inline_string");
    return inline && placeOf(inline, report);
  }
  if (node.kind !== "scalar") return undefined;
  const { file } = report.diagnostic(node.place, "");
  const [first, ...others] = runsOf(String(node.value), report.text, node.place.offset).map(
    ({ row, offset }) => report.diagnostic({ offset, path: "" }, "").line - row,
  );
  const isInStep = first !== undefined && others.every((line) => line === first);
  return isInStep ? { file, line: first } : undefined;
}

function gather(
  text: string,
  folders: readonly string[],
  found: Record<string, LuaModule>,
  files: NamedFiles,
): void {
  for (const [, , name] of text.matchAll(REQUIRE)) {
    if (Object.hasOwn(found, name!) || Object.keys(found).length >= MODULES_MAX) continue;
    const module = read(name!, folders, files);
    if (module === undefined) continue;
    found[name!] = module;
    gather(module.text, folders, found, files);
  }
}

/**
 * Reads a module by Lua's path, `./?.lua` and `./?/init.lua`, from the first folder that has it. A name cannot lead out of the
 * folder: its dots become slashes.
 */
function read(name: string, folders: readonly string[], files: NamedFiles): LuaModule | undefined {
  const inFolder = name.replaceAll(".", "/");
  for (const folder of folders) {
    for (const file of [`./${inFolder}.lua`, `./${inFolder}/init.lua`]) {
      try {
        const where = path.join(folder, file);
        if (!existsSync(where)) continue;
        return { text: files.read(where).toString(), file, place: { file: where, line: 1 } };
      } catch {
        // It is not there: try the next place.
      }
    }
  }
  return undefined;
}
