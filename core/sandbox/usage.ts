import { sandboxStat } from "../admin/server-stats.ts";
import type { SandboxIsolate } from "./isolate.ts";
import type { StatsSink } from "./stats.ts";

/** Totals of one sandbox. */
export interface Crossed {
  readonly entries: number;
  readonly records: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
}

/** Watches how much memory one isolate uses after another. */
export class Quota {
  readonly #mb: number;
  #atStart = 0;
  #times = 0;

  constructor(mb: number) {
    this.#mb = mb;
  }

  begin({ memoryUsed }: SandboxIsolate): void {
    this.#atStart = memoryUsed;
    this.#times = 0;
  }

  /** To be called once a second. Undefined: all is well; the collector may be late once. */
  check({ memoryUsed }: SandboxIsolate): Error | undefined {
    const isOver = memoryUsed - this.#atStart > this.#mb * 1024 * 1024;
    this.#times = isOver ? this.#times + 1 : 0;
    return this.#times >= 2 ? new Error(`more than ${this.#mb} MiB in use`) : undefined;
  }
}

/** What a package's sandbox costs this worker, as counters `filters.KIND.NAME.*`, updated about once a second. */
export class SandboxUsage {
  readonly #sink: StatsSink;
  readonly #package: string;
  #told: Crossed = { entries: 0, records: 0, bytesIn: 0, bytesOut: 0 };
  #isolate: SandboxIsolate | undefined = undefined;
  /** CPU nanoseconds of the present isolate at the last update. */
  #cpuTold = 0n;

  constructor(sink: StatsSink, packageName: string) {
    this.#sink = sink;
    this.#package = packageName;
  }

  /** A new isolate was built: its CPU time so far is not counted, since no request caused it. */
  begin(isolate: SandboxIsolate): void {
    this.#isolate = isolate;
    this.#cpuTold = isolate.cpuTime;
  }

  tell(now: Crossed): void {
    const told = this.#told;
    this.#told = { ...now };
    this.#add("entries", now.entries - told.entries);
    this.#add("records", now.records - told.records);
    this.#add("bytes_in", now.bytesIn - told.bytesIn);
    this.#add("bytes_out", now.bytesOut - told.bytesOut);
    const isolate = this.#isolate;
    if (isolate === undefined || isolate.disposed) return;
    const { cpuTime } = isolate;
    const us = (cpuTime - this.#cpuTold) / 1000n;
    this.#add("cpu_us", Number(us));
    // The fraction is counted at the next update.
    this.#cpuTold += us * 1000n;
  }

  #add(name: string, n: number): void {
    const cell = this.#sink.define("counter", sandboxStat(this.#package, name), "", "");
    if (cell >= 0) this.#sink.cells[cell]! += n;
  }
}
