import { type CellSpec, firstTexts } from "./cells.ts";
import { byLabel, type Counter, type Gauge, type Histogram, type Stats } from "./stats.ts";

/** One stat that a package declares; `T` is what its filters get. */
export interface StatSpec<T> {
  open(stats: Stats, name: string, cells: StatCells): T;
}
/** Where stats keep what all workers have to agree on: the `cx` of a setup. */
export interface StatCells {
  cell<T>(name: string, spec: CellSpec<T>): T;
}
/** Specs of stats by name: `stats` of a definition. */
export type DeclaredStats = Readonly<Record<string, StatSpec<unknown>>>;
/** The stats themselves, under the names of their specs. */
export type OpenStats<D extends DeclaredStats> = {
  readonly [K in keyof D]: D[K] extends StatSpec<infer T> ? T : never;
};

/** One stat for each value of something that traffic decides: a tenant, a status. */
export interface Labelled<T> {
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
  /** `name.value` for each of the first `max` values that any worker sees; all others share `name.other` (`byLabel`). */
  labelled: <T>(spec: StatSpec<T>, max: number): StatSpec<Labelled<T>> => ({
    open(stats, name, cells) {
      const labels = cells.cell(`labels of ${name}`, firstTexts(max));
      return { of: byLabel(max, (label) => spec.open(stats, `${name}.${label}`, cells), labels) };
    },
  }),
};

/** `scope`: what their names begin with, with its dot. */
export function openStats<D extends DeclaredStats>(
  declared: D | undefined,
  stats: Stats,
  scope: string,
  cells: StatCells,
): OpenStats<D> {
  const scoped = stats.scope(scope);
  const open = Object.entries(declared ?? {}).map(([name, spec]) => [
    name,
    spec.open(scoped, name, cells),
  ]);
  return Object.fromEntries(open) as OpenStats<D>;
}
