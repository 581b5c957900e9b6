import { readFileSync } from "node:fs";
import { codeFrame, type Problem, problem, shortPath } from "../problem.ts";
import type { Bundle } from "./bundle.ts";

/**
 * The problem of a member of a definition, at the line of the source that names it. `path`: the names that lead to the member, from one
 * of the definition's own on. V8 does not say where members of objects stand, so they are searched for.
 */
export function problemOfMember(
  message: string,
  path: readonly string[],
  { code, sources }: Bundle,
): Problem | undefined {
  const found = find(code, path);
  const place = found && sources.find(found.line, found.column);
  return found && place && placed(message, place, found.length);
}

/**
 * As `problemOfMember`, of what a module exports as its default. Without one, or where it does not show, the problem is that of the
 * module's first file, `entry`.
 */
export function problemOfDefinition(
  message: string,
  path: readonly string[],
  { code, sources }: Bundle,
  entry: string,
): Problem {
  const [, name] = /([\w$]+) as default\b/.exec(code.slice(code.lastIndexOf("export {"))) ?? [];
  const whole = name === undefined ? undefined : find(code, [name]);
  if (whole !== undefined) {
    const found = find(code, [name!, ...path])!;
    const place = sources.find(found.line, found.column);
    const isMember = found.line !== whole.line || found.column !== whole.column;
    if (place !== undefined)
      return placed(message, place, isMember ? found.length : "default".length);
  }
  // A file of comments alone is no source of its own bundle, and of a link the bundle knows where it leads.
  const text = sources.contents().get(entry) ?? "";
  return placed(message, { file: entry, line: 1, column: 1, text }, 1);
}

/** As `problemOfMember`, of a file that is not bundled. */
export function problemInFile(message: string, path: readonly string[], file: string): Problem {
  const text = readFileSync(file, "utf8");
  const found = find(text, path) ?? { line: 1, column: 1, length: 0 };
  return placed(message, { ...found, file, text }, found.length);
}

function placed(
  message: string,
  { file, line, column, text }: NonNullable<ReturnType<Bundle["sources"]["find"]>>,
  length: number,
): Problem {
  const frame = codeFrame(text, line, column, length);
  return { ...problem(message), file: shortPath(file), line, column, frame };
}

/** Each name is looked for behind the one before it. One that is written nowhere ends the search: the name before it is the answer. */
function find(
  code: string,
  path: readonly string[],
): { readonly line: number; readonly column: number; readonly length: number } | undefined {
  let at = -1;
  let length = 0;
  for (const name of path) {
    const next = indexOfMember(code, name, Math.max(0, at));
    // The value of the one before it is a variable that stands further up.
    const found = next < 0 ? indexOfMember(code, name, 0) : next;
    if (found < 0) break;
    at = found;
    length = name.length;
  }
  if (at < 0) return undefined;
  const lines = code.slice(0, at).split("\n");
  return { line: lines.length, column: lines.at(-1)!.length + 1, length };
}

/** Where `name:`, `"name":` or a variable `name =` is written, from `from` on; -1: nowhere. */
function indexOfMember(code: string, name: string, from: number): number {
  const word = name.replace(/[^\w]/g, "\\$&");
  const member = new RegExp(`(?<![\\w$.])["']?${word}["']?\\s*[:=]`, "g");
  member.lastIndex = from;
  return member.exec(code)?.index ?? -1;
}
