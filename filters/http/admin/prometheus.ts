import { type Answer, Refused, text } from "./answer.ts";
import type {
  CoreData,
  Distribution,
  HistogramSnapshot,
  NamedValue,
  StatsSnapshot,
} from "./core-data.ts";
import {
  type Bounds,
  countsUpTo,
  histogramMode,
  QUANTILES,
  quantiles,
  sumOfBuckets,
} from "./histogram.ts";
import type { Query } from "./query.ts";
import { select, selector, unsigned } from "./selection.ts";
import { StatsConfig } from "./stats-config.ts";
import { Tagger } from "./tags.ts";

/** `/stats/prometheus`: Prometheus' text format 0.0.4 under Envoy's names. */
export async function prometheus(query: Query, core: CoreData): Promise<Answer> {
  const mode = histogramMode(query, "cumulative");
  if (mode === "prometheusnative")
    throw new Refused(
      400,
      "unsupported prometheusnative histogram type when not using protobuf exposition format",
    );
  if (mode !== "cumulative" && mode !== "summary")
    throw new Refused(400, "unsupported prometheus histogram bucket mode");
  const wanted = selector(query);
  const [snapshot, dump] = await Promise.all([core.stats(), core.config()]);
  const { counters, gauges, histograms } = select(withHosts(snapshot), wanted);
  const config = new StatsConfig(dump.bootstrap.stats_config, core.regex);
  const tagger = new Tagger(config.rules, config.fixedTags);
  const bounds = config.bounds;
  const buckets: Lines<HistogramSnapshot> = (metric, labels, histogram) =>
    bucketLines(metric, labels, histogram, bounds(histogram.name));

  function* body(): Generator<string> {
    yield* families(tagger, "counter", counters, ([name]) => name, scalar);
    yield* families(tagger, "gauge", gauges, ([name]) => name, scalar);
    const type = mode === "summary" ? "summary" : "histogram";
    yield* families(
      tagger,
      type,
      histograms,
      (h) => h.name,
      mode === "summary" ? summary : buckets,
    );
  }
  return text(body());
}

type Labels = string;
type Lines<T> = (metric: string, labels: Labels, stat: T) => string;

/** The stats of hosts among the others: here they stand by family. */
function withHosts({ counters, gauges, hosts = [], ...rest }: StatsSnapshot): StatsSnapshot {
  return {
    ...rest,
    counters: [...counters, ...hosts.flatMap((host) => host.counters)],
    gauges: [...gauges, ...hosts.flatMap((host) => host.gauges)],
  };
}

/** Prints stats metric by metric: those of one metric name have to stand together under one TYPE line. */
function* families<T>(
  tagger: Tagger,
  type: string,
  list: readonly T[],
  nameOf: (stat: T) => string,
  lines: Lines<T>,
): Generator<string> {
  const byName = new Map<string, { readonly labels: Labels; readonly stat: T }[]>();
  for (const stat of list) {
    const { name, tags } = tagger.extract(nameOf(stat));
    const labels = tags
      .map(([tag, value]) => `${tag.replace(/[^a-zA-Z0-9_]/g, "_")}="${escapeLabel(value)}"`)
      .join(",");
    const family = byName.get(name);
    if (family === undefined) byName.set(name, [{ labels, stat }]);
    else family.push({ labels, stat });
  }
  // Sorted by the stats' names, not by the metrics': `http.x` comes before `http1.x`, but `http_x` would come after `http1_x`.
  for (const name of [...byName.keys()].sort()) {
    const metric = `envoy_${name.replace(/[^a-zA-Z0-9_]/g, "_")}`;
    yield `# TYPE ${metric} ${type}\n`;
    for (const { labels, stat } of byName.get(name)!) yield lines(metric, labels, stat);
  }
}

function escapeLabel(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

function scalar(metric: string, labels: Labels, [, value]: NamedValue): string {
  return `${metric}{${labels}} ${unsigned(value)}\n`;
}

function bucketLines(
  metric: string,
  labels: Labels,
  histogram: HistogramSnapshot,
  bounds: Bounds,
): string {
  const prefix = labels === "" ? "" : `${labels},`;
  let lines = "";
  for (const [k, count] of countsUpTo(histogram, bounds).entries()) {
    lines += `${metric}_bucket{${prefix}le="${bounds[k]}"} ${count}\n`;
  }
  lines += `${metric}_bucket{${prefix}le="+Inf"} ${histogram.count}\n`;
  return lines + total(metric, labels, histogram);
}

/** Makes the lines of a summary; as in Envoy, it covers the last interval only. */
function summary(metric: string, labels: Labels, { interval }: HistogramSnapshot): string {
  const prefix = labels === "" ? "" : `${labels},`;
  const values = quantiles(interval);
  let lines = "";
  for (const [k, percent] of QUANTILES.entries()) {
    lines += `${metric}{${prefix}quantile="${Number((percent / 100).toFixed(4))}"} ${values === undefined ? "nan" : digits(values[k]!)}\n`;
  }
  return lines + total(metric, labels, interval);
}

function total(metric: string, labels: Labels, distribution: Distribution | null): string {
  const sum = digits(sumOfBuckets(distribution));
  return `${metric}_sum{${labels}} ${sum}\n${metric}_count{${labels}} ${distribution?.count ?? 0}\n`;
}

/** Prints a number as C's `%.32g` does. */
function digits(value: number): string {
  const text = value.toPrecision(32);
  return text.includes("e") ? text : text.replace(/\.?0+$/, "");
}
