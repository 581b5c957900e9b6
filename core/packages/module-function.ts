/** A bundled module as a script, whose value is a function of the SDK's exports that answers the module's own. */
export interface ModuleFunction {
  /** Its first line comes before the module's own, whose lines and columns stay as they are. */
  readonly code: string;
  /** The same without its strict mode, for a strict script that holds it. */
  readonly expression: string;
  /** Names of the module's exports. */
  readonly exports: readonly string[];
}

/** Statements as esbuild writes them: at the beginnings of lines, or, without white space, anywhere. */
const IMPORT = /(?<=^|[\n;}])import ?\{([\w$\s,]*)\} ?from ?"@tsproxy\/sdk";\n?/g;
const EXPORT = /(?<=^|[\n;}])export ?\{([\w$\s,]*)\};/g;
const OTHER = /(?<=^|[\n;}])(?:import|export)[ "*{]/;

/**
 * Makes that script, since V8 takes compiled code (compiled-code.ts) of scripts only. It knows the two statements that esbuild writes
 * for a bundle that imports nothing but the SDK. Undefined: the module has others.
 */
export function moduleFunction(code: string): ModuleFunction | undefined {
  const imported: string[] = [];
  const exported: (readonly [name: string, own: string])[] = [];
  const body = code
    .replace(IMPORT, (statement, names: string) => {
      imported.push(...namesOf(names).map(([from, own]) => `${from}: ${own}`));
      return blank(statement);
    })
    .replace(EXPORT, (statement, names: string) => {
      exported.push(...namesOf(names).map(([own, name]) => [name, own] as const));
      return blank(statement);
    });
  if (OTHER.test(body)) return undefined;
  const object = exported.map(([name, own]) => `${name}: ${own}`).join(", ");
  const sdk = imported.join(", ");
  const expression = `((${sdk && `{ ${sdk} }`}) => {\n${body}\nreturn { __proto__: null, ${object} }; })`;
  return {
    code: `"use strict"; ${expression}`,
    expression,
    exports: exported.map(([name]) => name),
  };
}

/** `a, b as c` -> [["a", "a"], ["b", "c"]] */
function namesOf(list: string): [string, string][] {
  const names = list.split(",").map((name) => name.trim().split(/\s+as\s+/));
  return names.filter(([name]) => name !== "").map(([name, as = name]) => [name!, as!]);
}

/** Nothing, as many lines long; what follows on the last one stays in its column. */
function blank(statement: string): string {
  const lines = statement.split("\n");
  return "\n".repeat(lines.length - 1) + " ".repeat(lines.at(-1)!.length);
}
