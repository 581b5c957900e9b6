import { statSync } from "node:fs";
import { dirname } from "node:path";
import type { Report } from "./diagnostic.ts";
import type { ScalarNode } from "./document.ts";

/** Reports a path whose folder is not there: no log can be written, and no link be watched. Envoy does not start with it. */
export function checkFolder(node: ScalarNode, what: string, report: Report): void {
  const path = String(node.value);
  if (path === "") return;
  const folder = dirname(path);
  const found = statSync(folder, { throwIfNoEntry: false });
  if (found?.isDirectory() === true) return;
  const why = found === undefined ? "does not exist" : "is no folder";
  report.lacking(node.place, `${what} "${path}": "${folder}" ${why}`, "make that folder first");
}
