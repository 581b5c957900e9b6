import { readFileSync, readlinkSync } from "node:fs";
import { BEAT } from "../protocol.ts";

/**
 * How many of the `wallMs` in which a thread made no progress count as silence, if it had `cpuMs` of CPU time in them (as of at
 * most 100 ms ago). A thread that waits for a CPU does not hang: a machine with ten times more work than cores stops each thread
 * for half a second. But a thread that gets no CPU may be blocked for ever, so an eighth counts in any case. The source text of
 * this function is copied into the watchdog's isolate.
 */
export function silence(wallMs: number, cpuMs: number): number {
  return Math.max(Math.min(wallMs, cpuMs + 100), wallMs / 8);
}

/** Writes the thread's system id into its beat, for `sampleCpu`; 0 where this is not Linux. Called once on the thread itself. */
export function signThread(beat: Int32Array): void {
  try {
    beat[BEAT.THREAD] = Number(readlinkSync("/proc/thread-self").split("/").at(-1));
  } catch {
    beat[BEAT.THREAD] = 0;
  }
}

/** True if the thread waits for something other than a CPU, or a page of memory. Takes 10 µs. */
export function isAsleep(beat: Int32Array): boolean {
  try {
    const stat = readFileSync(`/proc/self/task/${beat[BEAT.THREAD]!}/stat`, "latin1");
    // After the name of the thread, in brackets: R runs or waits for a CPU, D waits for a disk, S for anything else.
    return stat.startsWith("S", stat.lastIndexOf(")") + 2);
  } catch {
    return false;
  }
}

/** Writes a thread's CPU time into its beat. Called every 100 ms, on any thread of the process; takes 10 µs. */
export function sampleCpu(beat: Int32Array): void {
  const thread = beat[BEAT.THREAD]!;
  if (thread === 0) return;
  try {
    const [nanoseconds] = readFileSync(`/proc/self/task/${thread}/schedstat`, "latin1").split(" ");
    // Never 0, which means unknown; begins anew after 12 days of CPU time.
    Atomics.store(beat, BEAT.CPU_MS, (Math.floor(Number(nanoseconds) / 1e6) & 0x3fff_ffff) + 1);
  } catch {
    // The kernel keeps no such figures, or the thread has ended.
  }
}
