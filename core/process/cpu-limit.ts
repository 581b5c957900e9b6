import { silence } from "./thread-cpu.ts";

const STEPS = 8;

/**
 * Calls `onLate` unless the answered function is called before, once something has taken `limitMs` of CPU time. `cpuMs` tells how much
 * its threads have had by now; it may tell of more threads than that. Time by the clock counts as for `silence`, in steps of our own, as
 * a process that has been stopped for a minute is not late.
 */
export function limitCpu(limitMs: number, cpuMs: () => number, onLate: () => void): () => void {
  const before = cpuMs();
  const stepMs = limitMs / STEPS;
  let steps = 0;
  const timer = setInterval(() => {
    const wallMs = ++steps * stepMs;
    if (silence(wallMs, cpuMs() - before, 0) < limitMs) return;
    clearInterval(timer);
    onLate();
  }, stepMs);
  return () => clearInterval(timer);
}

/** CPU time of all threads of this process. Takes 1 µs. */
export function ownCpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** CPU time of this thread. Takes 0.5 µs. */
export function threadCpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

/** How many times as long as on a machine of its own a call may take at most. */
export const MOST_PATIENCE = 8;

/**
 * The time limits of isolated-vm's calls are by the clock, and tell the line that a loop was stopped at. What they stop while this
 * process waits for a CPU is tried once more. Answers a function that tells how many times as long that may take, by the CPU time
 * that `cpuMs` has told of since now, that of the call's thread if it is known; undefined: it did not mostly wait, so that there is no need
 * to.
 */
export function watchWaiting(cpuMs: () => number = ownCpuMs): () => number | undefined {
  const cpuBefore = cpuMs();
  const began = performance.now();
  return () => {
    const patience = (performance.now() - began) / (cpuMs() - cpuBefore);
    return patience > 2 ? Math.min(Math.ceil(patience), MOST_PATIENCE) : undefined;
  };
}

/** Whether a call has ended with this error as its time limit was over. */
export function isTimeout(error: unknown): boolean {
  return error instanceof Error && error.message.startsWith("Script execution timed out");
}
