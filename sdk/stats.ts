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

/** Names are interned: asking twice gives the same cell. Dots separate; `:` becomes `_`. */
export interface Stats {
  counter(name: string): Counter;
  gauge(name: string): Gauge;
  /** `unit`: "ms", "bytes" or "". */
  histogram(name: string, unit?: string): Histogram;
  /** The same, every name behind `prefix` (which ends with a dot). */
  scope(prefix: string): Stats;
}
