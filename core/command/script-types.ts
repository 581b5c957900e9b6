import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { type ExtensionRef, placeIn, runIndex, type ScriptSource } from "@tsproxy/sdk";
import type { TypeProblem } from "./typescript.ts";

/** A script of a config, and the package that runs it. */
export interface FoundScript {
  readonly package: string;
  readonly source: ScriptSource;
  /** The hook whose body it is. Undefined: it is a whole script. */
  readonly hook: string | undefined;
}

/** Every script in a config that has been loaded. */
export function scriptsIn(config: unknown): FoundScript[] {
  const found: FoundScript[] = [];
  const walk = (value: unknown, owner: string, key: string): void => {
    if (typeof value !== "object" || value === null) return;
    if (isScript(value)) {
      const hook = /^on[A-Z]/.test(key) ? key : undefined;
      found.push({ package: owner, source: value, hook });
      return;
    }
    const { package: name } = value as Partial<ExtensionRef>;
    const inside = typeof name === "string" ? name : owner;
    for (const [field, part] of Object.entries(value)) walk(part, inside, field);
  };
  walk(config, "", "");
  return found;
}

function isScript(value: object): value is ScriptSource {
  const { code, file, line, indent } = value as Partial<ScriptSource>;
  return (
    typeof code === "string" &&
    typeof file === "string" &&
    typeof line === "number" &&
    typeof indent === "number"
  );
}

/** Declarations of the globals that scripts of the package in that folder can use, for the type check. */
export function globalNames(folder: string): string {
  const isSource = existsSync(path.join(folder, "names.ts"));
  const text = readFileSync(path.join(folder, isSource ? "names.ts" : "names.d.ts"), "utf8");
  const module = path.join(folder, isSource ? "names.ts" : "names.js");
  const own = /interface ScriptNames \{([\s\S]*?)\n\}/.exec(text)?.[1] ?? "";
  const names = [...own.matchAll(/^ {2,4}readonly (\w+):/gm)].map(([, name]) => name);
  return `import type { ScriptNames, ScriptHooks as Hooks } from ${JSON.stringify(module)};
declare global {
${names.map((name) => `  const ${name}: ScriptNames["${name}"];`).join("\n")}
  interface ScriptHooks extends Hooks {}
}
`;
}

/** A script as a file that tsc can check. Its lines are one further down than in the script. */
export class ScriptFile {
  readonly script: FoundScript;
  readonly text: string;
  /** The types that were inserted: line and column in the script, from 0, and number of chars. */
  readonly #added: { readonly line: number; readonly column: number; readonly size: number }[] = [];

  constructor(script: FoundScript) {
    this.script = script;
    const { hook } = script;
    const lines = writtenLines(script.source);
    this.text =
      hook === undefined
        ? `export {};\n${lines.map((line, k) => this.#typed(line, k)).join("\n")}\n`
        : `${opening(hook)}\n${lines.join("\n")}\n}}\nexport {};\n`;
  }

  /** Types the parameters of a hook (`function onRequest(req, stream)`) as the runtime calls it. */
  #typed(line: string, at: number): string {
    const match = /\bfunction\s+(on[A-Z]\w*)\s*\(([^()]*)\)/.exec(line);
    if (match === null) return line;
    const [whole, hook, list] = match;
    let column = match.index + whole!.indexOf("(") + 1;
    const typed = list!.split(",").map((parameter, k) => {
      const bare = /^\s*[\w$]+\s*$/.test(parameter);
      column += parameter.length + 1;
      if (!bare) return parameter;
      const type = `: Parameters<ScriptHooks["${hook}"]>[${k}]`;
      this.#added.push({ line: at, column: column - 1, size: type.length });
      return parameter + type;
    });
    const from = match.index + whole!.indexOf("(") + 1;
    return line.slice(0, from) + typed.join(",") + line.slice(from + list!.length);
  }

  /** The place of a type problem in the user's file. */
  place({ line, column }: TypeProblem): { file: string; line: number; column: number } {
    const row = Math.max(0, line - 2);
    let at = column - 1;
    for (const { line: added, column: after, size } of this.#added)
      if (added === row && at > after) at = Math.max(after, at - size);
    const { source } = this.script;
    return { file: source.file, ...placeIn(source, row, at) };
  }
}

/** The head of the function around a hook's body; its type has tsc check what the body returns, too. */
function opening(hook: string): string {
  const parameters = HOOK_PARAMETERS[hook] ?? "...args";
  const typed = parameters
    .split(", ")
    .map((name, k) => `${name}: Parameters<ScriptHooks["${hook}"]>[${k}]`);
  return `async function ${hook}(${typed.join(", ")}): Promise<Awaited<ReturnType<ScriptHooks["${hook}"]>>> {{`;
}

const HOOK_PARAMETERS: Readonly<Record<string, string>> = {
  onRequest: "req, stream",
  onResponse: "res, req, stream",
  onConnect: "conn",
  onData: "data, conn, end",
  onWrite: "data, conn, end",
  onClose: "conn, event",
};

/** The script's lines as the user has written them: in `code`, types have been replaced by spaces. */
function writtenLines(source: ScriptSource): string[] {
  const lines = source.code.split("\n");
  let text: string[];
  try {
    text = readFileSync(path.resolve(source.file), "utf8").split("\n");
  } catch {
    return lines;
  }
  return lines.map((known, row) =>
    known.replace(/ /g, (_, column: number) => written(source, row, column, text)),
  );
}

/** The character that stands in the file for a space of the code. */
function written(
  source: ScriptSource,
  row: number,
  column: number,
  text: readonly string[],
): string {
  const { runs } = source;
  if (runs !== undefined) {
    const [inRow, from, size] = runs[runIndex(runs, row, column)] ?? [-1, 0, 0];
    if (inRow !== row || column < from || column >= from + size) return " ";
  }
  const place = placeIn(source, row, column);
  const line = text[place.line - 1] ?? "";
  const at = place.column - 1;
  const isEscape = runs !== undefined && line[at] === "\\";
  const found = line[isEscape ? at + 1 : at] ?? " ";
  return /\s/.test(found) ? " " : found;
}
