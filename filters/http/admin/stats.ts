import { type Answer, jsonPieces, text } from "./answer.ts";
import type { CoreData, Distribution, HistogramSnapshot, NamedValue } from "./core-data.ts";
import { BOUNDS, countsUpTo, QUANTILES, quantiles } from "./histogram.ts";
import { prometheus } from "./prometheus.ts";
import type { Query } from "./query.ts";
import { type Selection, select, selector } from "./selection.ts";

/** `/stats` */
export async function stats(query: Query, core: CoreData): Promise<Answer> {
  const format = query.choice("format", ["text", "json", "prometheus"]);
  if (format === "prometheus") return prometheus(query, core);
  const type = query.choice("type", ["All", "Counters", "Histograms", "Gauges", "TextReadouts"]);
  const mode = query.choice("histogram_buckets", ["summary", "cumulative", "disjoint"]);
  const wanted = selector(query);
  const all = select(await core.stats(), wanted);
  const is = (kind: typeof type) => type === "All" || type === kind;
  const selection: Selection = {
    counters: is("Counters") ? all.counters : [],
    gauges: is("Gauges") ? all.gauges : [],
    histograms: is("Histograms") ? all.histograms : [],
  };
  return format === "json"
    ? jsonPieces(jsonStats(selection, mode))
    : text(textStats(selection, mode));
}

/** Two sorted lists as one. */
function* merged(a: readonly NamedValue[], b: readonly NamedValue[]): Generator<NamedValue> {
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    const takeA = j === b.length || (i < a.length && a[i]![0] <= b[j]![0]);
    yield takeA ? a[i++]! : b[j++]!;
  }
}

/** Envoy's numbers have 64 bits and no sign: below 0 is where "no limit, less what is held" lies. */
function unsigned(value: number): string {
  return value < 0 ? String(BigInt.asUintN(64, BigInt(value))) : String(value);
}

type Mode = "summary" | "cumulative" | "disjoint";

function* textStats(selection: Selection, mode: Mode): Generator<string> {
  for (const [name, value] of merged(selection.counters, selection.gauges))
    yield `${name}: ${unsigned(value)}\n`;
  for (const histogram of selection.histograms) {
    const line = mode === "summary" ? textQuantiles(histogram) : textBuckets(histogram, mode);
    yield `${histogram.name}: ${line}\n`;
  }
}

function textQuantiles(histogram: HistogramSnapshot): string {
  const cumulative = quantiles(histogram);
  if (cumulative === undefined) return "No recorded values";
  const interval = quantiles(histogram.interval);
  return QUANTILES.map((q, k) => `P${q}(${interval?.[k] ?? "nan"},${cumulative[k]})`).join(" ");
}

function textBuckets(histogram: HistogramSnapshot, mode: Mode): string {
  if (histogram.count === 0) return "No recorded values";
  const cumulative = counts(histogram, mode);
  const interval = counts(histogram.interval, mode);
  return BOUNDS.map((bound, k) => `B${bound}(${interval[k]},${cumulative[k]})`).join(" ");
}

function counts(distribution: Distribution | null, mode: Mode): readonly number[] {
  const upTo = countsUpTo(distribution);
  return mode === "cumulative" ? upTo : upTo.map((n, k) => n - (k === 0 ? 0 : upTo[k - 1]!));
}

function* jsonStats(selection: Selection, mode: Mode): Generator<string> {
  let separator = '{"stats":[';
  for (const [name, value] of merged(selection.counters, selection.gauges)) {
    yield `${separator}${JSON.stringify({ name, value })}`;
    separator = ",";
  }
  const histograms = selection.histograms;
  if (histograms.length > 0 && mode === "summary") {
    yield `${separator}{"histograms":{"supported_quantiles":${JSON.stringify(QUANTILES)},"computed_quantiles":[`;
    for (const [k, histogram] of histograms.entries()) {
      const cumulative = quantiles(histogram);
      const interval = quantiles(histogram.interval);
      const values = QUANTILES.map((_, q) => ({
        cumulative: cumulative?.[q] ?? null,
        interval: interval?.[q] ?? null,
      }));
      yield `${k === 0 ? "" : ","}${JSON.stringify({ name: histogram.name, values })}`;
    }
    yield "]}}";
  } else if (histograms.length > 0) {
    yield `${separator}{"histograms":[`;
    for (const [k, histogram] of histograms.entries()) {
      const cumulative = counts(histogram, mode);
      const interval = counts(histogram.interval, mode);
      const buckets = BOUNDS.map((upper_bound, b) => ({
        upper_bound,
        interval: interval[b],
        cumulative: cumulative[b],
      }));
      yield `${k === 0 ? "" : ","}${JSON.stringify({ name: histogram.name, buckets })}`;
    }
    yield "]}";
  } else if (separator !== ",") yield separator;
  yield "]}";
}
