import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** Generations from one collection to the next: their texts and modules would fill 15 MiB of each thread before V8 looks at them. */
export const COLLECT_EVERY = 32;
/** After a commit, so that no start or reload waits for it. What the first one leaves in two threads is 15 MiB. */
export const COLLECT_AFTER_MS = 1_000;

let gc: (() => void) | undefined;

/**
 * This thread's garbage, at once: what starts and reloads leave behind would stay for hours where little is done. The inspector's
 * HeapProfiler.collectGarbage never returns in a process with isolates of isolated-vm.
 */
export function collectGarbage(): void {
  for (let k = 0; k < TRIES && gc === undefined; k++) gc = findCollector();
  gc?.();
}

const TRIES = 20;

/** Undefined: another thread has taken the flag, which is the process's, away in between. */
function findCollector(): (() => void) | undefined {
  setFlagsFromString("--expose-gc");
  const found = runInNewContext("globalThis.gc") as (() => void) | undefined;
  // A context made meanwhile would have `gc` as well.
  setFlagsFromString("--no-expose-gc");
  return found;
}
