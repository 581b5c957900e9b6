// Hot path: `choose` runs for every request.
import type {
  BalancedCluster,
  Balancer,
  BalancerContext,
  BalancerPolicy,
  Counter,
  Gauge,
  Host,
  MetadataCriterion,
  Slot,
  SpreadOptions,
  Stats,
} from "@tsproxy/sdk";
import type { Config, Selector } from "./config.ts";
import { matches, memberships, nameOf } from "./metadata.ts";

export class SubsetStats {
  readonly active: Gauge;
  readonly created: Counter;
  readonly removed: Counter;
  readonly selected: Counter;
  readonly fallback: Counter;
  readonly fallbackPanic: Counter;
  readonly duplicate: Gauge;

  constructor(stats: Stats) {
    this.active = stats.gauge("lb_subsets_active");
    this.created = stats.counter("lb_subsets_created");
    this.removed = stats.counter("lb_subsets_removed");
    this.selected = stats.counter("lb_subsets_selected");
    this.fallback = stats.counter("lb_subsets_fallback");
    this.fallbackPanic = stats.counter("lb_subsets_fallback_panic");
    this.duplicate = stats.gauge("lb_subsets_single_host_per_subset_duplicate");
  }
}

/** Which stats this thread sets: the gauges of all threads are added up, so each stat has one thread that sets it. */
type SubsetCounts = "all" | "changes" | "nothing";

/** What happens to a request that asks for the keys of a selector and finds no subset. */
interface Fallback {
  readonly policy: Selector["fallback_policy"];
  readonly keys: ReadonlySet<string>;
}

const NO_CRITERIA: readonly MetadataCriterion[] = [];

/**
 * Divides the hosts of a cluster by their metadata: for each selector, hosts with the same values of its keys are a subset, and
 * a request that asks for exactly those gets one of them.
 */
export class Subsets implements Balancer {
  readonly #config: Config;
  readonly #stats: SubsetStats;
  readonly #counts: SubsetCounts;
  readonly #subsets = new Map<string, Balancer>();
  /** By the selector's sorted keys, joined. */
  readonly #fallbacks: ReadonlyMap<string, Fallback>;
  readonly #any: Balancer | undefined;
  readonly #default: Balancer | undefined;
  readonly #selectors: readonly (readonly string[])[];
  /** For `allow_redundant_keys`. */
  readonly #longestFirst: readonly (readonly string[])[];
  /** Kept by the array of criteria, since a route asks with the same one each time. */
  readonly #found = new WeakMap<readonly MetadataCriterion[], Balancer | "none">();

  constructor(
    config: Config,
    cluster: BalancedCluster,
    child: Slot<BalancerPolicy>,
    stats: SubsetStats,
    counts: SubsetCounts,
    previous: ReadonlySet<string>,
  ) {
    this.#config = config;
    this.#stats = stats;
    this.#counts = counts;
    this.#selectors = config.subset_selectors.map((selector) => keysOf(selector));
    this.#longestFirst = this.#selectors.toSorted((a, b) => b.length - a.length);
    this.#fallbacks = fallbacksOf(config.subset_selectors);
    const options = localityOptions(config);
    const spread = (name: string, hosts: readonly Host[]): Balancer =>
      cluster.spread(name, hosts, child, options);
    const needs = (policy: "ANY_ENDPOINT" | "DEFAULT_SUBSET"): boolean =>
      config.fallback_policy === policy ||
      config.subset_selectors.some((selector) => selector.fallback_policy === policy);
    if (needs("ANY_ENDPOINT") || config.panic_mode_any) this.#any = spread("any", cluster.hosts);
    if (needs("DEFAULT_SUBSET")) {
      const { default_subset: wanted, list_as_any: listAsAny } = config;
      const hosts = cluster.hosts.filter((host) => matches(host, wanted, listAsAny));
      this.#default = spread("default", hosts);
    }
    this.#divide(cluster.hosts, spread);
    this.#count(previous);
  }

  /** Names of the subsets there are. */
  get names(): ReadonlySet<string> {
    return new Set(this.#subsets.keys());
  }

  choose(context: BalancerContext): Host | undefined {
    const criteria = context.metadataMatch;
    if (this.#config.metadata_fallback_policy === "FALLBACK_LIST" && criteria !== undefined) {
      const list = criteria.find((criterion) => criterion.key === "fallback_list");
      if (list !== undefined) return this.#chooseOfList(context, criteria, list.value);
    }
    return this.#chooseOnce(context, criteria);
  }

  dispose(): void {
    this.#any?.dispose?.();
    this.#default?.dispose?.();
    for (const subset of this.#subsets.values()) subset.dispose?.();
  }

  /** Each entry of the list is asked for in turn, over what else is asked for. */
  #chooseOfList(
    context: BalancerContext,
    criteria: readonly MetadataCriterion[],
    list: unknown,
  ): Host | undefined {
    const rest = criteria.filter((criterion) => criterion.key !== "fallback_list");
    if (!Array.isArray(list) || list.length === 0) return this.#chooseOnce(context, rest);
    for (const entry of list) {
      const host = this.#chooseOnce(context, merged(rest, entry));
      if (host !== undefined) return host;
    }
    return undefined;
  }

  #chooseOnce(
    context: BalancerContext,
    asked: readonly MetadataCriterion[] | undefined,
  ): Host | undefined {
    if (asked !== undefined) {
      const subset = this.#find(asked);
      if (subset !== undefined) {
        this.#stats.selected.inc();
        return subset.choose(context, 0);
      }
      const criteria = this.#usable(asked);
      const fallback = this.#fallbacks.get(criteria.map((criterion) => criterion.key).join("\0"));
      if (fallback !== undefined && fallback.policy !== "NOT_DEFINED")
        return this.#chooseByFallback(fallback, context, criteria);
    }
    const { fallback_policy: policy } = this.#config;
    const set =
      policy === "ANY_ENDPOINT"
        ? this.#any
        : policy === "DEFAULT_SUBSET"
          ? this.#default
          : undefined;
    if (set === undefined) return undefined;
    const host = set.choose(context, 0);
    if (host !== undefined) {
      this.#stats.fallback.inc();
      return host;
    }
    if (!this.#config.panic_mode_any) return undefined;
    const any = this.#any?.choose(context, 0);
    if (any !== undefined) this.#stats.fallbackPanic.inc();
    return any;
  }

  #chooseByFallback(
    { policy, keys }: Fallback,
    context: BalancerContext,
    criteria: readonly MetadataCriterion[],
  ): Host | undefined {
    if (policy === "ANY_ENDPOINT") return this.#any?.choose(context, 0);
    if (policy === "DEFAULT_SUBSET") return this.#default?.choose(context, 0);
    if (policy !== "KEYS_SUBSET") return undefined;
    return this.#chooseOnce(
      context,
      criteria.filter((criterion) => keys.has(criterion.key)),
    );
  }

  #find(asked: readonly MetadataCriterion[]): Balancer | undefined {
    let found = this.#found.get(asked);
    if (found === undefined) {
      const criteria = this.#usable(asked);
      found = this.#subsets.get(nameOf(criteria)) ?? "none";
      this.#found.set(asked, found);
    }
    return found === "none" ? undefined : found;
  }

  /** `allow_redundant_keys`: of what is asked for, the keys of the longest selector that it has all keys of. */
  #usable(asked: readonly MetadataCriterion[]): readonly MetadataCriterion[] {
    if (!this.#config.allow_redundant_keys) return asked;
    for (const keys of this.#longestFirst) {
      const criteria = asked.filter((criterion) => keys.includes(criterion.key));
      if (criteria.length === keys.length) return criteria;
    }
    return asked;
  }

  #divide(hosts: readonly Host[], spread: (name: string, hosts: Host[]) => Balancer): void {
    const members = new Map<string, { readonly single: boolean; readonly hosts: Set<Host> }>();
    let duplicates = 0;
    for (const host of hosts) {
      for (const [k, selector] of this.#config.subset_selectors.entries()) {
        for (const criteria of memberships(host, this.#selectors[k]!, this.#config.list_as_any)) {
          const name = nameOf(criteria);
          let subset = members.get(name);
          if (subset === undefined) {
            subset = { single: selector.single_host_per_subset, hosts: new Set() };
            members.set(name, subset);
          }
          if (!subset.single || subset.hosts.size === 0) subset.hosts.add(host);
          else duplicates++;
        }
      }
    }
    for (const [name, { single, hosts: all }] of members) {
      const own = [...all];
      // Its one host is taken whatever its health.
      this.#subsets.set(name, single ? { choose: () => own[0] } : spread(name, own));
    }
    if (this.#counts === "all") this.#stats.duplicate.set(duplicates);
  }

  #count(previous: ReadonlySet<string>): void {
    if (this.#counts === "nothing") return;
    let created = 0;
    for (const name of this.#subsets.keys()) if (!previous.has(name)) created++;
    this.#stats.created.add(created);
    this.#stats.removed.add(previous.size + created - this.#subsets.size);
    this.#stats.active.set(this.#subsets.size);
  }
}

function keysOf(selector: Selector): readonly string[] {
  return [...new Set(selector.keys)].sort();
}

/** As in Envoy, which keeps selectors in a tree by key: a selector whose path exists already has no fallback of its own. */
function fallbacksOf(selectors: readonly Selector[]): ReadonlyMap<string, Fallback> {
  const fallbacks = new Map<string, Fallback>();
  for (const selector of selectors) {
    const keys = keysOf(selector);
    for (let n = 1; n <= keys.length; n++) {
      const path = keys.slice(0, n).join("\0");
      if (fallbacks.has(path)) continue;
      const policy = n === keys.length ? selector.fallback_policy : "NOT_DEFINED";
      fallbacks.set(path, { policy, keys: new Set(selector.fallback_keys_subset) });
    }
  }
  return fallbacks;
}

function localityOptions(config: Config): SpreadOptions {
  if (!config.locality_weight_aware) return { localityWeights: "none" };
  return { localityWeights: config.scale_locality_weight ? "scaled" : "configured" };
}

function merged(
  criteria: readonly MetadataCriterion[],
  entry: unknown,
): readonly MetadataCriterion[] {
  const values = new Map(criteria.map(({ key, value }) => [key, value]));
  if (typeof entry === "object" && entry !== null)
    for (const [key, value] of Object.entries(entry)) values.set(key, value);
  if (values.size === 0) return NO_CRITERIA;
  return [...values]
    .map(([key, value]) => ({ key, value }))
    .sort((a, b) => (a.key < b.key ? -1 : 1));
}
