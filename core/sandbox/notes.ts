import { ANSWER } from "../inside/sandbox/layout.ts";
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
    const reason = `${told.hook} threw: ${told.message}`;
    options.onFault({ package: options.package, reason, stack: String(told.stack ?? "") });
  }
}
