import { type Answer, escapeHtml, html, jsonPieces, Refused, text } from "./answer.ts";
import type { CoreData, Distribution, HistogramSnapshot, NamedValue } from "./core-data.ts";
import {
  type Bounds,
  bucketRange,
  countsUpTo,
  histogramMode,
  QUANTILES,
  quantiles,
} from "./histogram.ts";
import { prometheus } from "./prometheus.ts";
import type { Query } from "./query.ts";
import { type Selection, select, selector, unsigned } from "./selection.ts";
import { StatsConfig } from "./stats-config.ts";

const TYPES = ["All", "Counters", "Histograms", "Gauges", "TextReadouts"] as const;
const FORMATS = ["html", "active-html", "json", "prometheus", "text"];

/** `/stats` */
export async function stats(query: Query, core: CoreData): Promise<Answer> {
  const format = query.get("format") || "text";
  if (!FORMATS.includes(format))
    throw new Refused(400, `usage: /stats?format=(${FORMATS.join("|")})\n\n`);
  if (format === "prometheus") return prometheus(query, core);
  const asked = query.get("type") || "All";
  const type = TYPES.find((t) => t === asked);
  if (type === undefined) throw new Refused(400, "invalid &type= param");
  const mode = histogramMode(query, "summary");
  if (mode === "prometheusnative")
    throw new Refused(400, "Invalid histogram_buckets type for non prometheus stats type");
  const wanted = selector(query);
  const [snapshot, config] = await Promise.all([core.stats(), core.config()]);
  const all = select(snapshot, wanted);
  const is = (kind: typeof type) => type === "All" || type === kind;
  const selection: Selection = {
    counters: is("Counters") ? all.counters : [],
    gauges: is("Gauges") ? all.gauges : [],
    histograms: is("Histograms") ? all.histograms : [],
    hosts: all.hosts.map(({ counters, gauges }) => ({
      counters: is("Counters") ? counters : [],
      gauges: is("Gauges") ? gauges : [],
    })),
  };
  const bounds = new StatsConfig(config.bootstrap.stats_config, core.regex).bounds;
  if (format === "json") return jsonPieces(jsonStats(selection, mode, bounds));
  const lines = textStats(selection, mode, bounds);
  return format === "text" ? text(lines) : html(page(lines, format === "active-html"));
}

/** The lines as an HTML page. `active`: it reloads itself every 5 s. */
function page(lines: Iterable<string>, active: boolean): string {
  const again = active ? '<meta http-equiv="refresh" content="5">' : "";
  const body = escapeHtml([...lines].join(""));
  return `<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>stats</title>${again}</head><body><pre>\n${body}</pre></body></html>\n`;
}

/** Counters and gauges together, then, as in Envoy, those of each host. */
function* scalars(selection: Selection): Generator<NamedValue> {
  yield* merged(selection.counters, selection.gauges);
  for (const { counters, gauges } of selection.hosts) {
    yield* counters;
    yield* gauges;
  }
}

/** Merges two sorted lists. */
function* merged(a: readonly NamedValue[], b: readonly NamedValue[]): Generator<NamedValue> {
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    const takeA = j === b.length || (i < a.length && a[i]![0] <= b[j]![0]);
    yield takeA ? a[i++]! : b[j++]!;
  }
}

type BoundsOf = (name: string) => Bounds;

function* textStats(selection: Selection, mode: string, bounds: BoundsOf): Generator<string> {
  for (const [name, value] of scalars(selection)) yield `${name}: ${unsigned(value)}\n`;
  for (const histogram of selection.histograms) {
    if (mode === "detailed") yield detailed(histogram);
    else {
      const line =
        mode === "summary"
          ? textQuantiles(histogram)
          : textBuckets(histogram, mode, bounds(histogram.name));
      yield `${histogram.name}: ${line}\n`;
    }
  }
}

function textQuantiles(histogram: HistogramSnapshot): string {
  const cumulative = quantiles(histogram);
  if (cumulative === undefined) return "No recorded values";
  const interval = quantiles(histogram.interval);
  return QUANTILES.map((q, k) => `P${q}(${interval?.[k] ?? "nan"},${cumulative[k]})`).join(" ");
}

function textBuckets(histogram: HistogramSnapshot, mode: string, bounds: Bounds): string {
  if (histogram.count === 0) return "No recorded values";
  const cumulative = counts(histogram, mode, bounds);
  const interval = counts(histogram.interval, mode, bounds);
  return bounds
    .map((bound, k) => `B${sixDigits(bound)}(${interval[k]},${cumulative[k]})`)
    .join(" ");
}

/** Prints a number as C's `%g`, which Envoy uses for bounds. */
function sixDigits(value: number): string {
  const exponent = Math.floor(Math.log10(value));
  if (exponent < 6) return String(Number(value.toPrecision(6)));
  const mantissa = Number((value / 10 ** exponent).toPrecision(6));
  return `${mantissa}e+${String(exponent).padStart(2, "0")}`;
}

function detailed(histogram: HistogramSnapshot): string {
  const buckets = (distribution: Distribution | null) =>
    detailedBuckets(distribution)
      .map(({ lower_bound, width, count }) => ` ${lower_bound},${width}:${count}`)
      .join(",")
      .trimStart();
  if (histogram.count === 0) return `${histogram.name}: No recorded values\n`;
  return (
    `${histogram.name}:\n  totals=${buckets(histogram)}\n` +
    `  intervals=${buckets(histogram.interval)}\n  summary=${textQuantiles(histogram)}\n`
  );
}

function detailedBuckets(distribution: Distribution | null) {
  return (distribution?.buckets ?? []).map(([upper, count]) => {
    const { lower, width } = bucketRange(upper);
    return { lower_bound: lower, width, count };
  });
}

function counts(
  distribution: Distribution | null,
  mode: string,
  bounds: Bounds,
): readonly number[] {
  const upTo = countsUpTo(distribution, bounds);
  return mode === "cumulative" ? upTo : upTo.map((n, k) => n - (k === 0 ? 0 : upTo[k - 1]!));
}

function* jsonStats(selection: Selection, mode: string, bounds: BoundsOf): Generator<string> {
  let separator = '{"stats":[';
  for (const [name, value] of scalars(selection)) {
    yield `${separator}{"name":${JSON.stringify(name)},"value":${unsigned(value)}}`;
    separator = ",";
  }
  const histograms = selection.histograms;
  if (histograms.length === 0) {
    yield separator === "," ? "]}" : `${separator}]}`;
    return;
  }
  const quantileNames = JSON.stringify(QUANTILES);
  const [head, tail] =
    mode === "summary"
      ? [`{"supported_quantiles":${quantileNames},"computed_quantiles":[`, "]}"]
      : mode === "detailed"
        ? [`{"supported_percentiles":${quantileNames},"details":[`, "]}"]
        : ["[", "]"];
  yield `${separator}{"histograms":${head}`;
  for (const [k, histogram] of histograms.entries()) {
    const printed = jsonHistogram(histogram, mode, bounds(histogram.name));
    yield `${k === 0 ? "" : ","}${JSON.stringify(printed)}`;
  }
  yield `${tail}}]}`;
}

function jsonHistogram(histogram: HistogramSnapshot, mode: string, bounds: Bounds): object {
  const { name } = histogram;
  if (mode !== "summary" && mode !== "detailed") {
    const cumulative = counts(histogram, mode, bounds);
    const interval = counts(histogram.interval, mode, bounds);
    const buckets = bounds.map((upper_bound, b) => ({
      upper_bound,
      interval: interval[b],
      cumulative: cumulative[b],
    }));
    return { name, buckets };
  }
  const cumulative = quantiles(histogram);
  const interval = quantiles(histogram.interval);
  const values = QUANTILES.map((_, q) => ({
    cumulative: cumulative?.[q] ?? null,
    interval: interval?.[q] ?? null,
  }));
  if (mode === "summary") return { name, values };
  return {
    name,
    totals: detailedBuckets(histogram),
    intervals: detailedBuckets(histogram.interval),
    percentiles: values,
  };
}
