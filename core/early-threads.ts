import { Worker } from "node:worker_threads";
import { ownModule } from "./own-files.ts";

/** How long a thread waits for the next one to load: it may have died. */
const LOAD_MS = 1_000;

/** What a thread that was started early is given. */
export interface EarlyThread {
  /** How many of them still load their modules. */
  readonly loading: Int32Array;
}

/** Threads by name that `startEarly` has started and `takeThread` has not yet handed out. */
const waiting = new Map<string, Worker>();

/**
 * Starts the threads of the workers and of control. Each loads core/worker.ts, while main loads its own modules, and then waits
 * for its `start` message.
 */
export function startEarly(concurrency: number): void {
  const loading = new Int32Array(new SharedArrayBuffer(4)).fill(concurrency + 1);
  const start = (role: "worker" | "control", index: number) =>
    waiting.set(threadName(role, index), newThread(role, index, { loading }));
  for (let k = 0; k < concurrency; k++) start("worker", k);
  start("control", concurrency);
}

/** Called by an early thread that has loaded its modules. */
export function onLoaded({ loading }: EarlyThread): void {
  Atomics.sub(loading, 0, 1);
  Atomics.notify(loading, 0);
}

/**
 * Called by an early thread before it makes isolates, whose flags (isolate-flags.ts) would keep V8 from taking the compiled modules of
 * a thread that still loads them.
 */
export function untilAllLoaded({ loading }: EarlyThread): void {
  for (;;) {
    const left = Atomics.load(loading, 0);
    if (left <= 0 || Atomics.wait(loading, 0, left, LOAD_MS) === "timed-out") return;
  }
}

/** Answers a thread that still has to be sent its `start` message: the early one if there is one, else a new one. */
export function takeThread(role: "worker" | "control", index: number): Worker {
  const name = threadName(role, index);
  const early = waiting.get(name);
  waiting.delete(name);
  return early ?? newThread(role, index);
}

export function threadName(role: "worker" | "control", index: number): string {
  return role === "control" ? "control" : `worker ${index}`;
}

function newThread(
  role: "worker" | "control",
  index: number,
  workerData: EarlyThread | null = null,
): Worker {
  return new Worker(ownModule("worker"), { name: threadName(role, index), workerData });
}
