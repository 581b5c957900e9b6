import type { Counter, Gauge, Histogram, Stats } from "./stats.ts";

/** One stat that a package declares; `T` is what its filters get. */
export interface StatSpec<T> {
  open(stats: Stats, name: string): T;
}
export type DeclaredStats = Readonly<Record<string, StatSpec<unknown>>>;
export type OpenStats<D extends DeclaredStats> = {
  readonly [K in keyof D]: D[K] extends StatSpec<infer T> ? T : never;
};

/** One stat for each value of something: a tenant, a status. */
export interface Labelled<T> {
  /** Values past the cap share `other`. */
  of(value: string): T;
}

/** What `stats` of a definition is made of: `stats: { limited: stat.counter(), wait: stat.histogram("ms") }`. */
export const stat = {
  counter: (): StatSpec<Counter> => ({ open: (stats, name) => stats.counter(name) }),
  gauge: (): StatSpec<Gauge> => ({ open: (stats, name) => stats.gauge(name) }),
  /** `unit`: "ms", "bytes" or "". */
  histogram: (unit = ""): StatSpec<Histogram> => ({
    open: (stats, name) => stats.histogram(name, unit),
  }),
  /** `name.value` for each value, at most `max` of them: names are never given back, and values often come from clients. */
  labelled: <T>(spec: StatSpec<T>, max: number): StatSpec<Labelled<T>> => ({
    open: (stats, name) => new LabelledStats(spec, max, stats, name),
  }),
};

/** `scope`: what their names begin with, with its dot. */
export function openStats<D extends DeclaredStats>(
  declared: D | undefined,
  stats: Stats,
  scope: string,
): OpenStats<D> {
  const scoped = stats.scope(scope);
  const open = Object.entries(declared ?? {}).map(([name, spec]) => [
    name,
    spec.open(scoped, name),
  ]);
  return Object.fromEntries(open) as OpenStats<D>;
}

class LabelledStats<T> implements Labelled<T> {
  readonly #spec: StatSpec<T>;
  readonly #max: number;
  readonly #stats: Stats;
  readonly #name: string;
  readonly #byValue = new Map<string, T>();

  constructor(spec: StatSpec<T>, max: number, stats: Stats, name: string) {
    this.#spec = spec;
    this.#max = max;
    this.#stats = stats;
    this.#name = name;
  }

  of(value: string): T {
    const known = this.#byValue.get(value);
    if (known !== undefined) return known;
    const isFull = this.#byValue.size >= this.#max;
    // Dots would make other stats of it, and admin's lines end at a line's end.
    const label = isFull ? "other" : value.slice(0, 64).replace(/[^\w-]/g, "_");
    const made = this.#spec.open(this.#stats, `${this.#name}.${label}`);
    if (!isFull) this.#byValue.set(value, made);
    return made;
  }
}
