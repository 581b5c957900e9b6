import { RECORDS_OF_LIMIT } from "../inside/sandbox/layout.ts";
import { threadCpuMs } from "../process/cpu-limit.ts";

const WINDOW_MS = 10_000;
const PRECISE_MS = 1000;
/** How long entries are measured after a long one. They are made by core then, because entries through the gate cannot be measured. */
const LOOK_MS = 100;
/** The thread's CPU time is read so often at most. It must be less than limits are, and 0.5 µs each time shall not matter. */
const READ_MS = 1;
const SLOW_ENTRIES = 3;
/** Together the faults must have taken this many times the limit: garbage collection may take one honest entry past it. */
const SLOW_SUM = 10;

/**
 * Finds entries that take too much CPU. Asking for the thread's CPU time costs 0.5 µs, so it is asked once in READ_MS; an entry that
 * took longer than the limit by the clock is blamed only if the thread has had as much CPU time since then, and only then is each of
 * the next ones measured. The clock alone would blame filters for a busy machine. (isolated-vm's own `cpuTime` is wall clock on Linux.)
 */
export class CpuBudget {
  readonly #limitMs: number;
  readonly #cpuMs: () => number;
  #slow: { readonly at: number; readonly ms: number }[] = [];
  #startedAt = 0;
  #preciseUntil = Number.NEGATIVE_INFINITY;
  /** The CPU time that the thread had had before the entry under way; -1: it is not measured. */
  #before = -1;
  /** The same at `#readAt`. */
  #readMs = 0;
  #readAt = Number.NEGATIVE_INFINITY;

  /** `cpuMs`: the CPU time that this thread has had. */
  constructor(limitMs: number, cpuMs = threadCpuMs) {
    this.#limitMs = limitMs;
    this.#cpuMs = cpuMs;
  }

  /** No entry is under way, and `suspect` has been called for those that have ended. */
  rest(now: number): void {
    if (now - this.#readAt < READ_MS) return;
    this.#readAt = now;
    this.#readMs = this.#cpuMs();
  }

  /**
   * An entry through the gate took longer than the limit by the clock. True: the next ones are measured; false: the thread has waited
   * for a CPU meanwhile.
   */
  suspect(now: number): boolean {
    if (this.#hasWaited(this.#limitMs)) return false;
    this.#preciseUntil = Math.max(this.#preciseUntil, now + LOOK_MS);
    return true;
  }

  /** All that the thread has done since the last reading has not had so much CPU time. */
  #hasWaited(ms: number): boolean {
    return this.#cpuMs() - this.#readMs <= ms;
  }

  /** True while entries are measured; the gate must be closed then. */
  isPrecise(now: number): boolean {
    return now < this.#preciseUntil;
  }

  begin(now: number): void {
    this.rest(now);
    this.#startedAt = performance.now();
    this.#before = now < this.#preciseUntil ? this.#cpuMs() : -1;
  }

  /** An entry has ended. True: the package has used too much CPU, which is a fault. */
  end(records: number, now: number): boolean {
    const limit = this.#limitMs * Math.max(1, records / RECORDS_OF_LIMIT);
    if (performance.now() - this.#startedAt <= limit) return false;
    if (this.#before < 0) {
      if (!this.#hasWaited(limit)) this.#preciseUntil = now + PRECISE_MS;
      return false;
    }
    const ms = this.#cpuMs() - this.#before;
    // The machine was busy, not the filter.
    if (ms <= limit) return false;
    this.#preciseUntil = now + PRECISE_MS;
    this.#slow = this.#slow.filter((entry) => now - entry.at < WINDOW_MS);
    this.#slow.push({ at: now, ms });
    let sum = 0;
    for (const entry of this.#slow) sum += entry.ms;
    if (this.#slow.length < SLOW_ENTRIES || sum < this.#limitMs * SLOW_SUM) return false;
    this.#slow = [];
    return true;
  }
}
