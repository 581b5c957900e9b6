import path from "node:path";
import { type Diagnostic, formatDiagnostic } from "./config/diagnostic.ts";

/** What is wrong in a config or in code, at which place, with the lines around it. */
export interface Problem extends Diagnostic {
  /** The lines around it; "" if there are none to show. */
  readonly frame: string;
}

/** A problem without a place. */
export function problem(message: string): Problem {
  return { file: "", line: 0, column: 0, path: "", message, frame: "" };
}

/** One line with place and message, and the frame below it if there is one. */
export function formatProblem(found: Problem): string {
  const line = found.file === "" ? found.message : formatDiagnostic(found);
  return found.frame === "" ? line : `${line}\n${found.frame}`;
}

/** The line, one before and one after, and a mark under the column. "" if the text has no such line. */
export function codeFrame(text: string, line: number, column: number, length = 1): string {
  const lines = text.split("\n");
  if (line < 1 || line > lines.length) return "";
  const width = String(line + 1).length;
  const rows: string[] = [];
  for (let n = Math.max(1, line - 1); n <= Math.min(lines.length, line + 1); n++) {
    const shown = lines[n - 1]!.slice(0, 160);
    rows.push(`${n === line ? ">" : " "} ${String(n).padStart(width)} | ${shown}`.trimEnd());
    if (n === line && column <= shown.length + 1)
      rows.push(`  ${" ".repeat(width)} | ${" ".repeat(column - 1)}${"^".repeat(length)}`);
  }
  return rows.join("\n");
}

/** The path relative to the working directory if it lies inside that; else as it is. */
export function shortPath(file: string): string {
  const relative = path.relative(process.cwd(), file);
  return relative.startsWith("..") || path.isAbsolute(relative) ? file : relative || ".";
}

/** The message of a command that finds no dropped-in filter in these directories. */
export function noFilters(directories: readonly string[]): string {
  const where = directories.map(shortPath).join(", ") || "filters/";
  return `no filters in ${where}; write one: tsproxy filter new hello`;
}

/** Prints why a command cannot do what it was asked to, as text or as JSON. Answers the exit code. */
export function refuse(error: string, json: boolean): 1 {
  if (json) process.stdout.write(`${JSON.stringify({ error })}\n`);
  else process.stderr.write(`${error}\n`);
  return 1;
}
