import {
  ConfigError,
  type DownstreamConnection,
  filterStateText,
  type MetadataCriterion,
  STATE,
} from "@tsproxy/sdk";
import type { Config } from "./config.ts";

/** A cluster that connections may go to. */
export interface Destination {
  readonly name: string;
  readonly weight: number;
  readonly metadataMatch: readonly MetadataCriterion[] | undefined;
}

/** Where the connections of one use go to. */
export class Destinations {
  readonly #clusters: readonly Destination[];
  readonly #totalWeight: number;

  constructor(config: Config) {
    this.#clusters = clustersOf(config);
    this.#totalWeight = this.#clusters.reduce((sum, cluster) => sum + cluster.weight, 0);
  }

  /** A filter before this one may have named the cluster of the connection. */
  choose({ filterState }: DownstreamConnection): Destination {
    const named = filterStateText(filterState?.get(STATE.TCP_PROXY_CLUSTER));
    if (named !== undefined) return { name: named, weight: 1, metadataMatch: undefined };
    const clusters = this.#clusters;
    if (clusters.length === 1) return clusters[0]!;
    let ticket = Math.random() * this.#totalWeight;
    for (const cluster of clusters) {
      ticket -= cluster.weight;
      if (ticket < 0) return cluster;
    }
    return clusters[clusters.length - 1]!;
  }
}

function clustersOf(config: Config): readonly Destination[] {
  const { cluster, weighted_clusters, metadata_match: match } = config;
  if (cluster !== undefined && weighted_clusters !== undefined) {
    throw new ConfigError("weighted_clusters", 'stands beside "cluster"; keep one of the two');
  }
  if (weighted_clusters !== undefined)
    return weighted_clusters.clusters.map(({ name, weight, metadata_match: own }) => ({
      name,
      weight,
      metadataMatch: criteria(match, own),
    }));
  if (cluster !== undefined) return [{ name: cluster, weight: 1, metadataMatch: criteria(match) }];
  throw new ConfigError("cluster", "is missing; name a cluster, or weighted_clusters");
}

/** Merges metadata criteria for subset selection, sorted by key; those of a weighted cluster take precedence. */
function criteria(
  ...sources: readonly Config["metadata_match"][]
): readonly MetadataCriterion[] | undefined {
  const merged = Object.assign({}, ...sources.map((s) => s?.filter_metadata["envoy.lb"]));
  const keys = Object.keys(merged).sort();
  return keys.length === 0 ? undefined : keys.map((key) => ({ key, value: merged[key] }));
}
