import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** Generations from one collection to the next: their texts and modules would fill 15 MiB of each thread before V8 looks at them. */
export const COLLECT_EVERY = 32;

/**
 * This thread's garbage, at once: what a start leaves behind would stay for hours where little is done. The inspector's
 * HeapProfiler.collectGarbage never returns in a process with isolates of isolated-vm.
 */
export function collectGarbage(): void {
  // A context made meanwhile would have `gc` as well.
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc") as () => void;
  setFlagsFromString("--no-expose-gc");
  gc();
}
