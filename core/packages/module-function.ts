/** A bundled module as a script, whose value is a function of the SDK's exports that answers the module's own. */
export interface ModuleFunction {
  /** Its first line comes before the module's own, whose lines and columns stay as they are. */
  readonly code: string;
  /** Names of the module's exports. */
  readonly exports: readonly string[];
}

const IMPORT = "import {";
const FROM = '} from "@tsproxy/sdk";\n';
const EXPORT = "export {";
const EXPORT_END = "};";

/**
 * Makes that script, since V8 takes compiled code (compiled-code.ts) of scripts only. It knows the two statements that esbuild writes
 * for a bundle that imports nothing but the SDK, both at the beginnings of lines. Undefined: the module has others.
 */
export function moduleFunction(code: string): ModuleFunction | undefined {
  const imported: string[] = [];
  const parts: string[] = [];
  let from = 0;
  for (let at = nextLine(code, "import ", 0); at >= 0; at = nextLine(code, "import ", from)) {
    const end = code.indexOf(FROM, at);
    const names = code.slice(at + IMPORT.length, end);
    if (end < 0 || !code.startsWith(IMPORT, at) || /[^\w$\s,]/.test(names)) return undefined;
    imported.push(...names.split(",").map((name) => name.trim().replace(/\s+as\s+/, ": ")));
    parts.push(code.slice(from, at), names.replace(/[^\n]/g, ""), "\n");
    from = end + FROM.length;
  }
  const at = nextLine(code, "export ", from);
  const end = at < 0 ? code.length : code.indexOf(EXPORT_END, at);
  const names = at < 0 ? "" : code.slice(at + EXPORT.length, end);
  // Licences of bundled packages.
  const rest = at < 0 ? "" : code.slice(end + EXPORT_END.length);
  const isKnown = at < 0 || (code.startsWith(EXPORT, at) && end > at && !/[^\w$\s,]/.test(names));
  if (!isKnown || nextLine(rest, "export ", 0) >= 0) return undefined;
  const exported = names
    .split(",")
    .map((name) => name.trim().split(/\s+as\s+/))
    .filter(([own]) => own !== "")
    .map(([own, name = own]) => [name, own] as const);
  const object = exported.map(([name, own]) => `${name}: ${own}`).join(", ");
  const sdk = imported.filter((name) => name !== "").join(", ");
  const head = `"use strict"; ((${sdk && `{ ${sdk} }`}) => {\n`;
  const body = [...parts, code.slice(from, at < 0 ? code.length : at), rest].join("");
  return {
    code: `${head}${body}\nreturn { __proto__: null, ${object} }; })`,
    exports: exported.map(([name]) => name!),
  };
}

/** Where the next line begins that begins so; -1: there is none. */
function nextLine(code: string, start: string, from: number): number {
  if (from === 0 && code.startsWith(start)) return 0;
  const at = code.indexOf(`\n${start}`, Math.max(0, from - 1));
  return at < 0 ? -1 : at + 1;
}
