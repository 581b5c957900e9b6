import type { Refusal } from "./protocol.ts";

/** What went wrong in an isolate as a whole, or in the code of a package. */
export function refusalOf(packageName: string, error: unknown): Refusal {
  const { message, stack = "" } = error instanceof Error ? error : new Error(String(error));
  const reason = message.startsWith("Script execution timed out")
    ? "setup did not return"
    : message;
  return { package: packageName, message: reason, path: "", place: "", stack };
}
