/** Counts up. One cell per worker in shared memory; readers sum. */
export interface Counter {
  inc(): void;
  add(n: number): void;
}

export interface Gauge {
  inc(): void;
  dec(): void;
  add(n: number): void;
  set(value: number): void;
}

/** Values are spread over log-linear buckets of two significant digits, as Envoy's. */
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
   * Shows these names of this scope, at 0 until somebody counts there. Until then they take no memory: a hundred stats of a
   * thousand clusters are one set in a thousand scopes.
   */
  list?(set: StatSet): void;
}
