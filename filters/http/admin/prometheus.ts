import { type Answer, text } from "./answer.ts";
import type { CoreData } from "./core-data.ts";
import { BOUNDS, countsUpTo, QUANTILES, quantiles } from "./histogram.ts";
import type { Query } from "./query.ts";
import { select, selector } from "./selection.ts";
import { extractTags } from "./tags.ts";

/** `/stats/prometheus`: Prometheus' text format 0.0.4 under Envoy's names. */
export async function prometheus(query: Query, core: CoreData): Promise<Answer> {
  const mode = query.choice("histogram_buckets", ["cumulative", "summary"]);
  const wanted = selector(query);
  const { counters, gauges, histograms } = select(await core.stats(), wanted);

  function* body(): Generator<string> {
    yield* families("counter", counters, ([name]) => name, scalar);
    yield* families("gauge", gauges, ([name]) => name, scalar);
    const type = mode === "summary" ? "summary" : "histogram";
    yield* families(type, histograms, (h) => h.name, mode === "summary" ? summary : buckets);
  }
  return text(body());
}

type Labels = string;

/** Stats of one metric name, which must stand together under one TYPE line. */
function* families<T>(
  type: string,
  list: readonly T[],
  nameOf: (stat: T) => string,
  lines: (metric: string, labels: Labels, stat: T) => string,
): Generator<string> {
  const byMetric = new Map<string, { readonly labels: Labels; readonly stat: T }[]>();
  for (const stat of list) {
    const { name, tags } = extractTags(nameOf(stat));
    const metric = `envoy_${name.replace(/[^a-zA-Z0-9_]/g, "_")}`;
    const labels = tags
      .map(([tag, value]) => `${tag.replace(/[^a-zA-Z0-9_]/g, "_")}="${escapeLabel(value)}"`)
      .join(",");
    const family = byMetric.get(metric);
    if (family === undefined) byMetric.set(metric, [{ labels, stat }]);
    else family.push({ labels, stat });
  }
  for (const metric of [...byMetric.keys()].sort()) {
    yield `# TYPE ${metric} ${type}\n`;
    for (const { labels, stat } of byMetric.get(metric)!) yield lines(metric, labels, stat);
  }
}

function escapeLabel(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

function scalar(metric: string, labels: Labels, [, value]: readonly [string, number]): string {
  return `${metric}{${labels}} ${value}\n`;
}

type Histogram = Parameters<typeof countsUpTo>[0] & object;

function buckets(metric: string, labels: Labels, histogram: Histogram): string {
  const prefix = labels === "" ? "" : `${labels},`;
  let lines = "";
  for (const [k, count] of countsUpTo(histogram).entries()) {
    lines += `${metric}_bucket{${prefix}le="${BOUNDS[k]}"} ${count}\n`;
  }
  lines += `${metric}_bucket{${prefix}le="+Inf"} ${histogram.count}\n`;
  return lines + total(metric, labels, histogram);
}

function summary(metric: string, labels: Labels, histogram: Histogram): string {
  const prefix = labels === "" ? "" : `${labels},`;
  const values = quantiles(histogram);
  let lines = "";
  for (const [k, percent] of QUANTILES.entries()) {
    lines += `${metric}{${prefix}quantile="${(percent / 100).toFixed(3).replace(/\.?0+$/, "")}"} ${values?.[k] ?? "NaN"}\n`;
  }
  return lines + total(metric, labels, histogram);
}

function total(metric: string, labels: Labels, histogram: Histogram): string {
  return `${metric}_sum{${labels}} ${histogram.sum}\n${metric}_count{${labels}} ${histogram.count}\n`;
}
