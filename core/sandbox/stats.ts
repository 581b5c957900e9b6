import { STATS_CELLS } from "../inside/sandbox/layout.ts";
import { HISTOGRAM_CELLS } from "../inside/stats.ts";

/** Where a worker keeps its stats. */
export interface StatsSink {
  readonly cells: Float64Array;
  /** The first cell of a stat (asked again: the same one), or -1: no room. */
  define(kind: "counter" | "gauge" | "histogram", name: string, unit: string): number;
}

interface Mapped {
  readonly from: number;
  readonly to: number;
  readonly size: number;
  readonly isGauge: boolean;
}

/** A sandbox counts in cells of its own; what has changed is added to the worker's 20 ms after an entry. */
export class SandboxStats {
  readonly #cells: Float64Array;
  readonly #seen = new Float64Array(STATS_CELLS);
  readonly #mapped: Mapped[] = [];
  readonly #sink: StatsSink;

  constructor(sink: StatsSink, memory: SharedArrayBuffer) {
    this.#sink = sink;
    this.#cells = new Float64Array(memory);
  }

  /** A name that the sandbox tells; nothing of it is believed. */
  define(told: unknown): void {
    const { kind, name, unit, cell } = told as Record<string, unknown>;
    if (kind !== "counter" && kind !== "gauge" && kind !== "histogram") return;
    if (typeof name !== "string" || name === "" || name.length > 256 || typeof unit !== "string")
      return;
    const size = kind === "histogram" ? HISTOGRAM_CELLS : 1;
    if (
      typeof cell !== "number" ||
      !Number.isInteger(cell) ||
      cell < 0 ||
      cell + size > STATS_CELLS
    )
      return;
    if (this.#mapped.length >= STATS_CELLS) return;
    const to = this.#sink.define(kind, name, unit);
    if (to >= 0) this.#mapped.push({ from: cell, to, size, isGauge: kind === "gauge" });
  }

  merge(): void {
    const { cells } = this.#sink;
    for (const { from, to, size } of this.#mapped) {
      for (let k = 0; k < size; k++) {
        const now = this.#cells[from + k]!;
        const change = now - this.#seen[from + k]!;
        if (change === 0 || !Number.isFinite(change)) continue;
        this.#seen[from + k] = now;
        cells[to + k]! += change;
      }
    }
  }

  /** The isolate is gone: what it counted stays, what it gauged does not. */
  end(): void {
    this.merge();
    for (const { from, to, isGauge } of this.#mapped)
      if (isGauge) this.#sink.cells[to]! -= this.#seen[from]!;
    this.#mapped.length = 0;
  }
}
