import { readFileSync, readlinkSync } from "node:fs";
import { BEAT } from "./protocol.ts";

/**
 * What counts of `wallMs` that a thread was inside something, when it had `cpuMs` of a CPU meanwhile (as of 100 ms ago at most): one
 * that waits for a CPU does not hang, and a machine with ten times more work than cores stops each thread for half a second. But
 * one that has none may be blocked for ever, so that an eighth counts in any case. Its text goes into the watchdog's isolate.
 */
export function silence(wallMs: number, cpuMs: number): number {
  return Math.max(Math.min(wallMs, cpuMs + 100), wallMs / 8);
}

/** Called on the thread itself, once: others look by its number. Linux alone can tell. */
export function signThread(beat: Int32Array): void {
  try {
    beat[BEAT.THREAD] = Number(readlinkSync("/proc/thread-self").split("/").at(-1));
  } catch {
    beat[BEAT.THREAD] = 0;
  }
}

/** Called on any thread of the process, every 100 ms: writes how much CPU that thread has had. Costs 10 µs. */
export function sampleCpu(beat: Int32Array): void {
  const thread = beat[BEAT.THREAD]!;
  if (thread === 0) return;
  try {
    const [nanoseconds] = readFileSync(`/proc/self/task/${thread}/schedstat`, "latin1").split(" ");
    // Never 0; after 12 days of CPU from the front again.
    Atomics.store(beat, BEAT.CPU_MS, (Math.floor(Number(nanoseconds) / 1e6) & 0x3fff_ffff) + 1);
  } catch {
    // A kernel that keeps no account of it, or a thread that has ended.
  }
}
