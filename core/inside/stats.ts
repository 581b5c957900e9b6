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

/** Names that are given back together, once nobody holds them. */
export interface LentStats {
  readonly key: string;
  holders: number;
  readonly names: Set<string>;
  readonly prefixes: Set<string>;
}

/** Prefixes under which the stats of a set exist. Core shows those that nobody has defined yet as never used. */
export interface StatList {
  readonly set: StatSet;
  readonly prefixes: readonly string[];
}

/** What core is told of stats that were given back. */
export interface StatReturn {
  readonly names: string[];
  /** Of the lists. */
  readonly prefixes: string[];
}

/**
 * A counter or gauge: one cell. What is not finite changes nothing, nor does a negative amount on a counter. What is no number throws:
 * that is a mistake in code, where peers could send a number that is not finite.
 */
class Cell implements Counter, Gauge {
  #cells: Float64Array;
  #at: number;
  /** The smallest amount that is taken. */
  readonly #min: number;

  constructor(cells: Float64Array, at: number, kind: "counter" | "gauge") {
    this.#cells = cells;
    this.#at = at;
    this.#min = kind === "counter" ? 0 : -Number.MAX_VALUE;
  }
  isIn(cells: Float64Array): boolean {
    return this.#cells === cells;
  }
  /** Answers where it was. Who still has it writes from now on what nobody reads. */
  takeBack(): number {
    const at = this.#at;
    this.#cells = new Float64Array(1);
    this.#at = 0;
    return at;
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
  #open: () => { readonly cells: Float64Array; readonly at: number };
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

  isIn(cells: Float64Array): boolean {
    return this.#cells === cells;
  }
  /** As of Cell; undefined: it has taken no cells. */
  takeBack(): number | undefined {
    const at = this.#cells === undefined ? undefined : this.#at;
    this.#open = () => ({ cells: new Float64Array(HISTOGRAM_CELLS), at: 0 });
    this.#cells = undefined;
    return at;
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
  readonly #lent = new Map<string, LentStats>();
  /** How many of them a name, or the prefix of a list, is in; Infinity: somebody else has it as well, and it stays. */
  readonly #loans = new Map<string, number>();
  /** Cells that were given back, by how many are together. */
  readonly #free = new Map<number, number[]>([
    [1, []],
    [HISTOGRAM_CELLS, []],
  ]);
  readonly #onFull: () => void;
  #isFull = false;
  #next: number;
  /** Stats defined since core was last told. */
  defined: StatDefinition[] = [];
  /** Prefixes that are listed for good. */
  readonly #prefixes = new Set<string>();
  /** Stats given back since core was last told, and the prefixes that are listed no more. */
  #returned: StatReturn = { names: [], prefixes: [] };
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

  has(name: string): boolean {
    return this.#byName.has(name);
  }

  /** Stats of that key; with each call one more holds them. */
  lend(key: string): LentStats {
    let lent = this.#lent.get(key);
    if (lent === undefined) {
      lent = { key, holders: 0, names: new Set(), prefixes: new Set() };
      this.#lent.set(key, lent);
    }
    lent.holders++;
    return lent;
  }

  /** One holder less; after the last one all of these stats are given back. */
  takeBack(lent: LentStats): void {
    if (--lent.holders > 0) return;
    this.#lent.delete(lent.key);
    const names = new Set([...lent.names].filter((name) => this.#isLast(name)));
    const prefixes = new Set([...lent.prefixes].filter((prefix) => this.#isLast(prefix)));
    for (const name of names) this.#giveUp(name);
    this.defined = this.defined.filter(({ name }) => !names.has(name));
    for (const [set, listed] of this.#listed)
      this.#listed.set(
        set,
        listed.filter((prefix) => !prefixes.has(prefix)),
      );
    this.#returned.names.push(...names);
    this.#returned.prefixes.push(...prefixes);
  }

  /** Notes in `lent` that it has that name or prefix, unless somebody has it for good. */
  note(name: string, lent: Set<string> | undefined, isKnown: boolean): void {
    const loans = this.#loans.get(name);
    if (lent === undefined) {
      if (loans !== undefined) this.#loans.set(name, Number.POSITIVE_INFINITY);
    } else if (!lent.has(name) && (loans !== undefined || !isKnown)) {
      lent.add(name);
      this.#loans.set(name, (loans ?? 0) + 1);
    }
  }

  #isLast(name: string): boolean {
    const left = this.#loans.get(name)! - 1;
    if (left === 0) this.#loans.delete(name);
    else this.#loans.set(name, left);
    return left === 0;
  }

  #giveUp(name: string): void {
    const stat = this.#byName.get(name);
    if (stat === undefined) return;
    this.#byName.delete(name);
    const inBlock = stat.isIn(this.#cells);
    const at = stat.takeBack();
    const size = stat instanceof Cell ? 1 : HISTOGRAM_CELLS;
    if (inBlock && at !== undefined) this.#free.get(size)!.push(at);
  }

  takeReturned(): StatReturn {
    const returned = this.#returned;
    this.#returned = { names: [], prefixes: [] };
    return returned;
  }

  /** Names the stats of a set under a prefix without taking cells for them. */
  list(prefix: string, set: StatSet, lent?: LentStats): void {
    this.note(prefix, lent?.prefixes, this.#prefixes.has(prefix));
    if (lent === undefined) this.#prefixes.add(prefix);
    const prefixes = this.#listed.get(set);
    if (prefixes === undefined) this.#listed.set(set, [prefix]);
    else prefixes.push(prefix);
  }

  get hasNews(): boolean {
    return (
      this.defined.length > 0 ||
      this.#listed.size > 0 ||
      this.#returned.names.length > 0 ||
      this.#returned.prefixes.length > 0
    );
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
    const free = this.#free.get(size)?.pop();
    if (free !== undefined) {
      this.#cells.fill(0, free, free + size);
      return { cells: this.#cells, at: free };
    }
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

const unread = (kind: "counter" | "gauge"): Cell => new Cell(new Float64Array(1), 0, kind);
const UNREAD: Histogram = { record() {} };

/** Stats whose names begin with a prefix. */
export class ScopedStats implements Stats {
  readonly #table: StatsTable;
  readonly #prefix: string;
  /** Where its names are noted. Undefined: they are never given back. */
  readonly #lent: LentStats | undefined;

  constructor(table: StatsTable, prefix: string, lent?: LentStats) {
    this.#table = table;
    this.#prefix = prefix;
    this.#lent = lent;
  }
  #name(name: string): string {
    const full = this.#prefix + name;
    return full.startsWith("@") ? full : full.replaceAll(":", "_");
  }
  #lend(name: string): string {
    const full = this.#name(name);
    this.#table.note(full, this.#lent?.names, this.#table.has(full));
    return full;
  }
  /** The stats have been given back: who comes later counts what nobody reads. */
  get #isOver(): boolean {
    return this.#lent?.holders === 0;
  }
  counter(name: string): Counter {
    return this.#isOver ? unread("counter") : this.#table.cell("counter", this.#lend(name));
  }
  gauge(name: string): Gauge {
    return this.#isOver ? unread("gauge") : this.#table.cell("gauge", this.#lend(name));
  }
  histogram(name: string, unit = ""): Histogram {
    return this.#isOver ? UNREAD : this.#table.histogram(this.#lend(name), unit);
  }
  scope(prefix: string): Stats {
    return new ScopedStats(this.#table, this.#prefix + prefix, this.#lent);
  }
  list(set: StatSet): void {
    if (!this.#isOver) this.#table.list(this.#name(""), set, this.#lent);
  }
}
