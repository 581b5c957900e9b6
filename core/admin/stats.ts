import type { StatSet } from "@tsproxy/sdk";
import {
  HISTOGRAM,
  HISTOGRAM_CELLS,
  NAMED_ONLY,
  type StatDefinition,
  type StatList,
  type StatReturn,
} from "../inside/stats.ts";

export interface Distribution {
  readonly count: number;
  readonly sum: number;
  /** [upper bound, count] of each bucket that is not empty, ascending. */
  readonly buckets: readonly (readonly [number, number])[];
}

export interface HistogramSnapshot extends Distribution {
  readonly name: string;
  readonly unit: string;
  /** Of the last full interval, or null if nothing was recorded in it. */
  readonly interval: Distribution | null;
}

/** `used`: it was written, if only with 0. */
export type NamedValue = readonly [name: string, value: number, used: boolean];

export interface StatsSnapshot {
  readonly counters: readonly NamedValue[];
  readonly gauges: readonly NamedValue[];
  readonly histograms: readonly HistogramSnapshot[];
}

interface Place {
  /** The sandboxed package that has defined it; "": the proxy itself. */
  readonly owner: string;
  readonly kind: StatDefinition["kind"];
  readonly unit: string;
  /** Left out of snapshots (`stats_config.stats_matcher`). */
  hidden: boolean;
  /** Its cells: one for each thread, and for each isolate that the thread has had. */
  cells: readonly CellPlace[];
}

interface CellPlace {
  readonly block: Float64Array;
  readonly at: number;
  /** Its isolate is gone: nobody will give it back. */
  readonly lost?: boolean;
}

const NO_CELLS: Place["cells"] = [];
/** One string for each kind; every message brings its own copy. */
const KINDS = { counter: "counter", gauge: "gauge", histogram: "histogram" } as const;

/** How many of the names looked up last are kept while tracking is on (admin's `/stats/recentlookups`). */
const LOOKUPS_KEPT = 100;

/** Of so many names that were refused it is said once. */
const REFUSED_MAX = 1000;

/** A stat of a sandboxed package whose name belongs to the proxy or to another package. */
export interface RefusedStat {
  readonly owner: string;
  readonly name: string;
}

/** Sums the cells of all threads by name. Threads write their own cells without locks; a sum may be a moment old. */
export class StatsReader {
  readonly #places = new Map<string, Place>();
  /** Names in `#places` that sandboxed packages have defined. */
  readonly #ofPackages = new Set<string>();
  /** Owner and name of each refused stat, and those that nobody has been told of. */
  readonly #refused = new Set<string>();
  readonly #untold: RefusedStat[] = [];
  /** The sets of stats that scopes list, by prefix; `#sets` keeps equal ones once, by their JSON. */
  readonly #listed = new Map<string, readonly StatSet[]>();
  readonly #sets = new Map<string, StatSet>();
  /** Names that isolates which are gone have counted under. */
  readonly #lost = new Set<string>();
  /** Counters' sums at the last `resetCounters`. */
  readonly #zero = new Map<string, number>();
  /** Of histograms, at the end of the last interval: their totals, and (`#intervals`) what was recorded in that interval. */
  readonly #lastTotals = new Map<string, Float64Array>();
  readonly #intervals = new Map<string, Float64Array>();
  #excludes: (name: string) => boolean = () => false;
  #lookups: Map<string, number> | undefined;
  /** Number of names that threads have looked up. */
  lookups = 0;

  /** Called when a thread has defined names. `memory`: its stats memory. */
  define(memory: SharedArrayBuffer, defined: readonly StatDefinition[]): void {
    const block = new Float64Array(memory);
    for (const stat of defined) {
      this.#noteLookup(stat.name);
      this.#takeBack(stat.name);
      this.#add("", block, stat);
    }
  }

  /** Called when a sandboxed package has defined names in a thread. Those that belong to somebody else are refused. */
  defineOf(owner: string, memory: SharedArrayBuffer, defined: readonly StatDefinition[]): void {
    const block = new Float64Array(memory);
    for (const stat of defined) {
      const { name } = stat;
      this.#noteLookup(name);
      const isFree = !this.#places.has(name) && !this.#isListed(name) && !name.startsWith("@");
      if (!isFree && this.#places.get(name)?.owner !== owner) {
        this.#refuse(owner, name);
        continue;
      }
      this.#ofPackages.add(name);
      this.#add(owner, block, stat);
    }
  }

  #add(owner: string, block: Float64Array, { kind, name, unit, cell }: StatDefinition): void {
    let place = this.#places.get(name);
    if (place === undefined) {
      place = { owner, kind: KINDS[kind], unit, hidden: this.#excludes(name), cells: NO_CELLS };
      this.#places.set(name, place);
    }
    const known = place.cells.some((c) => c.block.buffer === block.buffer && c.at === cell);
    if (place.kind === kind && !known && cell !== NAMED_ONLY)
      place.cells = [...place.cells, { block, at: cell }];
  }

  /** The proxy itself uses this name: what a package has counted there is dropped. */
  #takeBack(name: string): void {
    if (!this.#ofPackages.delete(name)) return;
    this.#refuse(this.#places.get(name)!.owner, name);
    for (const map of [this.#places, this.#zero, this.#lastTotals, this.#intervals])
      map.delete(name);
  }

  #refuse(owner: string, name: string): void {
    const key = `${owner} ${name}`;
    if (this.#refused.has(key) || this.#refused.size >= REFUSED_MAX) return;
    this.#refused.add(key);
    this.#untold.push({ owner, name });
  }

  /** The names refused since the last call, each of them once. */
  takeRefused(): readonly RefusedStat[] {
    return this.#untold.splice(0);
  }

  /** Called when a thread has listed scopes, whose stats show as 0 until they are defined. */
  list(lists: readonly StatList[]): void {
    for (const { set, prefixes } of lists) {
      const text = JSON.stringify(set);
      const known = this.#sets.get(text) ?? set;
      this.#sets.set(text, known);
      for (const prefix of prefixes) {
        const sets = this.#listed.get(prefix) ?? [];
        if (!sets.includes(known)) this.#listed.set(prefix, [...sets, known]);
      }
    }
    for (const name of this.#ofPackages) if (this.#isListed(name)) this.#takeBack(name);
  }

  /** Called when a thread has given stats back. A name goes with the last thread that counts under it, and with its list. */
  takeBack(memory: SharedArrayBuffer, { names, prefixes }: StatReturn): void {
    for (const prefix of prefixes) {
      this.#listed.delete(prefix);
      for (const name of this.#lost) if (name.startsWith(prefix)) this.#removeUnused(name);
    }
    for (const name of names) {
      const place = this.#places.get(name);
      if (place === undefined) continue;
      place.cells = place.cells.filter(({ block }) => block.buffer !== memory);
      this.#removeUnused(name);
    }
  }

  #removeUnused(name: string): void {
    if (this.#places.get(name)?.cells.some(({ lost }) => lost !== true) === true) return;
    for (const map of [this.#places, this.#zero, this.#lastTotals, this.#intervals])
      map.delete(name);
    this.#lost.delete(name);
  }

  #isListed(name: string): boolean {
    for (let at = name.lastIndexOf(".") + 1; ; at = name.lastIndexOf(".", at - 2) + 1) {
      const own = name.slice(at);
      for (const { counters, gauges, histograms } of this.#listed.get(name.slice(0, at)) ?? [])
        if (counters.includes(own) || gauges.includes(own) || histograms.some(([h]) => h === own))
          return true;
      if (at <= 1) return false;
    }
  }

  /** Listed names that no thread has defined. */
  *#unused(): Generator<readonly [kind: StatDefinition["kind"], name: string, unit: string]> {
    for (const [prefix, sets] of this.#listed) {
      // Another version of a package may list some of the same names.
      const told = sets.length > 1 ? new Set<string>() : undefined;
      const isNew = (name: string) => {
        if (this.#places.has(name) || told?.has(name) || this.#excludes(name)) return false;
        told?.add(name);
        return true;
      };
      for (const { counters, gauges, histograms } of sets) {
        for (const own of counters) if (isNew(prefix + own)) yield ["counter", prefix + own, ""];
        for (const own of gauges) if (isNew(prefix + own)) yield ["gauge", prefix + own, ""];
        for (const [own, unit] of histograms)
          if (isNew(prefix + own)) yield ["histogram", prefix + own, unit];
      }
    }
  }

  #noteLookup(name: string): void {
    this.lookups++;
    const list = this.#lookups;
    if (list === undefined) return;
    const times = list.get(name) ?? 0;
    list.delete(name);
    list.set(name, times + 1);
    if (list.size > LOOKUPS_KEPT) list.delete(list.keys().next().value!);
  }

  /** Sets which names snapshots leave out. They are counted all the same. */
  exclude(excludes: (name: string) => boolean): void {
    this.#excludes = excludes;
    for (const [name, place] of this.#places) place.hidden = excludes(name);
  }

  /** The names looked up since tracking was enabled, the latest last. Undefined: it is off. */
  get recentLookups(): readonly (readonly [name: string, times: number])[] | undefined {
    return this.#lookups && [...this.#lookups];
  }
  trackLookups(enabled: boolean): void {
    this.#lookups = enabled ? (this.#lookups ?? new Map()) : undefined;
  }
  clearLookups(): void {
    this.lookups = 0;
    this.#lookups?.clear();
  }

  /** Called when a thread or its isolates are gone: its counters stay in the sums, its gauges do not. */
  forget(memory: SharedArrayBuffer): void {
    for (const [name, place] of this.#places) {
      if (!place.cells.some(({ block }) => block.buffer === memory)) continue;
      if (place.kind === "gauge")
        place.cells = place.cells.filter((c) => c.block.buffer !== memory);
      else {
        place.cells = place.cells.map((c) =>
          c.block.buffer === memory ? { ...c, lost: true } : c,
        );
        this.#lost.add(name);
      }
    }
  }

  /** The value of a counter or gauge; 0 if there is none. */
  value(name: string): number {
    let sum = -(this.#zero.get(name) ?? 0);
    for (const { block, at } of this.#places.get(name)?.cells ?? []) sum += block[at]!;
    return sum;
  }

  snapshot(): StatsSnapshot {
    const counters: NamedValue[] = [];
    const gauges: NamedValue[] = [];
    const histograms: HistogramSnapshot[] = [];
    for (const [name, place] of this.#places) {
      if (place.hidden) continue;
      if (place.kind === "histogram") {
        // As in Envoy, values show once the interval in which they were recorded has ended.
        const total = this.#lastTotals.get(name);
        const interval = this.#intervals.get(name);
        histograms.push({
          name,
          unit: place.unit,
          ...(total === undefined ? NOTHING : summary(total)),
          interval:
            interval === undefined || interval[HISTOGRAM.COUNT] === 0 ? null : summary(interval),
        });
        continue;
      }
      let sum = -(this.#zero.get(name) ?? 0);
      let used = false;
      for (const { block, at } of place.cells) {
        const value = block[at]!;
        // A cell that was never written holds -0 (inside/stats.ts).
        used ||= !Object.is(value, -0);
        sum += value;
      }
      (place.kind === "counter" ? counters : gauges).push([name, sum + 0, used]);
    }
    for (const [kind, name, unit] of this.#unused()) {
      if (kind === "histogram") histograms.push({ name, unit, ...NOTHING, interval: null });
      else (kind === "counter" ? counters : gauges).push([name, 0, false]);
    }
    return { counters, gauges, histograms };
  }

  /** Counters read 0 from now on. Gauges and histograms stay (Envoy's /reset_counters). */
  resetCounters(): void {
    for (const [name, place] of this.#places) {
      if (place.kind !== "counter") continue;
      let sum = 0;
      for (const { block, at } of place.cells) sum += block[at]!;
      this.#zero.set(name, sum);
    }
  }

  /** Ends an interval of histograms; called once in each `stats_flush_interval`. */
  flush(): void {
    for (const [name, place] of this.#places) {
      if (place.kind !== "histogram" || place.cells.length === 0) continue;
      const last = this.#lastTotals.get(name);
      if (countOf(place) === (last?.[HISTOGRAM.COUNT] ?? 0)) {
        this.#intervals.delete(name);
        continue;
      }
      const total = totals(place);
      this.#lastTotals.set(name, total);
      this.#intervals.set(name, last === undefined ? total : total.map((v, k) => v - last[k]!));
    }
  }
}

const NOTHING: Distribution = { count: 0, sum: 0, buckets: [] };

function countOf({ cells }: Place): number {
  return cells.reduce((sum, { block, at }) => sum + block[at + HISTOGRAM.COUNT]!, 0);
}

function totals(place: Place): Float64Array {
  const sum = new Float64Array(HISTOGRAM_CELLS);
  for (const { block, at } of place.cells)
    for (let k = 0; k < HISTOGRAM_CELLS; k++) sum[k]! += block[at + k]!;
  return sum;
}

function summary(cells: Float64Array): { count: number; sum: number; buckets: [number, number][] } {
  const buckets: [number, number][] = [];
  for (let k = 0; k < HISTOGRAM_CELLS - HISTOGRAM.BUCKETS; k++) {
    const n = cells[HISTOGRAM.BUCKETS + k]!;
    if (n > 0) buckets.push([upperBound(k), n]);
  }
  return { count: cells[HISTOGRAM.COUNT]!, sum: cells[HISTOGRAM.SUM]!, buckets };
}

/** The upper bound of a bucket. Bucket 0 ends at 1; bucket k of decade d holds [digits, digits + 1) × 10^(d - 1). */
function upperBound(bucket: number): number {
  if (bucket === 0) return 1;
  const decade = Math.floor((bucket - 1) / HISTOGRAM.PER_DECADE);
  const digits = ((bucket - 1) % HISTOGRAM.PER_DECADE) + 11;
  return Number((digits * 10 ** (decade - 1)).toPrecision(3));
}
