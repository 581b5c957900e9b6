import { isTimeout } from "../process/cpu-limit.ts";
import type { Refusal } from "../protocol.ts";
import { SandboxLost } from "../sandbox/aside.ts";

/** The refusal for an error in the code of a package, or, with the name "", of an isolate as a whole. */
export function refusalOf(packageName: string, error: unknown): Refusal {
  const { message, stack = "" } = error instanceof Error ? error : new Error(String(error));
  const timedOut = isTimeout(error);
  const isDisposed = message.startsWith("Isolate was disposed");
  const tookAll = error instanceof SandboxLost || (isDisposed && message.includes("memory limit"));
  return {
    package: packageName,
    message: timedOut ? "setup did not return" : tookAll ? "setup took all memory" : message,
    path: "",
    place: "",
    stack,
    stopped: timedOut || isDisposed || tookAll,
  };
}
