import type {
  DescriptorMaker,
  DirectResponseAction,
  ExtensionRef,
  FormatSource,
  HeaderMap,
  HeaderRules,
  RedirectAction,
  RequestHeaders,
  ResponseHeaders,
  Route,
  RouteAction,
  StreamInfo,
  VirtualCluster,
} from "@tsproxy/sdk";

/** Which virtual cluster a request is one of. */
export interface VirtualClusterChoice {
  of(headers: RequestHeaders): VirtualCluster;
}

/** An entry of `typed_per_filter_config` after levels are merged. */
export interface FilterOverride {
  readonly config: unknown;
  /** Of every level that has one, the least specific first. */
  readonly configs: readonly unknown[];
  /** Undefined: the entry does not say. */
  readonly disabled: boolean | undefined;
}

/** Settings of the levels that a route belongs to. */
export interface RouteLevels {
  readonly request: readonly HeaderRules[];
  readonly response: readonly HeaderRules[];
  readonly filters: ReadonlyMap<string, FilterOverride>;
  /** Of the route, then of its virtual host. */
  readonly rateLimits?: readonly (readonly DescriptorMaker[])[] | undefined;
}

/** `metadata.filter_metadata`, by namespace. */
type Metadata = Readonly<Record<string, unknown>>;

/** A route of the table, resolved: made once, shared by all streams. */
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

  /** Undefined: the virtual host counts none by themselves. */
  virtualCluster(headers: RequestHeaders): VirtualCluster | undefined {
    return this.#clusters?.of(headers);
  }

  /** The same route to a cluster that only the request tells. */
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
    // The head is not the stream's response yet, so a stream as the source would not find it.
    const { metadata, serverName, filterState } = source ?? {};
    const { routeMetadata, virtualHostMetadata } = this;
    const known = { metadata, serverName, filterState, routeMetadata, virtualHostMetadata };
    edit(rules, headers, { info, request, response: headers, ...known });
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

function edit(rules: readonly HeaderRules[], headers: HeaderMap, source: FormatSource): void {
  for (let k = 0; k < rules.length; k++) rules[k]!.apply(headers, source);
}

/** The most specific level has the last word on each filter. */
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
        disabled: ref.disabled ?? outer?.disabled,
      });
    }
  }
  return merged;
}
