import type {
  DescriptorMaker,
  DirectResponseAction,
  ExtensionRef,
  FormatSource,
  HeaderEdit,
  HeaderMap,
  RedirectAction,
  RequestHeaders,
  ResponseHeaders,
  Route,
  RouteAction,
  StreamInfo,
  VirtualCluster,
} from "@tsproxy/sdk";

/** Finds the virtual cluster that a request belongs to. */
export interface VirtualClusterChoice {
  of(headers: RequestHeaders): VirtualCluster;
}

/** An entry of `typed_per_filter_config`, merged over all levels. */
export interface FilterOverride {
  readonly config: unknown;
  /** The configs of every level that has one, the least specific first. */
  readonly configs: readonly unknown[];
  /** Of the most specific entry: a config switches the filter on, though its chain or an outer level has it disabled. */
  readonly disabled: boolean;
}

/** Settings of a route, merged from its own level and those around it. */
export interface RouteLevels {
  readonly request: readonly HeaderEdit[];
  readonly response: readonly HeaderEdit[];
  readonly filters: ReadonlyMap<string, FilterOverride>;
  /** Descriptors of the route, then of its virtual host. */
  readonly rateLimits?: readonly (readonly DescriptorMaker[])[] | undefined;
}

/** `metadata.filter_metadata`, by namespace. */
type Metadata = Readonly<Record<string, unknown>>;

/** A resolved route of the table: made once, shared by all streams. */
export class ResolvedRoute implements Route {
  readonly name: string;
  readonly virtualHostName: string;
  readonly action: RouteAction | RedirectAction | DirectResponseAction;
  readonly routeMetadata: Metadata | undefined;
  readonly virtualHostMetadata: Metadata | undefined;
  readonly #levels: RouteLevels;
  readonly #clusters: VirtualClusterChoice | undefined;

  constructor(
    names: { readonly route: string; readonly virtualHost: string },
    action: Route["action"],
    levels: RouteLevels,
    metadata: {
      readonly route?: Metadata | undefined;
      readonly virtualHost?: Metadata | undefined;
    } = {},
    clusters?: VirtualClusterChoice,
  ) {
    this.name = names.route;
    this.virtualHostName = names.virtualHost;
    this.action = action;
    this.#levels = levels;
    this.routeMetadata = metadata.route;
    this.virtualHostMetadata = metadata.virtualHost;
    this.#clusters = clusters;
  }

  /** The virtual cluster of a request; undefined: the virtual host has none. */
  virtualCluster(headers: RequestHeaders): VirtualCluster | undefined {
    return this.#clusters?.of(headers);
  }

  /** The same route with another action, for a cluster that only the request names. */
  withAction(action: RouteAction): ResolvedRoute {
    const names = { route: this.name, virtualHost: this.virtualHostName };
    const metadata = { route: this.routeMetadata, virtualHost: this.virtualHostMetadata };
    return new ResolvedRoute(names, action, this.#levels, metadata, this.#clusters);
  }

  editRequest(headers: RequestHeaders, info: StreamInfo, source?: FormatSource): void {
    const rules = this.#levels.request;
    if (rules.length === 0) return;
    edit(rules, headers, source ?? { info, request: headers, response: undefined });
  }

  editResponse(
    headers: ResponseHeaders,
    info: StreamInfo,
    request: RequestHeaders,
    source?: FormatSource,
  ): void {
    const rules = this.#levels.response;
    if (rules.length === 0) return;
    // The head is not the stream's response yet, so a stream as the source would lack it.
    const { metadata, serverName, filterState, downstream, virtualClusterName } = source ?? {};
    const { routeMetadata, virtualHostMetadata } = this;
    const ofRoute = { routeMetadata, virtualHostMetadata, virtualClusterName };
    const ofStream = { metadata, serverName, filterState, downstream };
    edit(rules, headers, { info, request, response: headers, ...ofStream, ...ofRoute });
  }

  get rateLimits(): readonly (readonly DescriptorMaker[])[] | undefined {
    return this.#levels.rateLimits;
  }

  filterConfig(filterName: string): unknown {
    return this.#levels.filters.get(filterName)?.config;
  }

  filterConfigs(filterName: string): readonly unknown[] {
    return this.#levels.filters.get(filterName)?.configs ?? NONE;
  }

  filterOverride(filterName: string): FilterOverride | undefined {
    return this.#levels.filters.get(filterName);
  }
}

const NONE: readonly unknown[] = [];

function edit(rules: readonly HeaderEdit[], headers: HeaderMap, source: FormatSource): void {
  for (let k = 0; k < rules.length; k++) rules[k]!.apply(headers, source);
}

/** Merges per-filter configs of several levels, the least specific first. For each filter the last one counts. */
export function mergeOverrides(
  levels: readonly (
    | Readonly<Record<string, ExtensionRef & { readonly disabled?: boolean }>>
    | undefined
  )[],
): ReadonlyMap<string, FilterOverride> {
  const merged = new Map<string, FilterOverride>();
  for (const level of levels) {
    for (const [name, ref] of Object.entries(level ?? {})) {
      const outer = merged.get(name);
      const own = ref.config === undefined ? [] : [ref.config];
      merged.set(name, {
        config: ref.config ?? outer?.config,
        configs: [...(outer?.configs ?? []), ...own],
        disabled: ref.disabled ?? false,
      });
    }
  }
  return merged;
}
