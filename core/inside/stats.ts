// Hot path: several counters are incremented per request.
import type { Counter, Gauge, Histogram, StatSet, Stats } from "@tsproxy/sdk";

/** Cells of a histogram: count, sum, then one per bucket: one for values below 1, then 90 per decade (two significant digits). */
export const HISTOGRAM = { COUNT: 0, SUM: 1, BUCKETS: 2, DECADES: 10, PER_DECADE: 90 } as const;
export const HISTOGRAM_CELLS = HISTOGRAM.BUCKETS + 1 + HISTOGRAM.DECADES * HISTOGRAM.PER_DECADE;

/** A stat as core is told of it. */
export interface StatDefinition {
  readonly kind: "counter" | "gauge" | "histogram";
  readonly name: string;
  readonly unit: string;
  /** Index of its first cell; NAMED_ONLY: a histogram that this thread has not recorded into. */
  readonly cell: number;
}

export const NAMED_ONLY = -1;

/** Prefixes under which the stats of a set exist. Core shows those that nobody has defined yet as never used. */
export interface StatList {
  readonly set: StatSet;
  readonly prefixes: readonly string[];
}

/**
 * A counter or gauge: one cell. What is not finite changes nothing, nor does a negative amount on a counter. What is no number throws:
 * that is a mistake in code, where peers could send a number that is not finite.
 */
class Cell implements Counter, Gauge {
  readonly #cells: Float64Array;
  readonly #at: number;
  /** The smallest amount that is taken. */
  readonly #min: number;

  constructor(cells: Float64Array, at: number, kind: "counter" | "gauge") {
    this.#cells = cells;
    this.#at = at;
    this.#min = kind === "counter" ? 0 : -Number.MAX_VALUE;
  }
  inc(amount?: undefined): void {
    if (amount !== undefined) throw new TypeError(ONE_EACH);
    this.#cells[this.#at]!++;
  }
  dec(amount?: undefined): void {
    if (amount !== undefined) throw new TypeError(ONE_EACH);
    this.#cells[this.#at]!--;
  }
  add(n: number): void {
    if (typeof n !== "number") throw noNumber("add", n);
    if (n >= this.#min && n < Number.POSITIVE_INFINITY) this.#cells[this.#at]! += n;
  }
  set(value: number): void {
    if (typeof value !== "number") throw noNumber("set", value);
    if (value >= this.#min && value < Number.POSITIVE_INFINITY) this.#cells[this.#at] = value;
  }
}

/** A histogram. It takes its 7 KB of cells with the first value: most histograms of a large config stay empty on most threads. */
class Buckets implements Histogram {
  readonly #open: () => { readonly cells: Float64Array; readonly at: number };
  #cells: Float64Array | undefined = undefined;
  #at = 0;

  constructor(open: () => { readonly cells: Float64Array; readonly at: number }) {
    this.#open = open;
  }
  record(value: number): void {
    if (typeof value !== "number") throw noNumber("record", value);
    if (!(value < Number.POSITIVE_INFINITY)) return;
    const cells = this.#cells ?? this.#take();
    const v = Math.max(0, value);
    cells[this.#at + HISTOGRAM.COUNT]!++;
    cells[this.#at + HISTOGRAM.SUM]! += v;
    cells[this.#at + HISTOGRAM.BUCKETS + bucketOf(v)]!++;
  }

  #take(): Float64Array {
    const { cells, at } = this.#open();
    this.#cells = cells;
    this.#at = at;
    return cells;
  }
}

const ONE_EACH = "inc() and dec() of a stat count one; write add(n) for another amount";

const noNumber = (method: string, value: unknown): TypeError =>
  new TypeError(`${method}() of a stat was given a ${typeof value}; write a number`);

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

/** The stats of an isolate: names and their cells in the shared block. Once the block is full further stats are not counted. */
export class StatsTable {
  readonly #cells: Float64Array;
  readonly #byName = new Map<string, Cell | Buckets>();
  readonly #onFull: () => void;
  #isFull = false;
  #next: number;
  /** Stats defined since core was last told. */
  defined: StatDefinition[] = [];
  /** Prefixes listed since core was last told, by set. */
  #listed = new Map<StatSet, string[]>();

  /** `from`: the first free cell; those before it belong to earlier isolates. `onFull`: called once, if a stat finds no room. */
  constructor(cells: Float64Array, onFull: () => void, from = 0) {
    this.#next = from;
    this.#cells = cells;
    this.#onFull = onFull;
  }

  cell(kind: "counter" | "gauge", name: string): Cell {
    const known = this.#byName.get(name);
    if (known instanceof Cell) return known;
    const { cells, at } = this.#allot(1);
    // -0 marks a cell that was never written: any value that is set or added changes it, also a 0.
    if (cells[at] === 0) cells[at] = -0;
    const cell = new Cell(cells, at, kind);
    this.#byName.set(name, cell);
    if (cells === this.#cells) this.defined.push({ kind, name, unit: "", cell: at });
    return cell;
  }

  histogram(name: string, unit: string): Buckets {
    const known = this.#byName.get(name);
    if (known instanceof Buckets) return known;
    const define = (cell: number) => this.defined.push({ kind: "histogram", name, unit, cell });
    const buckets = new Buckets(() => {
      const allotted = this.#allot(HISTOGRAM_CELLS);
      if (allotted.cells === this.#cells) define(allotted.at);
      return allotted;
    });
    this.#byName.set(name, buckets);
    define(NAMED_ONLY);
    return buckets;
  }

  /** Names the stats of a set under a prefix without taking cells for them. */
  list(prefix: string, set: StatSet): void {
    const prefixes = this.#listed.get(set);
    if (prefixes === undefined) this.#listed.set(set, [prefix]);
    else prefixes.push(prefix);
  }

  get hasNews(): boolean {
    return this.defined.length > 0 || this.#listed.size > 0;
  }

  /** Takes cells for all listed stats. */
  defineListed(): void {
    for (const { set, prefixes } of this.takeListed())
      for (const prefix of prefixes) {
        for (const name of set.counters) this.cell("counter", prefix + name);
        for (const name of set.gauges) this.cell("gauge", prefix + name);
        for (const [name, unit] of set.histograms) this.histogram(prefix + name, unit);
      }
  }

  takeListed(): StatList[] {
    const lists = [...this.#listed].map(([set, prefixes]) => ({ set, prefixes }));
    this.#listed.clear();
    return lists;
  }

  /** Cells of the block; if it is full, private cells that nobody reads. */
  #allot(size: number): { readonly cells: Float64Array; readonly at: number } {
    if (this.#next + size > this.#cells.length) {
      if (!this.#isFull) this.#onFull();
      this.#isFull = true;
      return { cells: new Float64Array(size), at: 0 };
    }
    const at = this.#next;
    this.#next += size;
    return { cells: this.#cells, at };
  }
}

/** Stats whose names begin with a prefix. */
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
  list(set: StatSet): void {
    this.#table.list(this.#name(""), set);
  }
}
