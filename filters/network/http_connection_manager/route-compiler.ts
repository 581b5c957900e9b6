import {
  base64Decode,
  type ClusterSpecifier,
  ConfigError,
  compileHeaderRules,
  compileMatcher,
  DescriptorMaker,
  type DirectResponseAction,
  everyOf,
  type FormatSource,
  type HashPolicy,
  type HeaderEdit,
  type HeaderName,
  type HeaderRules,
  type HeaderRulesConfig,
  headerName,
  lateEntry,
  nameOf,
  type RateLimit,
  type RequestHeaders,
  type Route,
  type RouteAction,
  type RoutePolicies,
  RuntimeInteger,
  requestHash,
  type SetupContext,
  type Slot,
  type SourceBytes,
  utf8Encode,
  wireText,
} from "@tsproxy/sdk";
import { compileBodyFormat, withReplyBody } from "./body-format.ts";
import { compilePolicies } from "./policies.ts";
import type { Metadata } from "./policies-config.ts";
import { httpsRedirect, Redirect } from "./redirect.ts";
import { mergeOverrides, ResolvedRoute, type RouteLevels } from "./route.ts";
import { compileForwardAction, type ForwardAction } from "./route-action.ts";
import type {
  RouteActionConfig,
  RouteConfig,
  RouteEntry,
  VirtualHostConfig,
  WeightedCluster,
} from "./route-config.ts";
import { RouteMatch, type RouteSubject } from "./route-match.ts";
import {
  type Choice,
  LISTED,
  type RouteSource,
  VirtualClusters,
  VirtualHost,
} from "./virtual-host.ts";

/** A level of the config that edits heads and configures filters. */
interface Level {
  readonly config: HeaderRulesConfig & Pick<WeightedCluster, "typed_per_filter_config">;
  readonly path: string;
}

/** A virtual host whose routes are being compiled. */
interface Outer {
  readonly config: VirtualHostConfig;
  readonly path: string;
  readonly levels: readonly Level[];
  readonly clusters: VirtualClusters | undefined;
}

/** Resolves a route for one stream; undefined: the stream gets no route. */
type Answer = Choice["route"];

/** Tables with more virtual hosts compile each at its first request: a given worker never needs most of them. */
const MANY_HOSTS = 100;

/** What a matcher of routes may look at: as in Envoy, nothing but the request's headers and what is known before it. */
const INPUTS = [
  "envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
  "envoy.extensions.matching.common_inputs.network.v3.FilterStateInput",
  "envoy.extensions.matching.common_inputs.environment_variable.v3.Config",
];

/** Compiles the routes of a route table, with the settings of the levels around them. */
export class RouteCompiler {
  /** Some route switches a filter off or on. */
  switchesFilters = false;
  /** Every per-route config of a filter, with its path in the config. */
  readonly filterConfigs = new Map<unknown, { readonly filter: string; readonly path: string }>();
  readonly #config: RouteConfig;
  readonly #path: string;
  readonly #cx: SetupContext;
  /** Virtual hosts are compiled at their first request. Their errors have been found before (`#checks`). */
  readonly #lazy: boolean;
  /** A canary, or worker 0 if there was none, compiles every virtual host during setup, only to find errors, also those of runtime values. */
  readonly #checks: boolean;
  /** Requests are being served: a cluster that is missing now was removed, and the router deals with that. */
  #isServing = false;
  /** Compiled header rules by level, because all routes of a virtual host share its rules. */
  readonly #rules = { request: new WeakMap(), response: new WeakMap() } as Record<
    "request" | "response",
    WeakMap<HeaderRulesConfig, HeaderRules | undefined>
  >;
  /** Compiled levels, by virtual host, for all its routes that have no settings of their own. */
  readonly #plain = new WeakMap<HeaderRulesConfig, RouteLevels>();
  /** Merged configs of filters, by the innermost level that has any. */
  readonly #overrides = new WeakMap<HeaderRulesConfig, RouteLevels["filters"]>();
  /** `cluster_specifier_plugins`, by name. */
  readonly #specifiers = new Map<string, Slot<ClusterSpecifier>>();

  constructor(config: RouteConfig, path: string, cx: SetupContext) {
    this.#config = config;
    this.#path = path;
    this.#cx = cx;
    this.#lazy =
      (cx.role === "worker" || cx.role === "canary") &&
      config.virtual_hosts.entries.length > MANY_HOSTS &&
      config.typed_per_filter_config === undefined;
    this.#checks = cx.role === "canary" || (cx.rehearsed === false && cx.worker === 0);
    for (const [k, { extension }] of config.cluster_specifier_plugins.entries()) {
      const { name } = extension;
      if (this.#specifiers.has(name)) {
        const at = `${path}.cluster_specifier_plugins[${k}].extension.name`;
        throw new ConfigError(at, `a second plugin has the name "${name}"`);
      }
      this.#specifiers.set(name, cx.extension("cluster_specifier", extension));
    }
  }

  /** Compiles the `nth` virtual host of the table. */
  virtualHost(config: VirtualHostConfig, nth: number, path: string): VirtualHost {
    const clusters =
      config.virtual_clusters.length === 0
        ? undefined
        : new VirtualClusters(config, path, this.#cx);
    const names = { route: "", virtualHost: config.name };
    const toTls = new ResolvedRoute(names, httpsRedirect, NO_LEVELS);
    if (config.matcher !== undefined && config.routes.length > 0) {
      throw new ConfigError(path, "give one of routes and matcher");
    }
    if (this.#lazy && !usesExtensions(config)) {
      if (this.#checks) this.#source(this.#outer(config, path, clusters));
      return new VirtualHost(config, () => this.#late(nth, path, clusters), toTls);
    }
    const source = this.#source(this.#outer(config, path, clusters));
    return new VirtualHost(config, () => source, toTls);
  }

  #outer(config: VirtualHostConfig, path: string, clusters: Outer["clusters"]): Outer {
    const levels = [
      { config, path },
      { config: this.#config, path: this.#path },
    ];
    return { config, path, levels, clusters };
  }

  /** Compiles a virtual host while a request waits. Never throws: after an error, which is logged, it has no routes. */
  #late(nth: number, path: string, clusters: Outer["clusters"]): RouteSource {
    this.#isServing = true;
    try {
      const config = lateEntry(this.#config.virtual_hosts, nth);
      return this.#source(this.#outer(config, path, clusters));
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      this.#cx.log.error("a virtual host has no routes", { path, error: message });
      return { routes: [], matcher: undefined };
    }
  }

  #source(outer: Outer): RouteSource {
    const { config, path } = outer;
    const routes = everyOf(config.routes, (route, r) =>
      this.#choice(route, outer, `${path}.routes[${r}]`, `routes[${r}]`),
    );
    const matcher =
      config.matcher &&
      compileMatcher(
        config.matcher,
        `${path}.matcher`,
        this.#cx,
        (action, at) => {
          const { "@type": type } = action;
          if (type === "envoy.config.route.v3.Route") return [this.#choice(action, outer, at, at)];
          return everyOf(action.routes, (route, r) =>
            this.#choice(route, outer, `${at}.routes[${r}]`, `${at}.routes[${r}]`),
          );
        },
        INPUTS,
      );
    return { routes, matcher };
  }

  #choice(entry: RouteEntry, outer: Outer, path: string, place: string): Choice {
    const rules = { ignoreParameters: this.#config.ignore_path_parameters_in_path_matching };
    const match = new RouteMatch(entry.match, `${path}.match`, this.#cx, rules);
    const levels = [{ config: entry, path }, ...outer.levels];
    const names = { route: entry.name, virtualHost: outer.config.name };
    const rateLimits = this.#rateLimits(entry, outer, path);
    const resolve = (action: Route["action"], inner?: readonly Level[]) => {
      const made = this.#levels(inner === undefined ? levels : [...inner, ...levels]);
      return new ResolvedRoute(
        names,
        action,
        rateLimits === undefined ? made : { ...made, rateLimits },
        {
          route: entry.metadata?.filter_metadata,
          virtualHost: outer.config.metadata?.filter_metadata,
        },
        action.type === "route" ? outer.clusters : undefined,
      );
    };
    const label = entry.name === "" ? place : `${place} (${entry.name})`;
    return { label, match, route: this.#action(entry, outer, match, resolve, path) };
  }

  /** Rate limits of a virtual host count where the route has none of its own, or sets `include_vh_rate_limits`. */
  #rateLimits({ route }: RouteEntry, outer: Outer, path: string): RouteLevels["rateLimits"] {
    const compile = (list: readonly RateLimit[], at: string) =>
      list.map((limit, k) => new DescriptorMaker(limit, `${at}.rate_limits[${k}]`, this.#cx));
    const own = route?.rate_limits ?? [];
    const host = outer.config.rate_limits;
    if (own.length === 0 && host.length === 0) return undefined;
    const lists = own.length === 0 ? [] : [compile(own, `${path}.route`)];
    if (host.length > 0 && (own.length === 0 || route?.include_vh_rate_limits === true))
      lists.push(compile(host, outer.path));
    return lists;
  }

  #action(
    entry: RouteEntry,
    outer: Outer,
    match: RouteMatch,
    resolve: (action: Route["action"], inner?: readonly Level[]) => ResolvedRoute,
    path: string,
  ): Answer {
    const { route, redirect, direct_response: direct, non_forwarding_action: none } = entry;
    if ([route, redirect, direct, none].filter((action) => action !== undefined).length !== 1) {
      throw new ConfigError(
        path,
        "give one of route, redirect, direct_response and non_forwarding_action",
      );
    }
    if (entry.stat_prefix !== "") {
      const prefix = `vhost.${outer.config.name}.route.${entry.stat_prefix}.`;
      this.#cx.stats.scope(prefix).list?.(LISTED);
    }
    if (redirect !== undefined) {
      return fixed(resolve(new Redirect(redirect, match, `${path}.redirect`, this.#cx)));
    }
    if (direct !== undefined) return fixed(resolve(this.#direct(direct, path)));
    if (none !== undefined) {
      // A filter of the chain has to answer; the router has no cluster for the request.
      const action = compileForwardAction(NO_FORWARDING, match, path, this.#cx, undefined);
      return fixed(resolve(action));
    }
    const policies = (weighted?: Metadata) =>
      compilePolicies(
        { action: route!, entry, virtualHost: outer.config, table: this.#config },
        { action: `${path}.route`, virtualHost: outer.path, table: this.#path },
        (name, at) => this.#checkCluster(name, at),
        this.#cx,
        weighted,
      );
    return this.#forward(match, route!, resolve, policies, `${path}.route`);
  }

  #direct(direct: NonNullable<RouteEntry["direct_response"]>, path: string): DirectResponseAction {
    const at = `${path}.direct_response.body`;
    const body = contentOf(direct.body);
    const size = typeof body === "string" ? utf8Encode(body).length : body.length;
    const max = this.#config.max_direct_response_body_size_bytes;
    if (size > max) {
      throw new ConfigError(
        at,
        `has ${size} bytes; raise max_direct_response_body_size_bytes, now ${max}`,
      );
    }
    const { status, body_format: config } = direct;
    if (config === undefined) return { type: "direct_response", status, body };
    if (typeof body !== "string")
      throw new ConfigError(at, "is not UTF-8; with body_format only text works here");
    const { format, type, typed } = compileBodyFormat(
      config,
      `${path}.direct_response.body_format`,
    );
    const bodyFor = (stream: FormatSource) => ({
      body: format.format(withReplyBody(stream, undefined, body)),
      ...(typed && { contentType: type }),
    });
    return { type: "direct_response", status, body, bodyFor };
  }

  #forward(
    match: RouteMatch,
    action: RouteActionConfig,
    resolve: (action: RouteAction, inner?: readonly Level[]) => ResolvedRoute,
    policies: (weighted?: Metadata) => RoutePolicies | undefined,
    path: string,
  ): Answer {
    const forms = SPECIFIERS.filter((form) => action[form] !== undefined);
    if (forms.length !== 1) {
      const list = `${SPECIFIERS.slice(0, -1).join(", ")} and ${SPECIFIERS.at(-1)}`;
      throw new ConfigError(path, `give one of ${list}`);
    }
    const forward = (entry?: WeightedCluster) =>
      compileForwardAction(action, match, path, this.#cx, policies(entry?.metadata_match));
    if (action.cluster !== undefined) {
      this.#checkCluster(action.cluster, `${path}.cluster`);
      return fixed(resolve(forward().to(action.cluster)));
    }
    if (action.cluster_header !== undefined) {
      const header = nameOf(action.cluster_header, `${path}.cluster_header`);
      const unnamed = forward();
      return byHeader(header, resolve(unnamed), unnamed);
    }
    const specifier = this.#specifier(action, path);
    if (specifier !== undefined) {
      const unnamed = forward();
      return bySpecifier(specifier, resolve(unnamed), unnamed);
    }
    const weights = action.weighted_clusters!;
    const at = `${path}.weighted_clusters`;
    const answers = everyOf(weights.clusters, (entry, k) =>
      this.#weightedEntry(entry, forward, resolve, `${at}.clusters[${k}]`),
    );
    const hash = weights.use_hash_policy ? (policies()?.hash ?? []) : [];
    return this.#weighted(weights, hash, answers, at);
  }

  #specifier(action: RouteActionConfig, path: string): Slot<ClusterSpecifier> | undefined {
    const inline = action.inline_cluster_specifier_plugin;
    if (inline !== undefined) return this.#cx.extension("cluster_specifier", inline.extension);
    const name = action.cluster_specifier_plugin;
    if (name === undefined) return undefined;
    const found = this.#specifiers.get(name);
    if (found === undefined) {
      const at = `${path}.cluster_specifier_plugin`;
      throw new ConfigError(at, `unknown plugin "${name}"; add it to cluster_specifier_plugins`);
    }
    return found;
  }

  #weightedEntry(
    entry: WeightedCluster,
    forward: (entry: WeightedCluster) => ForwardAction,
    resolve: (action: RouteAction, inner: readonly Level[]) => ResolvedRoute,
    path: string,
  ): Answer {
    const inner = [{ config: entry, path }];
    const action = forward(entry);
    const { name = "", cluster_header: header = "" } = entry;
    if ((name === "") === (header === "")) {
      throw new ConfigError(path, "give one of name and cluster_header");
    }
    if (name !== "") {
      this.#checkCluster(name, `${path}.name`);
      return fixed(resolve(action.to(name), inner));
    }
    const from = nameOf(header, `${path}.cluster_header`);
    return byHeader(from, resolve(action, inner), action);
  }

  #weighted(
    config: NonNullable<RouteActionConfig["weighted_clusters"]>,
    hash: readonly HashPolicy[],
    answers: readonly Answer[],
    path: string,
  ): Answer {
    const { header_name: header, runtime_key_prefix: prefix } = config;
    const weights = config.clusters.map(({ weight }) => weight);
    const total = sumOf(weights);
    if (prefix === "") checkTotal(total, "", path);
    const name = header === "" ? undefined : nameOf(header, `${path}.header_name`);
    if (name !== undefined && config.use_hash_policy)
      throw new ConfigError(path, "give one of header_name and use_hash_policy");
    /** Chooses a whole number from 0 to below `sum`: by hash policy, by header, or at random. */
    const random = (subject: RouteSubject, sum: number): number => {
      if (hash.length > 0) {
        const hashed = requestHash(hash, { stream: subject }, noCookie);
        if (hashed !== undefined) return Number(hashed % BigInt(sum));
      }
      return (name && remainder(subject.request, name, sum)) ?? subject.random % sum;
    };
    if (prefix === "") {
      return (subject) => answers[pick(weights, random(subject, total))]!(subject);
    }
    const cells = config.clusters.map(({ name: cluster = "", weight }) => {
      const runtime_key = `${prefix}.${cluster}`;
      return new RuntimeInteger({ runtime_key, default_value: weight }, this.#cx.runtime);
    });
    const current = () => cells.map((cell) => cell.value);
    // Only when the config is new: while it serves, an operator may set them all to 0.
    if (this.#checks) checkTotal(sumOf(current()), prefix, path);
    return (subject) => {
      const weights = current();
      const sum = sumOf(weights);
      // As in Envoy, a route whose weights an operator has all set to 0 matches nothing.
      return sum === 0 ? undefined : answers[pick(weights, random(subject, sum))]!(subject);
    };
  }

  #checkCluster(name: string, path: string): void {
    if (!this.#config.validate_clusters || this.#isServing) return;
    const { clusters } = this.#cx;
    if (clusters.has?.(name) ?? clusters.get(name) !== undefined) return;
    throw new ConfigError(
      path,
      `unknown cluster "${name}"; add it to static_resources.clusters, or set validate_clusters: false`,
    );
  }

  #levels(levels: readonly Level[]): RouteLevels {
    const [route, host] = levels;
    // More than three levels: a weighted cluster stands before the route.
    if (levels.length > 3 || route === undefined || host === undefined || saysSomething(route)) {
      return this.#compileLevels(levels);
    }
    let plain = this.#plain.get(host.config);
    if (plain === undefined) {
      plain = this.#compileLevels(levels.slice(1));
      this.#plain.set(host.config, plain);
    }
    return plain;
  }

  /** `levels`: the most specific first. */
  #compileLevels(levels: readonly Level[]): RouteLevels {
    const outermostFirst = [...levels].reverse();
    // In either order Envoy applies the rules of a weighted cluster first: it is the level before the last three.
    const ordered = this.#config.most_specific_header_mutations_wins
      ? [...levels.slice(0, -3), ...outermostFirst.slice(0, 3)]
      : levels;
    const rules = (direction: "request" | "response") =>
      ordered
        .flatMap((level) => [
          this.#rulesOf(level, direction),
          direction === "request" ? hostEdit(level) : undefined,
        ])
        .filter((rules): rules is HeaderEdit => rules !== undefined);
    return {
      request: rules("request"),
      response: rules("response"),
      filters: this.#filtersOf(levels, outermostFirst),
    };
  }

  #rulesOf({ config, path }: Level, direction: "request" | "response"): HeaderRules | undefined {
    const made = this.#rules[direction];
    if (!made.has(config)) made.set(config, compileHeaderRules(config, direction, path));
    return made.get(config);
  }

  #filtersOf(levels: readonly Level[], outermostFirst: readonly Level[]): RouteLevels["filters"] {
    // Most routes have no filter config of their own, and share that of their virtual host.
    const innermost = levels.find((level) => level.config.typed_per_filter_config !== undefined);
    if (innermost === undefined) return NO_FILTERS;
    const made = this.#overrides.get(innermost.config);
    if (made !== undefined) return made;
    for (const { config, path } of levels) {
      for (const [name, ref] of Object.entries(config.typed_per_filter_config ?? {})) {
        if (ref.disabled !== undefined) this.switchesFilters = true;
        if (ref.config === undefined) continue;
        const at = `${path}.typed_per_filter_config[${JSON.stringify(name)}]`;
        this.filterConfigs.set(ref.config, { filter: name, path: at });
      }
    }
    const merged = mergeOverrides(outermostFirst.map((l) => l.config.typed_per_filter_config));
    this.#overrides.set(innermost.config, merged);
    return merged;
  }
}

const HOST = headerName("host");

/** The forms of RouteAction's `cluster_specifier`. */
const SPECIFIERS = [
  "cluster",
  "cluster_header",
  "weighted_clusters",
  "cluster_specifier_plugin",
  "inline_cluster_specifier_plugin",
] as const;

/** Whether a virtual host is compiled during setup, as extensions and filter configs must be known before the first request. */
function usesExtensions(host: VirtualHostConfig): boolean {
  if (host.typed_per_filter_config !== undefined || host.matcher !== undefined) return true;
  return host.routes.some(
    ({ typed_per_filter_config: own, route }) =>
      own !== undefined ||
      route?.inline_cluster_specifier_plugin !== undefined ||
      route?.weighted_clusters?.clusters.some((c) => c.typed_per_filter_config !== undefined),
  );
}

/** As in Envoy, the host that a weighted cluster names is set after its own header rules and before those of other levels. */
function hostEdit({ config, path }: Level): HeaderEdit | undefined {
  const literal = (config as Partial<WeightedCluster>).host_rewrite_literal ?? "";
  if (literal === "") return undefined;
  const value = wireText(literal, `${path}.host_rewrite_literal`);
  return { apply: (headers) => void headers.replace(HOST, value) };
}

/** Whether a level edits heads or configures filters. */
function saysSomething({ config }: Level): boolean {
  return (
    config.typed_per_filter_config !== undefined ||
    config.request_headers_to_add.length > 0 ||
    config.request_headers_to_remove.length > 0 ||
    config.response_headers_to_add.length > 0 ||
    config.response_headers_to_remove.length > 0
  );
}

const NO_FILTERS: RouteLevels["filters"] = new Map();
const NO_LEVELS: RouteLevels = { request: [], response: [], filters: NO_FILTERS };

/** The RouteAction of a `non_forwarding_action`: it has no cluster. */
const NO_FORWARDING = {
  cluster_not_found_response_code: "SERVICE_UNAVAILABLE",
  auto_host_rewrite: false,
  append_x_forwarded_host: false,
  timeout: 15_000,
  upgrade_configs: [],
} as unknown as RouteActionConfig;

const fixed =
  (route: ResolvedRoute): Answer =>
  () =>
    route;

/** Resolves a route to the cluster that a request header names. */
function byHeader(header: HeaderName, unnamed: ResolvedRoute, action: ForwardAction): Answer {
  return ({ request }) => {
    const name = request.get(header);
    return name === undefined || name === "" ? unnamed : unnamed.withAction(action.to(name));
  };
}

/** Resolves a route to the cluster that a plugin names. */
function bySpecifier(
  specifier: Slot<ClusterSpecifier>,
  unnamed: ResolvedRoute,
  action: ForwardAction,
): Answer {
  return (subject) => {
    const name = specifier.current.value.cluster(subject);
    return name === undefined || name === "" ? unnamed : unnamed.withAction(action.to(name));
  };
}

/** Choosing a cluster by hash sets no cookie; choosing the host does. */
const noCookie = (): void => {};

function sumOf(weights: readonly number[]): number {
  return weights.reduce((sum, weight) => sum + weight, 0);
}

/** `prefix`: of the runtime's keys that replace weights; "": none. */
function checkTotal(total: number, prefix: string, path: string): void {
  const sum =
    prefix === "" ? "the weights are" : `with the runtime's "${prefix}.…" the weights are`;
  if (total === 0) throw new ConfigError(path, `${sum} 0 in sum; give one cluster a weight`);
  if (total > 0xffff_ffff) throw new ConfigError(path, `${sum} ${total} in sum, above 4294967295`);
}

/** Index of the weight that `left` falls to, a number from 0 to below the sum of the weights. */
function pick(weights: readonly number[], left: number): number {
  let rest = left;
  for (let k = 0; k < weights.length; k++) {
    if (rest < weights[k]!) return k;
    rest -= weights[k]!;
  }
  return weights.length - 1;
}

const UINT64_MAX = 0xffff_ffff_ffff_ffffn;

/** The number in a header modulo `sum`; undefined: the header is absent, stands in several lines, or is no unsigned number of 64 bits. */
function remainder(headers: RequestHeaders, name: HeaderName, sum: number): number | undefined {
  const text = headers.get(name);
  if (text === undefined || !/^[0-9]{1,20}$/.test(text) || headers.getAll(name).length > 1)
    return undefined;
  const value = BigInt(text);
  return value > UINT64_MAX ? undefined : Number(value % BigInt(sum));
}

function contentOf(source: SourceBytes | undefined): string | Uint8Array {
  if (source === undefined) return "";
  // Core has written the base64.
  return "text" in source ? source.text : base64Decode(source.base64)!;
}
