import type { HistogramSnapshot, NamedValue, StatsSnapshot } from "./core-data.ts";
import type { Matcher, Query } from "./query.ts";

/** The stats that a request asks for, each list sorted by name. */
export interface Selection {
  readonly counters: readonly NamedValue[];
  readonly gauges: readonly NamedValue[];
  readonly histograms: readonly HistogramSnapshot[];
}

/** What `filter`, `invert_filter` and `usedonly` leave. A stat at 0 counts as unused: cells do not tell who wrote a 0. */
export function selector(query: Query): (name: string, used: boolean) => boolean {
  const matches: Matcher | undefined = query.matcher("filter");
  const usedOnly = query.has("usedonly");
  const inverted = query.has("invert_filter");
  return (name, used) =>
    (used || !usedOnly) && (matches === undefined || matches(name) !== inverted);
}

export function select(
  snapshot: StatsSnapshot,
  wanted: (name: string, used: boolean) => boolean,
): Selection {
  const scalars = (list: readonly NamedValue[]) =>
    list
      .filter(([name, value]) => !name.startsWith("@") && wanted(name, value !== 0))
      .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return {
    counters: scalars(snapshot.counters),
    gauges: scalars(snapshot.gauges),
    histograms: snapshot.histograms
      .filter((h) => !h.name.startsWith("@") && wanted(h.name, h.count > 0))
      .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0)),
  };
}
