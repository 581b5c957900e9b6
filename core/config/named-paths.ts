import { accessSync, constants, statSync } from "node:fs";
import { dirname } from "node:path";
import type { Report } from "./diagnostic.ts";
import type { ScalarNode } from "./document.ts";

const FOLDER_HELP = "make that folder first";

/** Reports a link that is to be watched in a folder that is not there. Envoy does not start with it. */
export function checkWatchedLink(node: ScalarNode, report: Report): void {
  const path = String(node.value);
  const wrong = path === "" ? undefined : wrongFolder(dirname(path));
  if (wrong !== undefined)
    report.lacking(node.place, `cannot watch "${path}": ${wrong}`, FOLDER_HELP);
}

/** Reports a file that cannot be written. Envoy does not start with one that is configured. */
export function checkOutputFile(node: ScalarNode, report: Report): void {
  const path = String(node.value);
  if (path === "") return;
  const folder = wrongFolder(dirname(path));
  const wrong = folder ?? wrongFile(path);
  const help = folder === undefined ? "name another file" : FOLDER_HELP;
  if (wrong !== undefined) report.lacking(node.place, `cannot write to "${path}": ${wrong}`, help);
}

function wrongFolder(folder: string): string | undefined {
  try {
    return statSync(folder).isDirectory() ? undefined : `"${folder}" is no folder`;
  } catch (error) {
    return codeOf(error) === "ENOENT"
      ? `"${folder}" does not exist`
      : `"${folder}" cannot be looked at (${codeOf(error)})`;
  }
}

function wrongFile(path: string): string | undefined {
  try {
    const found = statSync(path, { throwIfNoEntry: false });
    if (found?.isDirectory() === true) return "it is a folder";
    // What is open already, as /dev/stdout is, may be written by those to whom its path is closed.
    if (found === undefined || found.isFile())
      accessSync(found === undefined ? dirname(path) : path, constants.W_OK);
    return undefined;
  } catch (error) {
    return codeOf(error) === "EROFS" ? "the disk is read-only" : "this user may not write there";
  }
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}
