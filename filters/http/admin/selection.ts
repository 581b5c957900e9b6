import { Refused } from "./answer.ts";
import type { HistogramSnapshot, HostStats, NamedValue, StatsSnapshot } from "./core-data.ts";
import type { Matcher, Query } from "./query.ts";

/** The stats that a request asks for, each list sorted by name; those of hosts stand as in Envoy, host by host. */
export interface Selection {
  readonly counters: readonly NamedValue[];
  readonly gauges: readonly NamedValue[];
  readonly histograms: readonly HistogramSnapshot[];
  readonly hosts: readonly HostStats[];
}

const HIDDEN = ["include", "only", "exclude"];

/** Makes the test for `filter`, `invert_filter`, `usedonly` and `hidden`. No stat is hidden, so `hidden=only` selects none. */
export function selector(query: Query): (name: string, used: boolean) => boolean {
  const matches: Matcher | undefined = query.matcher("filter");
  const usedOnly = query.has("usedonly");
  const inverted = query.has("invert_filter");
  const hidden = query.get("hidden") || "exclude";
  if (!HIDDEN.includes(hidden))
    throw new Refused(400, `usage: /stats?hidden=(${HIDDEN.join("|")})\n\n`);
  const hiddenOnly = hidden === "only";
  return (name, used) =>
    !hiddenOnly && (used || !usedOnly) && (matches === undefined || matches(name) !== inverted);
}

export function select(
  snapshot: StatsSnapshot,
  wanted: (name: string, used: boolean) => boolean,
): Selection {
  const chosen = (list: readonly NamedValue[]) =>
    list.filter(([name, , used]) => !name.startsWith("@") && wanted(name, used));
  const scalars = (list: readonly NamedValue[]) =>
    chosen(list).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return {
    counters: scalars(snapshot.counters),
    gauges: scalars(snapshot.gauges),
    histograms: snapshot.histograms
      .filter((h) => !h.name.startsWith("@") && wanted(h.name, h.count > 0))
      .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0)),
    hosts: (snapshot.hosts ?? []).map(({ counters, gauges }) => ({
      counters: chosen(counters),
      gauges: chosen(gauges),
    })),
  };
}

/** Prints a number as Envoy's unsigned 64-bit stats: a negative one, such as what remains of "no limit", wraps around. */
export function unsigned(value: number): string {
  return value < 0 ? String(BigInt.asUintN(64, BigInt(value))) : String(value);
}
