// Hot path: counters are bumped several times a request.
import type { Counter, Gauge, Histogram, Stats } from "@tsproxy/sdk";

/** Histogram cells: count, sum, then one a bucket. Bucket 0 holds values below 1; then 90 a decade (10…99 × 10^k). */
export const HISTOGRAM = { COUNT: 0, SUM: 1, BUCKETS: 2, DECADES: 10, PER_DECADE: 90 } as const;
export const HISTOGRAM_CELLS = HISTOGRAM.BUCKETS + 1 + HISTOGRAM.DECADES * HISTOGRAM.PER_DECADE;

export interface StatDefinition {
  readonly kind: "counter" | "gauge" | "histogram";
  readonly name: string;
  readonly unit: string;
  readonly cell: number;
}

class Cell implements Counter, Gauge {
  readonly #cells: Float64Array;
  readonly #at: number;

  constructor(cells: Float64Array, at: number) {
    this.#cells = cells;
    this.#at = at;
  }
  inc(): void {
    this.#cells[this.#at]!++;
  }
  dec(): void {
    this.#cells[this.#at]!--;
  }
  add(n: number): void {
    this.#cells[this.#at]! += n;
  }
  set(value: number): void {
    this.#cells[this.#at] = value;
  }
}

class Buckets implements Histogram {
  readonly #cells: Float64Array;
  readonly #at: number;

  constructor(cells: Float64Array, at: number) {
    this.#cells = cells;
    this.#at = at;
  }
  record(value: number): void {
    const v = Math.max(0, value);
    this.#cells[this.#at + HISTOGRAM.COUNT]!++;
    this.#cells[this.#at + HISTOGRAM.SUM]! += v;
    this.#cells[this.#at + HISTOGRAM.BUCKETS + bucketOf(v)]!++;
  }
}

function bucketOf(value: number): number {
  if (value < 1) return 0;
  let decade = 0;
  let scale = 1;
  while (value >= scale * 10 && decade < HISTOGRAM.DECADES - 1) {
    scale *= 10;
    decade++;
  }
  const digits = Math.min(99, Math.floor((value * 10) / scale));
  return 1 + decade * HISTOGRAM.PER_DECADE + digits - 10;
}

/** Names -> cells in the worker's block. A full block gives cells that nobody reads, and says so once. */
export class StatsTable {
  readonly #cells: Float64Array;
  readonly #byName = new Map<string, Cell | Buckets>();
  readonly #onFull: () => void;
  #next = 0;
  /** Defined since core last asked. */
  defined: StatDefinition[] = [];

  constructor(cells: Float64Array, onFull: () => void) {
    this.#cells = cells;
    this.#onFull = onFull;
  }

  cell(kind: "counter" | "gauge", name: string): Cell {
    const known = this.#byName.get(name);
    if (known instanceof Cell) return known;
    return this.#define(kind, name, "", 1, (cells, at) => new Cell(cells, at)) as Cell;
  }

  histogram(name: string, unit: string): Buckets {
    const known = this.#byName.get(name);
    if (known instanceof Buckets) return known;
    return this.#define(
      "histogram",
      name,
      unit,
      HISTOGRAM_CELLS,
      (cells, at) => new Buckets(cells, at),
    ) as Buckets;
  }

  #define(
    kind: StatDefinition["kind"],
    name: string,
    unit: string,
    size: number,
    make: (cells: Float64Array, at: number) => Cell | Buckets,
  ): Cell | Buckets {
    if (this.#next + size > this.#cells.length) {
      this.#onFull();
      return make(new Float64Array(size), 0);
    }
    // Nobody has written it yet: whatever is added to -0 or set is another value, so that a 0 that was written is told apart.
    if (size === 1 && this.#cells[this.#next] === 0) this.#cells[this.#next] = -0;
    const stat = make(this.#cells, this.#next);
    this.#byName.set(name, stat);
    this.defined.push({ kind, name, unit, cell: this.#next });
    this.#next += size;
    return stat;
  }
}

export class ScopedStats implements Stats {
  readonly #table: StatsTable;
  readonly #prefix: string;

  constructor(table: StatsTable, prefix: string) {
    this.#table = table;
    this.#prefix = prefix;
  }
  #name(name: string): string {
    const full = this.#prefix + name;
    return full.startsWith("@") ? full : full.replaceAll(":", "_");
  }
  counter(name: string): Counter {
    return this.#table.cell("counter", this.#name(name));
  }
  gauge(name: string): Gauge {
    return this.#table.cell("gauge", this.#name(name));
  }
  histogram(name: string, unit = ""): Histogram {
    return this.#table.histogram(this.#name(name), unit);
  }
  scope(prefix: string): Stats {
    return new ScopedStats(this.#table, this.#prefix + prefix);
  }
}
