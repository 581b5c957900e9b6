import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** Generations from one collection to the next: their texts and modules would fill 15 MiB of each thread before V8 looks at them. */
export const COLLECT_EVERY = 32;
/** After a commit, so that no start or reload waits for it. What the first one leaves in two threads is 15 MiB. */
export const COLLECT_AFTER_MS = 1_000;

/**
 * `last-resort`: new space, pages and code that nothing needs now are given back too, which halves what a heap occupies at rest. Who is
 * called again compiles anew (100 ms of CPU), so it is nothing for a thread with traffic.
 */
export type Flavor = "regular" | "last-resort";
/** Run in a context that was made while V8 gives `gc` to new ones. */
export const COLLECTOR =
  'typeof gc === "function" ? (flavor) => gc({ type: "major", execution: "sync", flavor }) : undefined';
const TRIES = 20;

let gc: ((flavor: Flavor) => void) | undefined;

/**
 * This thread's garbage, at once: what starts and reloads leave behind would stay for hours where little is done. The inspector's
 * HeapProfiler.collectGarbage never returns in a process with isolates of isolated-vm.
 */
export function collectGarbage(flavor: Flavor = "regular"): void {
  gc ??= findCollector(() => runInNewContext(COLLECTOR) as typeof gc);
  gc?.(flavor);
}

/** `find` makes a context and looks for `gc` in it. */
export function findCollector<T>(find: () => T | undefined): T | undefined {
  for (let k = 0; k < TRIES; k++) {
    setFlagsFromString("--expose-gc");
    const found = find();
    // A context made meanwhile would have `gc` as well.
    setFlagsFromString("--no-expose-gc");
    // Undefined: another thread has taken the flag, which is the process's, away in between.
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Seconds in a row, and calls in each of them, that are called quiet: health checks and a few clients. */
export const QUIET = { seconds: 30, calls: 20 } as const;
/** Fewer leave too little behind. */
const BUSY_CALLS = 1_000;

/** Tells when a thread that was busy has come to rest: a collection of 30 ms disturbs nobody then. */
export class Rest {
  readonly #onRest: () => void;
  #calls = 0;
  #restedAt = 0;
  #quiet = 0;

  constructor(onRest: () => void) {
    this.#onRest = onRest;
  }

  /** Once a second: how often the thread was called so far. */
  tick(calls: number): void {
    // Another isolate counts from 0.
    if (calls < this.#calls) this.#restedAt = 0;
    this.#quiet = Math.abs(calls - this.#calls) < QUIET.calls ? this.#quiet + 1 : 0;
    this.#calls = calls;
    if (this.#quiet < QUIET.seconds || calls - this.#restedAt < BUSY_CALLS) return;
    this.#restedAt = calls;
    this.#onRest();
  }
}
