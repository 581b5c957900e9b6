import { ANSWER } from "../inside/sandbox/layout.ts";
import type { Source } from "./isolate.ts";
import type { SandboxOptions } from "./options.ts";

const LEVELS = ["debug", "info", "warn", "error"];

/** A message of a sandbox. Any field may be missing or of another type: it is checked before use. */
interface Told {
  readonly level?: unknown;
  readonly message?: unknown;
  readonly fields?: unknown;
  readonly serves?: unknown;
  readonly hook?: unknown;
  readonly stack?: unknown;
  readonly code?: unknown;
}

/** Handles a sandbox's message to core: a log line, lines for a file, a thrown error, or a stat, which `define` gets. */
export function takeNote(
  options: SandboxOptions,
  kind: number,
  text: string,
  define: (stat: unknown) => void,
): void {
  if (text === "") return;
  let told: Told;
  try {
    told = JSON.parse(text) as Told;
  } catch {
    return;
  }
  if (kind === ANSWER.STATS) define(told);
  else if (kind === ANSWER.LINES) {
    const [path, lines] = Array.isArray(told) ? (told as unknown[]) : [];
    if (typeof path === "string" && typeof lines === "string") options.onLines?.(path, lines);
  } else if (kind === ANSWER.LOG) {
    const { level, message, fields, serves } = told;
    const isFields = typeof fields === "object" && fields !== null;
    options.onLog(
      LEVELS.includes(String(level)) ? String(level) : "info",
      String(message),
      (isFields ? fields : {}) as Record<string, unknown>,
      serves === true,
    );
  } else if (kind === ANSWER.THROWN) {
    const { hook, message, stack = "", code } = told;
    const { package: name, module } = options;
    if (typeof code === "string")
      options.onFault({
        package: name,
        reason: `${hook}: ${message}`,
        stack: placeOf(code, module),
      });
    else
      options.onFault({ package: name, reason: `${hook} threw: ${message}`, stack: String(stack) });
  }
}

/** Where that text stands in the module, as a line of a stack. "": nowhere, or in more places than one. */
function placeOf(text: string, { code, filename }: Source): string {
  const at = text === "" ? -1 : code.indexOf(text);
  if (at < 0 || code.includes(text, at + 1)) return "";
  const before = code.slice(0, at).split("\n");
  return `${filename}:${before.length}:${before.at(-1)!.length + 1}`;
}
