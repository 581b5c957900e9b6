import { readFileSync, readlinkSync } from "node:fs";
import { BEAT } from "../protocol.ts";

/**
 * How many of the `wallMs` in which a thread made no progress count as silence, if it had `cpuMs` of CPU time in them, as of at
 * most `agoMs` ago. A thread that waits for a CPU does not hang: a machine with ten times more work than cores stops each thread
 * for half a second. But a thread that gets no CPU may be blocked for ever, so an eighth counts in any case. The source texts of
 * this function and the next two are copied into the watchdog's isolate.
 */
export function silence(wallMs: number, cpuMs: number, agoMs = 100): number {
  return Math.max(Math.min(wallMs, cpuMs + agoMs), wallMs / 8);
}

/** The time of day in milliseconds, in 30 bits. */
export function clockMs(): number {
  return Date.now() & 0x3fff_ffff;
}

/**
 * The last sample is older than it may be by so many milliseconds: as much CPU time may be missing from it. The samples are taken
 * on a thread that may have to wait for a CPU itself.
 */
export function lateBy(sampledMs: number, nowMs: number): number {
  return Math.max(0, ((nowMs - sampledMs) & 0x3fff_ffff) - 100);
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
    const stat = textOf(`/proc/self/task/${beat[BEAT.THREAD]!}/stat`);
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
  const cpuMs = cpuMsOf("self", thread);
  if (cpuMs === undefined) return;
  // Never 0, which means unknown; begins anew after 12 days of CPU time.
  Atomics.store(beat, BEAT.CPU_MS, (Math.floor(cpuMs) & 0x3fff_ffff) + 1);
  Atomics.store(beat, BEAT.SAMPLED, clockMs());
}

/** Undefined: the kernel keeps no such figures, or the thread has ended. */
function cpuMsOf(pid: number | "self", thread: number): number | undefined {
  try {
    const [nanoseconds] = textOf(`/proc/${pid}/task/${thread}/schedstat`).split(" ");
    return Number(nanoseconds) / 1e6;
  } catch {
    return undefined;
  }
}

/** As UTF-8, for which Node needs no buffer; in any other encoding each read of a file of the kernel leaves one of 64 KiB behind. */
function textOf(file: string): string {
  return readFileSync(file, "utf8");
}

/** CPU time of the main thread of another process, whose id is the process's. Undefined: as of `cpuMsOf`. */
export const mainCpuMs = (pid: number): number | undefined => cpuMsOf(pid, pid);
