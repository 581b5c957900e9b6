import { RECORDS_OF_LIMIT } from "../inside/sandbox/layout.ts";

const WINDOW_MS = 10_000;
const PRECISE_MS = 1000;
/** How long entries are measured after a long one. They are made by core then, because entries through the gate cannot be measured. */
const LOOK_MS = 100;
const SLOW_ENTRIES = 3;
/** Together the faults must have taken this many times the limit: garbage collection may take one honest entry past it. */
const SLOW_SUM = 10;

/**
 * Finds entries that take too much CPU. Asking for the thread's CPU time costs 0.5 µs, so it is asked only for a while after an entry
 * that took longer than the limit by the clock. The clock alone would blame filters for a busy machine. (isolated-vm's own `cpuTime`
 * is wall clock on Linux.)
 */
export class CpuBudget {
  readonly #limitMs: number;
  #slow: { readonly at: number; readonly ms: number }[] = [];
  #startedAt = 0;
  #preciseUntil = Number.NEGATIVE_INFINITY;
  #before: NodeJS.CpuUsage | undefined = undefined;

  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  /** An entry took longer than the limit by the clock: measure the next ones. */
  suspect(now: number): void {
    this.#preciseUntil = Math.max(this.#preciseUntil, now + LOOK_MS);
  }

  /** True while entries are measured; the gate must be closed then. */
  isPrecise(now: number): boolean {
    return now < this.#preciseUntil;
  }

  begin(now: number): void {
    this.#startedAt = performance.now();
    this.#before = now < this.#preciseUntil ? process.threadCpuUsage() : undefined;
  }

  /** An entry has ended. True: the package has used too much CPU, which is a fault. */
  end(records: number, now: number): boolean {
    const limit = this.#limitMs * Math.max(1, records / RECORDS_OF_LIMIT);
    if (performance.now() - this.#startedAt <= limit) return false;
    const before = this.#before;
    if (before === undefined) {
      this.#preciseUntil = now + PRECISE_MS;
      return false;
    }
    const { user, system } = process.threadCpuUsage(before);
    const ms = (user + system) / 1000;
    // The machine was busy, not the filter: stop measuring, since entries through the gate cost half as much.
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
