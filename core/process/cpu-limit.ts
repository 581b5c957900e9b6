import { readFileSync } from "node:fs";

const STEPS = 8;

/**
 * Calls `onLate` unless the answered function is called before, once something has taken `limitMs` of CPU time. `cpuMs` tells how much
 * its threads have had by now; it may tell of more threads than that. A busy machine, or a CPU limit, keeps honest code waiting for as
 * long as it likes. But what gets no CPU may be blocked for ever, so an eighth of the time by the clock counts in any case, in steps of
 * our own, as a process that has been stopped for a minute is not late.
 */
export function limitCpu(limitMs: number, cpuMs: () => number, onLate: () => void): () => void {
  const before = cpuMs();
  const stepMs = limitMs / STEPS;
  let steps = 0;
  const timer = setInterval(() => {
    const wallMs = ++steps * stepMs;
    if (Math.max(Math.min(wallMs, cpuMs() - before), wallMs / 8) < limitMs) return;
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

/**
 * Answers a function that tells of an error of isolated-vm's whether it has stopped a call by the clock, while this process was mostly
 * waiting for a CPU since now.
 */
export function watchWaiting(): (error: unknown) => boolean {
  const cpuBefore = ownCpuMs();
  const began = performance.now();
  return (error) => {
    const isStopped =
      error instanceof Error && error.message.startsWith("Script execution timed out");
    return isStopped && ownCpuMs() - cpuBefore < (performance.now() - began) / 2;
  };
}

/** CPU time of the main thread of another process. Undefined: the kernel keeps no such figures, or the process has ended. */
export function mainCpuMs(pid: number): number | undefined {
  try {
    const [nanoseconds] = readFileSync(`/proc/${pid}/task/${pid}/schedstat`, "latin1").split(" ");
    return Number(nanoseconds) / 1e6;
  } catch {
    return undefined;
  }
}
