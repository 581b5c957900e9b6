import { readFile } from "node:fs/promises";
import path from "node:path";

/** One exported name. */
interface Entry {
  readonly name: string;
  readonly doc: string;
  /** As the declaration stands in the .d.ts file. */
  readonly text: string;
}

/**
 * A reference in Markdown of what the entry points of the SDK export, from the declarations that tsc has written: their
 * docstrings and their signatures, by file. `globals`: the text to show at its end, declarations of globals.
 */
export async function reference(folder: string, globals: string): Promise<string> {
  const parts = [
    "# Reference\n\nEvery name that filters and their tests import, with its docstring, and at the end the globals. Made from the declarations beside this file.\n",
  ];
  for (const [title, entry] of [
    ["@tsproxy/sdk", "index.d.ts"],
    ["@tsproxy/sdk/testing", "testing/index.d.ts"],
  ] as const) {
    parts.push(`# ${title}\n`);
    const index = await readFile(path.join(folder, entry), "utf8");
    for (const [, name] of index.matchAll(/^export \* from "\.\/([^"]+)\.ts"/gm)) {
      const file = path.join(path.dirname(entry), `${name}.d.ts`);
      const entries = entriesOf(await readFile(path.join(folder, file), "utf8"));
      if (entries.length === 0) continue;
      parts.push(`## ${path.basename(name!)}\n`);
      for (const found of entries) parts.push(shown(found));
    }
  }
  parts.push(`# Globals\n\n\`\`\`ts\n${globals.trim()}\n\`\`\`\n`);
  return parts.join("\n");
}

/** Those of `names` that the reference does not have. */
export function unlisted(text: string, names: readonly string[]): string[] {
  const listed = new Set(Array.from(text.matchAll(/^### (\w+)$/gm), ([, name]) => name));
  return names.filter((name) => !listed.has(name));
}

const EXPORT =
  /^export (?:declare )?(?:abstract )?(?:async )?(class|interface|type|function|const|let) (\w+)/;

/** The exported names of a .d.ts file: their declarations (a schema and its type have one name), with the comments before these. */
export function entriesOf(text: string): Entry[] {
  const lines = text.split("\n");
  const found = new Map<string, Entry>();
  const add = (name: string, doc: string, text: string): void => {
    const other = found.get(name);
    const joined = {
      doc: other?.doc || doc,
      text: other === undefined ? text : `${other.text}\n${text}`,
    };
    found.set(name, { name, ...joined });
  };
  let comment: string[] = [];
  for (let k = 0; k < lines.length; k++) {
    const line = lines[k]!;
    if (line.startsWith("/**")) {
      const end = lines.findIndex((other, n) => n >= k && other.includes("*/"));
      comment = lines.slice(k, end + 1);
      k = end;
      continue;
    }
    // TypeBox's, which its own documentation tells of.
    const names = /^export \{ (.+) \};$/.exec(line)?.[1] ?? "";
    for (const [, name] of names.matchAll(/(?:^|, )(?:type )?(\w+)/g))
      add(name!, docOf(comment), line);
    const match = EXPORT.exec(line);
    if (match !== null) {
      const end = endOf(lines, k);
      add(match[2]!, docOf(comment), lines.slice(k, end + 1).join("\n"));
      k = end;
    }
    comment = [];
  }
  return [...found.values()];
}

/** Index of a declaration's last line: the first that ends with `;` or `}` and leaves no bracket open. */
function endOf(lines: readonly string[], from: number): number {
  let depth = 0;
  for (let k = from; k < lines.length; k++) {
    const code = lines[k]!.replace(
      /\/\*.*?\*\/|"(?:[^"\\]|\\.)*"|\/\/.*$|^\s*\*.*$|^\s*\/\*.*$/g,
      "",
    );
    for (const char of code) {
      if ("{([".includes(char)) depth++;
      else if ("})]".includes(char)) depth--;
    }
    if (depth <= 0 && /[;}]\s*$/.test(code)) return k;
  }
  return lines.length - 1;
}

function docOf(comment: readonly string[]): string {
  return comment
    .map((line) => line.replace(/^\s*\/?\*+\/? ?/, "").replace(/\s*\*\/\s*$/, ""))
    .join("\n")
    .trim();
}

function shown({ name, doc, text }: Entry): string {
  const said = doc === "" ? "" : `${doc}\n\n`;
  const code = text.replace(/^export (?:declare )?/gm, "");
  return `### ${name}\n\n${said}\`\`\`ts\n${code}\n\`\`\`\n`;
}
