import * as nodeModule from "node:module";
import path from "node:path";
import type { ScriptSource } from "@tsproxy/sdk";
import type { Report } from "./diagnostic.ts";
import type { Node } from "./document.ts";

type Form = "module" | "body" | "file";

/** Put around the statements of a `body` while they are parsed, since they belong in a function. */
const OPEN = "async function _(){";
const CLOSE = "\n}";

/**
 * Reads a script in the config as JavaScript in which every character stands where it stood. Undefined: an error has been
 * reported.
 */
export function readScript(node: Node, form: Form, report: Report): ScriptSource | undefined {
  if (node.kind !== "scalar" || typeof node.value !== "string") {
    report.error(node.place, "a script belongs here: text in TypeScript or JavaScript");
    return undefined;
  }
  const { file, line, column } = report.diagnostic(node.place, "");
  if (form === "file") return fromFile(node.value, path.dirname(file), node, report);
  const { from, ...at } = contentOf(report.text, node.place.offset, line, column);
  return compile(node.value, { file, ...at }, form, (message, row, col) => {
    const offset = offsetOf(report.text, from, row) + at.indent + col;
    report.error({ offset, path: node.place.path }, message);
  });
}

function fromFile(
  name: string,
  folder: string,
  node: Node,
  report: Report,
): ScriptSource | undefined {
  const file = path.resolve(folder, name);
  let text: string;
  try {
    text = report.files.read(file).toString();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    report.error(node.place, `cannot read "${name}": ${code}`);
    return undefined;
  }
  return compile(text, { file, line: 1, indent: 0 }, "module", (message, row, col) =>
    report.error(node.place, `${name}:${row + 1}:${col + 1}: ${message}`),
  );
}

type Place = Omit<ScriptSource, "code">;

/** Turns a script into JavaScript. `onError` gets line and column within the text, counted from 0. */
function compile(
  text: string,
  place: Place,
  form: Form,
  onError: (message: string, row: number, column: number) => void,
): ScriptSource | undefined {
  const open = form === "body" ? OPEN : "";
  const close = form === "body" ? CLOSE : "";
  try {
    const code = withoutTypes(`${open}${text}${close}`).slice(open.length);
    const body = code.slice(0, code.length - close.length);
    return { ...place, code: form === "body" ? body : withoutExports(body) };
  } catch (error) {
    const { message, row, column } = problemOf(error);
    onError(message, row, Math.max(0, row === 0 ? column - open.length : column));
    return undefined;
  }
}

/** Replaces `export` by spaces: a script is no module, and exports what it names. */
function withoutExports(code: string): string {
  return code.replace(/^export (?=(?:async )?(?:function|const|let|class)\b)/gm, (word) =>
    " ".repeat(word.length),
  );
}

/** Replaces types by spaces. TypeScript that needs more than that (enum, parameter properties) throws an error that says so. */
function withoutTypes(text: string): string {
  const { stripTypeScriptTypes } = nodeModule as {
    stripTypeScriptTypes?: (code: string) => string;
  };
  if (stripTypeScriptTypes === undefined) throw new Error("scripts need Node 22.13 or newer");
  const { emitWarning } = process;
  // Silences Node's warning that this function is experimental.
  process.emitWarning = () => {};
  try {
    return stripTypeScriptTypes(text);
  } finally {
    process.emitWarning = emitWarning;
  }
}

/** Reads the place from Node's error, which has a line `file:3` and a caret below the text. */
function problemOf(error: unknown): { message: string; row: number; column: number } {
  const { message, stack = "" } = error as Error;
  const said = `${stack}\n${message}`;
  const row = /^(?:[^\n]*?):(\d+)\n/.exec(said)?.[1];
  const caret = /^( *)\^/m.exec(said)?.[1];
  const text = message.split("\n").find((line) => line.trim() !== "") ?? "cannot be parsed";
  return {
    message: text.trim().replace(/^x\s+/, ""),
    row: row === undefined ? 0 : Number(row) - 1,
    column: caret?.length ?? 0,
  };
}

/** Where the characters of a scalar begin: in a block scalar on the next line, behind its indentation. */
export function contentOf(
  text: string,
  offset: number,
  line: number,
  column: number,
): Pick<Place, "line" | "indent"> & { readonly from: number } {
  const first = text[offset];
  if (first !== "|" && first !== ">") {
    const indent = column - 1 + (first === '"' || first === "'" ? 1 : 0);
    return { line, indent, from: offset - column + 1 };
  }
  let at = text.indexOf("\n", offset) + 1;
  const begin = at;
  while (at > 0 && /^[ \t]*\r?\n/.test(text.slice(at, at + 200))) at = text.indexOf("\n", at) + 1;
  const indent = /^ */.exec(text.slice(at || begin, (at || begin) + 200))![0].length;
  return { line: line + 1, indent, from: begin };
}

/** The offset of the line that is `row` lines below the one that begins at `from`. */
function offsetOf(text: string, from: number, row: number): number {
  let at = from;
  for (let k = 0; k < row; k++) at = text.indexOf("\n", at) + 1;
  return at;
}
