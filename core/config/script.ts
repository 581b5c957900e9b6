import * as nodeModule from "node:module";
import path from "node:path";
import vm from "node:vm";
import { runIndex, type ScriptRun, type ScriptSource } from "@tsproxy/sdk";
import { fileError } from "../file-error.ts";
import type { Report } from "./diagnostic.ts";
import type { Node } from "./document.ts";
import { runsOf } from "./script-runs.ts";

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
  const { offset } = node.place;
  const found = runsOf(node.value, report.text, offset);
  const runs = found.map(({ row, column, size, offset }): ScriptRun => {
    const at = report.diagnostic({ offset, path: "" }, "");
    return [row, column, size, at.line, at.column];
  });
  const first = runs[0];
  const isLiteral = report.text[offset] === "|" && first !== undefined;
  const place = isLiteral
    ? { file, line: first[3] - first[0], indent: first[4] - 1 - first[1] }
    : { file, line, indent: column - 1, runs };
  return compile(node.value, place, form, (message, row, col) => {
    const run = found[runIndex(runs, row, col)];
    const at = run === undefined ? offset : run.offset + Math.max(0, col - run.column);
    report.error({ offset: at, path: node.place.path }, message);
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
    report.error(node.place, `cannot read "${name}": ${fileError(error)}`);
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
  const whole = `${open}${text}${close}`;
  let code: string;
  try {
    code = withoutTypes(whole).slice(open.length);
  } catch (error) {
    const { message, row, column } = problemOf(error, whole);
    onError(message, row, Math.max(0, row === 0 ? column - open.length : column));
    return undefined;
  }
  code = code.slice(0, code.length - close.length);
  if (form !== "body") code = withoutExports(code);
  try {
    // What TypeScript's parser lets pass: names declared twice, wrong regular expressions, imports.
    new vm.Script(`"use strict"; ${form === "body" ? "async " : ""}function _() {{\n${code}\n}}`);
  } catch (error) {
    const { row, column } = placeOf(error as Error);
    onError((error as Error).message, row - 1, column);
    return undefined;
  }
  return { ...place, code };
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

/** What is wrong with that code, and where, from 0. */
function problemOf(error: unknown, code: string): { message: string; row: number; column: number } {
  const { message } = error as Error;
  const text = message.split("\n").find((line) => line.trim() !== "") ?? "cannot be parsed";
  let placed = error;
  try {
    // Node's caret counts columns of a terminal, where tabs and many letters beyond ASCII are wider than one.
    withoutTypes(code.replace(/\t/g, " ").replace(/[^ -~\n\r]/g, "_"));
  } catch (narrow) {
    placed = narrow;
  }
  return { message: text.trim().replace(/^x\s+/, ""), ...placeOf(placed as Error) };
}

/** Reads the place from Node's error, which has a line `file:3` and a caret below the text. */
function placeOf({ message, stack = "" }: Error): { row: number; column: number } {
  const said = `${stack}\n${message}`;
  const row = /^(?:[^\n]*?):(\d+)\n/.exec(said)?.[1];
  const caret = /^([ \t]*)\^/m.exec(said)?.[1];
  return { row: row === undefined ? 0 : Number(row) - 1, column: caret?.length ?? 0 };
}
