import type { Distribution } from "./core-data.ts";
import { countsUpTo, QUANTILES, quantiles, sumOfBuckets } from "./histogram.ts";
import type { Exposition, Family, Tag } from "./prometheus.ts";
import { unsigned } from "./selection.ts";

/** Prometheus' text format 0.0.4. */
export const prometheusText: Exposition = {
  scalars: (type, family) =>
    lines(type, family, (metric, labels, [, value]) => `${metric}{${labels}} ${unsigned(value)}\n`),
  histograms: (family, boundsOf) =>
    lines("histogram", family, (metric, labels, histogram) => {
      const prefix = labels === "" ? "" : `${labels},`;
      const bounds = boundsOf(histogram.name);
      let text = "";
      for (const [k, count] of countsUpTo(histogram, bounds).entries()) {
        text += `${metric}_bucket{${prefix}le="${bounds[k]}"} ${count}\n`;
      }
      text += `${metric}_bucket{${prefix}le="+Inf"} ${histogram.count}\n`;
      return text + total(metric, labels, histogram);
    }),
  summaries: (family) =>
    lines("summary", family, (metric, labels, { interval }) => {
      const prefix = labels === "" ? "" : `${labels},`;
      const values = quantiles(interval);
      let text = "";
      for (const [k, percent] of QUANTILES.entries()) {
        text += `${metric}{${prefix}quantile="${Number((percent / 100).toFixed(4))}"} ${values === undefined ? "nan" : digits(values[k]!)}\n`;
      }
      return text + total(metric, labels, interval);
    }),
};

function lines<T>(
  type: string,
  { metric, members }: Family<T>,
  print: (metric: string, labels: string, stat: T) => string,
): string {
  let text = `# TYPE ${metric} ${type}\n`;
  for (const { tags, stat } of members) text += print(metric, tags.map(label).join(","), stat);
  return text;
}

function label([name, value]: Tag): string {
  const escaped = value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
  return `${name}="${escaped}"`;
}

function total(metric: string, labels: string, distribution: Distribution | null): string {
  const sum = digits(sumOfBuckets(distribution));
  return `${metric}_sum{${labels}} ${sum}\n${metric}_count{${labels}} ${distribution?.count ?? 0}\n`;
}

/** Prints a number as C's `%.32g` does. */
function digits(value: number): string {
  const text = value.toPrecision(32);
  return text.includes("e") ? text : text.replace(/\.?0+$/, "");
}
