import { STATS_CELLS } from "../inside/sandbox/layout.ts";
import { HISTOGRAM_CELLS } from "../inside/stats.ts";

/** A worker's stats cells, as sandboxes use them. */
export interface StatsSink {
  readonly cells: Float64Array;
  /**
   * Defines a stat of `owner`, a package or "" for core, and answers its first cell; the same one for the same name. -1: there is no
   * room.
   */
  define(
    kind: "counter" | "gauge" | "histogram",
    name: string,
    unit: string,
    owner: string,
  ): number;
}

interface Mapped {
  readonly from: number;
  readonly to: number;
  readonly size: number;
  readonly isGauge: boolean;
}

/** A sandbox counts in cells of its own, which it may spoil. Changes are added to the worker's cells 20 ms after an entry. */
export class SandboxStats {
  readonly #cells: Float64Array;
  readonly #seen = new Float64Array(STATS_CELLS);
  readonly #mapped: Mapped[] = [];
  readonly #sink: StatsSink;
  readonly #package: string;

  constructor(sink: StatsSink, memory: SharedArrayBuffer, packageName: string) {
    this.#sink = sink;
    this.#package = packageName;
    this.#cells = new Float64Array(memory);
  }

  /** The sandbox defines a stat. What it says is checked. */
  define(told: unknown): void {
    const { kind, name, unit, cell } = told as Record<string, unknown>;
    if (kind !== "counter" && kind !== "gauge" && kind !== "histogram") return;
    // A line break in a name would let the sandbox forge lines of /stats.
    if (typeof name !== "string" || name.length > 256 || !/^[ -~]+$/.test(name)) return;
    if (typeof unit !== "string") return;
    const size = kind === "histogram" ? HISTOGRAM_CELLS : 1;
    if (
      typeof cell !== "number" ||
      !Number.isInteger(cell) ||
      cell < 0 ||
      cell + size > STATS_CELLS
    )
      return;
    if (this.#mapped.length >= STATS_CELLS) return;
    const to = this.#sink.define(kind, name, unit, this.#package);
    if (to >= 0) this.#mapped.push({ from: cell, to, size, isGauge: kind === "gauge" });
  }

  merge(): void {
    const { cells } = this.#sink;
    for (const { from, to, size, isGauge } of this.#mapped) {
      for (let k = 0; k < size; k++) {
        const now = this.#cells[from + k]!;
        const change = now - this.#seen[from + k]!;
        if (change === 0 || !Number.isFinite(change)) continue;
        this.#seen[from + k] = now;
        if (change > 0 || isGauge) cells[to + k]! += change;
      }
    }
  }

  /** The isolate has ended: its counts stay, its gauges are taken off. */
  end(): void {
    this.merge();
    for (const { from, to, isGauge } of this.#mapped)
      if (isGauge) this.#sink.cells[to]! -= this.#seen[from]!;
    this.#mapped.length = 0;
  }
}
