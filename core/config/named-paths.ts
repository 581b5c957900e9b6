import { accessSync, constants, statSync } from "node:fs";
import { dirname } from "node:path";
import type { Report } from "./diagnostic.ts";
import type { ScalarNode } from "./document.ts";

/** Reports a path whose folder is not there: no log can be written, and no link be watched. Envoy does not start with it. */
export function checkFolder(node: ScalarNode, what: string, report: Report): void {
  const path = String(node.value);
  const wrong = path === "" ? undefined : wrongFolder(dirname(path));
  if (wrong !== undefined)
    report.lacking(node.place, `${what} "${path}": ${wrong}`, "make that folder first");
}

/** Reports a file that cannot be written. Envoy does not start with one that is configured. */
export function checkOutputFile(node: ScalarNode, report: Report): void {
  checkFolder(node, "cannot write to", report);
  const path = String(node.value);
  const wrong = path === "" ? undefined : wrongFile(path);
  if (wrong !== undefined)
    report.lacking(node.place, `cannot write to "${path}": ${wrong}`, "name another file");
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

/** Undefined also if its folder is wrong. */
function wrongFile(path: string): string | undefined {
  const folder = dirname(path);
  if (wrongFolder(folder) !== undefined) return undefined;
  try {
    const found = statSync(path, { throwIfNoEntry: false });
    if (found?.isDirectory() === true) return "it is a folder";
    // What is open already, as /dev/stdout is, may be written by those to whom its path is closed.
    if (found === undefined || found.isFile())
      accessSync(found === undefined ? folder : path, constants.W_OK);
    return undefined;
  } catch (error) {
    return codeOf(error) === "EROFS" ? "the disk is read-only" : "this user may not write there";
  }
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}
