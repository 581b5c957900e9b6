import { type Answer, Refused, text } from "./answer.ts";
import type { CoreData, HistogramSnapshot, NamedValue, StatsSnapshot } from "./core-data.ts";
import { type Bounds, histogramMode } from "./histogram.ts";
import { prometheusProtobuf } from "./prometheus-protobuf.ts";
import { prometheusText } from "./prometheus-text.ts";
import type { Query } from "./query.ts";
import { select, selector } from "./selection.ts";
import { StatsConfig } from "./stats-config.ts";
import { Tagger } from "./tags.ts";

/** The stats of one metric name. */
export interface Family<T> {
  readonly metric: string;
  readonly members: readonly { readonly tags: readonly Tag[]; readonly stat: T }[];
}
export type Tag = readonly [name: string, value: string];

/** One of Prometheus' exposition formats; each call makes a piece of the body. */
export interface Exposition {
  scalars(type: "counter" | "gauge", family: Family<NamedValue>): string;
  histograms(family: Family<HistogramSnapshot>, bounds: (name: string) => Bounds): string;
  /** As in Envoy, a summary covers the last interval only. */
  summaries(family: Family<HistogramSnapshot>): string;
}

const PROTOBUF = "application/vnd.google.protobuf";

/** `/stats/prometheus`: Prometheus' text format 0.0.4, or its protobuf messages, under Envoy's names. */
export async function prometheus(query: Query, core: CoreData): Promise<Answer> {
  const asMessages = query.has("prom_protobuf") || query.prefers(PROTOBUF, "text/plain");
  const mode = histogramMode(query, "cumulative");
  if (mode === "prometheusnative")
    throw new Refused(
      400,
      asMessages
        ? "native histograms are not made here; ask for histogram_buckets=cumulative"
        : "unsupported prometheusnative histogram type when not using protobuf exposition format",
    );
  if (mode !== "cumulative" && mode !== "summary")
    throw new Refused(400, "unsupported prometheus histogram bucket mode");
  const wanted = selector(query);
  const [snapshot, dump] = await Promise.all([core.stats(), core.config()]);
  const { counters, gauges, histograms } = select(withHosts(snapshot), wanted);
  const config = new StatsConfig(dump.bootstrap.stats_config, core.regex);
  const tagger = new Tagger(config.rules, config.fixedTags);
  const form: Exposition = asMessages ? prometheusProtobuf : prometheusText;

  function* body(): Generator<string> {
    for (const family of families(tagger, counters, ([name]) => name))
      yield form.scalars("counter", family);
    for (const family of families(tagger, gauges, ([name]) => name))
      yield form.scalars("gauge", family);
    for (const family of families(tagger, histograms, ({ name }) => name))
      yield mode === "summary" ? form.summaries(family) : form.histograms(family, config.bounds);
  }
  if (!asMessages) return text(body());
  const contentType = `${PROTOBUF}; proto=io.prometheus.client.MetricFamily; encoding=delimited`;
  return { status: 200, contentType, body: body(), isBinary: true };
}

/** The stats of hosts among the others: here they stand by family. */
function withHosts({ counters, gauges, hosts = [], ...rest }: StatsSnapshot): StatsSnapshot {
  return {
    ...rest,
    counters: [...counters, ...hosts.flatMap((host) => host.counters)],
    gauges: [...gauges, ...hosts.flatMap((host) => host.gauges)],
  };
}

/** Collects stats by metric: those of one metric name have to stand together. */
function* families<T>(
  tagger: Tagger,
  list: readonly T[],
  nameOf: (stat: T) => string,
): Generator<Family<T>> {
  const byName = new Map<string, { readonly tags: readonly Tag[]; readonly stat: T }[]>();
  for (const stat of list) {
    const { name, tags: found } = tagger.extract(nameOf(stat));
    const tags = found.map(([tag, value]): Tag => [tag.replace(/[^a-zA-Z0-9_]/g, "_"), value]);
    const family = byName.get(name);
    if (family === undefined) byName.set(name, [{ tags, stat }]);
    else family.push({ tags, stat });
  }
  // Sorted by the stats' names, not by the metrics': `http.x` comes before `http1.x`, but `http_x` would come after `http1_x`.
  for (const name of [...byName.keys()].sort())
    yield {
      metric: `envoy_${name.replace(/[^a-zA-Z0-9_]/g, "_")}`,
      members: byName.get(name)!,
    };
}
