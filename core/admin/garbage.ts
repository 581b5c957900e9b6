import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** Number of reloads whose garbage is worth a collection. V8 would let their texts and modules grow to 15 MiB per thread. */
const COLLECT_EVERY = 32;
/** After this many reloads, garbage is collected even if more of them follow. */
const COLLECT_AT_MOST = 128;
/** How long after a commit garbage is collected: no start or reload waits for it. A start leaves 15 MiB in two threads. */
export const COLLECT_AFTER_MS = 1_000;
/** From one thread's collection to the next one's (main is first): together they would take all CPUs from traffic and saves. */
export const COLLECT_APART_MS = 500;

/** Calls `collect` when a series of reloads seems to be over: a save during a collection has to wait for 100 ms. */
export class AfterReloads {
  readonly #collect: (saves: "are over" | "go on") => void;
  readonly #waitMs: number;
  #reloads = 0;
  #timer: NodeJS.Timeout | undefined;

  /** `turn`: its place among the threads, which collect one after the other if saves go on. */
  constructor(collect: (saves: "are over" | "go on") => void, turn: number) {
    this.#collect = collect;
    this.#waitMs = turn * COLLECT_APART_MS;
  }

  onCommit(): void {
    this.#reloads++;
    if (this.#reloads < COLLECT_EVERY || this.#reloads > COLLECT_AT_MOST) return;
    clearTimeout(this.#timer);
    const isOver = this.#reloads < COLLECT_AT_MOST;
    const collect = () => {
      this.#reloads = 0;
      this.#collect(isOver ? "are over" : "go on");
    };
    this.#timer = setTimeout(collect, isOver ? COLLECT_AFTER_MS : this.#waitMs).unref();
  }
}

/**
 * `last-resort` also gives back free pages and compiled code, which halves the heap of a thread at rest. Code that is called
 * again is compiled again (100 ms of CPU), so a thread with traffic must not do it.
 */
export type Flavor = "regular" | "last-resort";
/** Source of an expression whose value is V8's collector, in a context made while the flag `--expose-gc` is set. */
export const COLLECTOR =
  'typeof gc === "function" ? (flavor) => gc({ type: "major", execution: "sync", flavor }) : undefined';
const TRIES = 20;

let gc: ((flavor: Flavor) => void) | undefined;

/**
 * Collects the garbage of this thread's Node isolate now. V8 would leave what starts and reloads produce for hours where there is
 * little traffic. (The inspector's HeapProfiler.collectGarbage never returns in a process with isolates of isolated-vm.)
 */
export function collectGarbage(flavor: Flavor = "regular"): void {
  gc ??= findCollector(() => runInNewContext(COLLECTOR) as typeof gc);
  gc?.(flavor);
}

/** Calls `find`, which makes a context and looks for `gc` in it, while `--expose-gc` is set. Undefined: it could not be had. */
export function findCollector<T>(find: () => T | undefined): T | undefined {
  for (let k = 0; k < TRIES; k++) {
    setFlagsFromString("--expose-gc");
    const found = find();
    // Contexts made from here on must not have it.
    setFlagsFromString("--no-expose-gc");
    // The flag is the process's: another thread may have cleared it in between.
    if (found !== undefined) return found;
  }
  return undefined;
}

/** A thread is at rest after `seconds` in a row with fewer than `calls` calls each, as health checks and a few clients make. */
export const QUIET = { seconds: 30, calls: 20 } as const;
/** Calls since the last rest below which there is too little garbage to collect. */
const BUSY_CALLS = 1_000;

/** Tells when a thread that was busy has come to rest, so that a collection of 30 ms disturbs nobody. */
export class Rest {
  readonly #onRest: () => void;
  #calls = 0;
  #restedAt = 0;
  #quiet = 0;

  constructor(onRest: () => void) {
    this.#onRest = onRest;
  }

  /** The thread could not rest when it should have: it does so after the next quiet time, however few calls come until then. */
  postpone(): void {
    this.#restedAt = -BUSY_CALLS;
  }

  /** To be called once a second with the number of crossings so far. */
  tick(calls: number): void {
    // The isolate was rebuilt and counts from 0 again.
    if (calls < this.#calls) this.#restedAt = 0;
    this.#quiet = Math.abs(calls - this.#calls) < QUIET.calls ? this.#quiet + 1 : 0;
    this.#calls = calls;
    if (this.#quiet < QUIET.seconds || calls - this.#restedAt < BUSY_CALLS) return;
    this.#restedAt = calls;
    this.#onRest();
  }
}
