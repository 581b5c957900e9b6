import { Worker } from "node:worker_threads";
import { ownModule } from "./own-files.ts";

/** Threads by name that `startEarly` has started and `takeThread` has not yet handed out. */
const waiting = new Map<string, Worker>();

/**
 * Starts the threads of the workers and of control. Each loads core/worker.ts, while main loads its own modules, and then waits
 * for its `start` message.
 */
export function startEarly(concurrency: number): void {
  for (let k = 0; k < concurrency; k++)
    waiting.set(threadName("worker", k), newThread("worker", k));
  waiting.set(threadName("control", concurrency), newThread("control", concurrency));
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

function newThread(role: "worker" | "control", index: number): Worker {
  return new Worker(ownModule("worker"), { name: threadName(role, index) });
}
