import { setFlagsFromString } from "node:v8";

/**
 * V8's flags for isolates. They are not on the command line: V8 takes compiled code only under the flags that it was made with, and
 * Node brings its own modules in compiled form, made without any. To compile a hundred of them would cost each start 40 ms.
 */
export const ISOLATE_FLAGS = [
  // With Maglev, or where code is replaced in the middle of a loop, a loop that allocates checks for no interrupt, and so escapes
  // every limit.
  "--no-maglev",
  "--no-use-osr",
  // On a command line V8 itself concludes these two from --no-maglev.
  "--no-maglev-overwrite-budget",
  "--invocation-count-for-turbofan=3000",
  // V8 keeps all code that an isolate ever compiled: 100 KiB for each version of a filter, for ever.
  "--no-compilation-cache",
  // Linear regexes.
  "--enable-experimental-regexp-engine",
  "--enable-experimental-regexp-engine-on-excessive-backtracks",
] as const;

let areSet = false;

/** Called before an isolate is made. The flags hold for the whole process. */
export function setIsolateFlags(): void {
  if (areSet) return;
  areSet = true;
  for (const flag of ISOLATE_FLAGS) setFlagsFromString(flag);
}

/**
 * Called once isolated-vm has been loaded: its first load in a process undoes the sizes of heaps on the command line. A thread that
 * starts without them has a copy of V8's built-in functions (2 MiB), and lets garbage grow to 16 MiB before it collects.
 */
export function restoreHeapSizes(): void {
  for (const arg of process.execArgv)
    if (/^--(max|min)-(semi|old)-space-size=/.test(arg)) setFlagsFromString(arg);
}
