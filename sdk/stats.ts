import type { FirstTexts } from "./cells.ts";

/** Counts up. One cell per worker in shared memory; readers sum. Here and below, an amount or value that is no number throws. */
export interface Counter {
  inc(): void;
  /** A negative `n`, or one that is not finite, changes nothing. */
  add(n: number): void;
}

/** An amount or value that is not finite changes nothing. */
export interface Gauge {
  inc(): void;
  dec(): void;
  add(n: number): void;
  set(value: number): void;
}

/** Counts values in log-linear buckets of two significant digits, as Envoy does. A value that is not finite is not counted. */
export interface Histogram {
  record(value: number): void;
}

/** Names of stats that many scopes have. */
export interface StatSet {
  readonly counters: readonly string[];
  readonly gauges: readonly string[];
  /** Each with its unit. */
  readonly histograms: readonly (readonly [name: string, unit: string])[];
}

/** Names are interned: asking twice gives the same cell. Dots separate; `:` becomes `_`. */
export interface Stats {
  counter(name: string): Counter;
  gauge(name: string): Gauge;
  /** `unit`: "ms", "bytes" or "". */
  histogram(name: string, unit?: string): Histogram;
  /** The same, every name behind `prefix` (which ends with a dot). */
  scope(prefix: string): Stats;
  /**
   * Makes these names of this scope appear, at 0, before anybody counts there. Until somebody does they take no memory: a thousand
   * clusters with a hundred stats each share one set.
   */
  list?(set: StatSet): void;
}

const LABEL_MAX = 64;

/**
 * A stat for each value of something that traffic decides, a path or a key. Names are never given back, so the first `max` values
 * alone have one of their own, and all others share that of `other`. Values become names: letters, digits, `_` and `-`, at most 64.
 * `labels`: which values are the first of all workers, and of all generations of the code; without it each of these has its own.
 *
 *     const keys = cx.cell("keys", firstTexts(100));
 *     const denied = byLabel(100, (key) => cx.stats.counter(`quota.${key}.denied`), keys);
 *     denied(headers.get("x-api-key") ?? "none").inc();
 */
export function byLabel<T>(
  max: number,
  make: (label: string) => T,
  labels?: FirstTexts,
): (value: string) => T {
  const known = new Map<string, T>();
  let other: T | undefined;
  return (value) => {
    const key = value.length > LABEL_MAX ? value.slice(0, LABEL_MAX) : value;
    const found = known.get(key);
    if (found !== undefined) return found;
    if (known.size >= max || labels?.admits(key) === false) {
      other ??= make("other");
      return other;
    }
    // A dot would begin another stat's name, and a line break another line of /stats.
    const made = make(key === "" ? "_" : key.replace(/[^\w-]/g, "_"));
    known.set(key, made);
    return made;
  };
}
