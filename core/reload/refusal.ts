import type { Refusal } from "../protocol.ts";

/** The refusal for an error in the code of a package, or, with the name "", of an isolate as a whole. */
export function refusalOf(packageName: string, error: unknown): Refusal {
  const { message, stack = "" } = error instanceof Error ? error : new Error(String(error));
  const timedOut = message.startsWith("Script execution timed out");
  return {
    package: packageName,
    message: timedOut ? "setup did not return" : message,
    path: "",
    place: "",
    stack,
    stopped: timedOut || message.startsWith("Isolate was disposed"),
  };
}
