import { Worker } from "node:worker_threads";
import { ownModule } from "./own-files.ts";

const waiting = new Map<string, Worker>();

/**
 * Starts Node's threads for the workers and for control. Each loads core/worker.ts and then waits for its `start` message, which
 * takes about as long as main takes to load its own modules.
 */
export function startEarly(concurrency: number): void {
  for (let k = 0; k < concurrency; k++)
    waiting.set(threadName("worker", k), newThread("worker", k));
  waiting.set(threadName("control", concurrency), newThread("control", concurrency));
}

/** A thread of that name that waits for its `start` message: an early one, or else a new one. */
export function takeThread(role: "worker" | "control", index: number): Worker {
  const name = threadName(role, index);
  const early = waiting.get(name);
  waiting.delete(name);
  return early ?? newThread(role, index);
}

export function threadName(role: "worker" | "control", index: number): string {
  return role === "control" ? "control" : `worker ${index}`;
}

function newThread(role: "worker" | "control", index: number): Worker {
  return new Worker(ownModule("worker"), { name: threadName(role, index) });
}
